"""The certificates a daemon uses: which end soon, said while there is time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusion.certificates import read_certificate
from fusion.errors import ConfigError

SOON_DAYS = 30.0
AGAIN_S = 600.0
KEYS = ("tls_ca", "tls_certificate", "certificate", "server_certificate")


class CertificateWatch:
    """Flags and trouble of the certificates that settings name; the files are read again every now and then."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._files = dict(_named(settings))
        self._read_s = -math.inf
        self._days: dict[str, float] = {}

    def _left(self) -> dict[str, float]:
        """Days left, by the key that names the file; what cannot be read is for its user to say."""
        if time.monotonic() > self._read_s + AGAIN_S:
            self._read_s = time.monotonic()
            self._days = {}
            for key, file in self._files.items():
                try:
                    self._days[key] = read_certificate(file).days_left(datetime.now(UTC))
                except ConfigError:
                    continue
        return self._days

    @property
    def flags(self) -> tuple[str, ...]:
        """One for each that ends soon."""
        left = self._left()
        return tuple(f"certificate:{key} ({max(math.floor(d), 0)} days)" for key, d in left.items() if d < SOON_DAYS)

    @property
    def trouble(self) -> str:
        """Those that have ended, in words."""
        return "; ".join(f"{key}: {self._files[key]} has expired" for key, days in self._left().items() if days < 0)


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for section, part in settings.items():
        for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
            if field.name in KEYS and (file := getattr(part, field.name)):
                yield f"{section}.{field.name}", Path(file)
