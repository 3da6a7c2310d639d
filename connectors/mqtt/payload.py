"""One value out of an MQTT payload: plain text or a path into JSON, with its time and quality if it says them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from connectors.base import Tally
from connectors.columns import UNUSABLE, number, plausible
from connectors.mqtt.config import TopicConfig
from connectors.settings import datetime_ns
from fusion.records import Quality

NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
WORDS = {"true": 1.0, "false": 0.0}
QUALITIES = {"good": Quality.GOOD, "uncertain": Quality.UNCERTAIN, "bad": Quality.BAD}
MISSING = object()


@dataclass(frozen=True, slots=True)
class Reading:
    """One value; ``t_ns`` is None where the payload does not say when it was taken."""

    value: float
    quality: int
    t_ns: int | None


class Extractor:
    """Takes one signal's value out of the payloads of one topic; what is no number is counted, never raised."""

    def __init__(self, config: TopicConfig, index: int, tally: Tally) -> None:
        self.index = index
        self._plain = config.format == "plain"
        self._value_path = _path(config.value_path)
        self._time_path = _path(config.time_path) if config.time_path else None
        self._time_unit = config.time_unit
        self._quality_path = _path(config.quality_path) if config.quality_path else None
        self._tally = tally

    def reading(self, payload: bytes, received_ns: int, retained: bool) -> Reading:
        """The value in a payload; a retained one that does not say its time may be old, hence uncertain."""
        document = _plain(payload) if self._plain else _json(payload)
        value = number(document if self._plain else _find(document, self._value_path))
        if value is None:
            self._tally.noted["payload without a number"] += 1
            return Reading(*UNUSABLE, None)
        t_ns = self._time(document, received_ns)
        quality = self._quality(document)
        if retained and t_ns is None:
            self._tally.noted["retained without a time"] += 1
            quality = min(quality, Quality.UNCERTAIN)
        return Reading(value, int(quality), t_ns)

    def _time(self, document: Any, received_ns: int) -> int | None:
        if self._plain or self._time_path is None:
            return None
        t_ns = _time_ns(_find(document, self._time_path), self._time_unit)
        if plausible(t_ns, received_ns):
            return t_ns
        self._tally.noted["no usable time stamp"] += 1
        return None

    def _quality(self, document: Any) -> Quality:
        if self._plain or self._quality_path is None:
            return Quality.GOOD
        return _quality_of(_find(document, self._quality_path))


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _plain(payload: bytes) -> object:
    text = payload.decode("utf-8", "replace").strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return MISSING


def _json(payload: bytes) -> object:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return MISSING


def _find(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if isinstance(document, dict):
            document = document.get(key, MISSING)
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return MISSING
    return document


def _time_ns(stamp: Any, unit: str) -> int | None:
    if unit == "iso":
        return _iso_ns(stamp) if isinstance(stamp, str) else None
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        return None
    try:
        return round(stamp * NS[unit])
    except (OverflowError, ValueError):  # no finite number, or none once it is in nanoseconds
        return None


def _iso_ns(text: str) -> int | None:
    """An ISO 8601 stamp; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return datetime_ns(moment)


def _quality_of(said: Any) -> Quality:
    """A word, a truth value or an OPC UA status code; a quality that cannot be read is uncertain."""
    if isinstance(said, bool):
        return Quality.GOOD if said else Quality.BAD
    if isinstance(said, int) and 0 <= said < 1 << 32:
        return Quality(max(2 - (said >> 30), 0))
    return QUALITIES.get(said.lower(), Quality.UNCERTAIN) if isinstance(said, str) else Quality.UNCERTAIN
