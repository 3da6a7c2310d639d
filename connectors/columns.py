"""Rows that arrive one by one, gathered into columns by the clock that stamped them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from connectors.base import Tally
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


class StampWatch:
    """Counts values that change under one time stamp: it is coarse, or stands still."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._last: dict[str, tuple[int, float]] = {}

    def look(self, tag: str, t_ns: int, value: float) -> None:
        """Take note of a value and its stamp."""
        last = self._last.get(tag)
        if last is not None and last[0] == t_ns and last[1] != value:
            self._tally.note("changed under one time stamp", tag)
        self._last[tag] = t_ns, value


def number(value: object, decimal: str = ".") -> float | None:
    """A finite number, a truth value or numeric text as a float; nothing else is a process value.

    ``decimal`` is the sign before the decimals in text, ``.`` or ``,``. Text with other signs, such as a unit, groups
    of thousands or an underscore, is no number.
    """
    if isinstance(value, str):
        if not value.isascii() or "_" in value or (decimal == "," and "." in value):
            return None
        value = value.replace(",", ".") if decimal == "," else value
    elif not isinstance(value, int | float | np.number):
        return None
    try:
        result = float(value)
    except (OverflowError, ValueError):  # a whole number of hundreds of digits, or text that is none
        return None
    return result if math.isfinite(result) else None


UNUSABLE = (float("nan"), int(Quality.BAD))
"""Value and quality of what was not a number: absent, and said so."""
