"""Settings that every source has, and the checks that every connector's settings go through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from connectors.buffer import Overflow
from fusion.errors import ConfigError
from fusion.files import beside
from fusion.plant import Modality, Plant, Signal

SECRET = re.compile(r"(?i)((?:pass(?:word|wd|phrase)?|pwd)=)[^&/]*")


@dataclass(kw_only=True, slots=True)
class Supervision:
    """How patiently a source is supervised and how much it may buffer.

    ``stale_after_s`` is the silence after which a connection is abandoned. Waits between attempts double from
    ``backoff_min_s`` to ``backoff_max_s``, each shortened at random by up to half; a peer that refuses is asked again
    after ``refused_retry_s``. ``overflow`` is drop_oldest, drop_newest or, for files and recordings, wait.
    """

    open_timeout_s: float = 10.0
    stale_after_s: float = 10.0
    close_timeout_s: float = 2.0
    backoff_min_s: float = 0.5
    backoff_max_s: float = 5.0
    refused_retry_s: float = 30.0
    buffer_values: int = 200_000
    buffer_bytes: int = 128 * 1024 * 1024
    overflow: str = "drop_oldest"

    def __post_init__(self) -> None:
        """Reject numbers that no supervisor can work with."""
        for name in ("open_timeout_s", "stale_after_s", "close_timeout_s", "backoff_min_s", "refused_retry_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"supervision.{name}: {getattr(self, name)} must be positive")
        if self.backoff_max_s < self.backoff_min_s:
            raise ConfigError("supervision.backoff_max_s: must not be below backoff_min_s")
        if self.buffer_values < 1 or self.buffer_bytes < 1:
            raise ConfigError("supervision: buffer_values and buffer_bytes must be at least 1")
        choose("supervision.overflow", self.overflow, [policy.value for policy in Overflow])


def choose(key: str, value: str, accepted: Sequence[str]) -> str:
    """The value, if it is among the accepted ones.

    Raises:
        ConfigError: naming the key and the accepted values.
    """
    if value not in accepted:
        raise ConfigError(f"{key}: {value!r} is not accepted; expected one of {', '.join(accepted)}")
    return value


def signal_of(plant: Plant, key: str, name: str, modality: Modality) -> Signal:
    """The plant's signal of that name and modality.

    Raises:
        ConfigError: naming the key and what the plant has.
    """
    signal = plant.by_name.get(name)
    if signal is None or signal.modality is not modality:
        known = ", ".join(s.name for s in plant.of(modality)) or "none"
        raise ConfigError(f"{key}: {name!r} is no {modality} signal of plant {plant.name!r}; it has: {known}")
    return signal


def take_beside(settings: Any, folder: Path, *names: str) -> None:
    """Take relative names of files, or lists of such, from a folder; ``names`` are the keys that hold them."""
    for name in names:
        match getattr(settings, name):
            case str(file) if file:
                setattr(settings, name, beside(folder, file))
            case list(files):
                setattr(settings, name, [beside(folder, file) for file in files])


def redacted(url: str) -> str:
    """A URL without its credentials, fit for messages; some cameras have them in the path or the query."""
    parts = urlsplit(url)
    return SECRET.sub(r"\1***", parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def utc_ns(key: str, text: str | None) -> int | None:
    """UTC nanoseconds of an ISO 8601 time (UTC where it names no zone); None of None.

    Raises:
        ConfigError: the text is no such time.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{key}: {text!r} is not accepted; expected ISO 8601 such as 2026-01-31T12:00:00") from None
    return datetime_ns(moment)


def datetime_ns(moment: datetime) -> int:
    """A moment as UTC nanoseconds, exactly; one without a zone is UTC."""
    delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1000
