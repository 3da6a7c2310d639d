"""Rows that arrive one by one, gathered into columns by the clock that stamped them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fusion.records import Columns, Quality

NS_PER_DAY = 86_400_000_000_000
OLDEST_NS = 631_152_000_000_000_000  # 1990-01-01: earlier stamps are empty fields, not times
FUTURE_NS = NS_PER_DAY


def plausible(t_ns: int | None, received_ns: int) -> bool:
    """Whether a stamp can be a time at all: not empty, not year 1601, not far in the future."""
    return t_ns is not None and OLDEST_NS <= t_ns <= received_ns + FUTURE_NS


@dataclass(slots=True)
class ColumnsBuilder:
    """Process values of one clock in the making."""

    index: list[int] = field(default_factory=list)
    t_ns: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)

    def add(self, index: int, t_ns: int, received_ns: int, value: float, quality: int) -> None:
        """Append one value."""
        self.index.append(index)
        self.t_ns.append(t_ns)
        self.received_ns.append(received_ns)
        self.value.append(value)
        self.quality.append(quality)

    def columns(self, signals: tuple[str, ...], clock: str, heartbeat_ns: int | None = None) -> Columns:
        """The batch so far."""
        return Columns(
            signals=signals,
            index=np.array(self.index, np.int32),
            t_ns=np.array(self.t_ns, np.int64),
            received_ns=np.array(self.received_ns, np.int64),
            value=np.array(self.value, np.float64),
            quality=np.array(self.quality, np.uint8),
            clock=clock,
            heartbeat_ns=heartbeat_ns,
        )


def number(value: object) -> float | None:
    """A finite number or a truth value as a float; nothing else is a process value."""
    if not isinstance(value, int | float | np.number):
        return None
    try:
        result = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return result if np.isfinite(result) else None


UNUSABLE = (float("nan"), int(Quality.BAD))
"""Value and quality of what was not a number: absent, and said so."""
