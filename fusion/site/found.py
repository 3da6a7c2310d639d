"""What is found at a source: tags and media as they call themselves and as they were seen for a while."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fusion.plant import Signal

CLOSE = 1e-12
SAW = 5
"""How many steps up there are of a saw-tooth for each one down, and how much greater the latter are at least."""


class Kind(StrEnum):
    """What a tag's values are."""

    REAL = "real"
    WHOLE = "whole"
    TRUTH = "truth"


@dataclass(slots=True)
class Seen:
    """The values of one tag while we listened, good numbers only, with times of one clock [s].

    What came first may be old: times between values count from the second one.
    """

    count: int = 0
    bad: int = 0
    low: float = 0.0
    high: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    longest_s: float = 0.0
    rises: int = 0
    falls: int = 0
    largest_rise: float = 0.0
    least_fall: float = math.inf
    newest: float = 0.0

    def add(self, value: float, t_s: float) -> None:
        """One more good value."""
        if not self.count:
            self.low = self.high = self.newest = value
        self.count += 1
        self._step(value - self.newest)
        self.newest = value
        self.low, self.high = min(self.low, value), max(self.high, value)
        if self.count <= 2:
            self.first_s = self.last_s = t_s
        self.longest_s = max(self.longest_s, t_s - self.last_s)
        self.last_s = max(self.last_s, t_s)

    def _step(self, step: float) -> None:
        if step > 0:
            self.rises += 1
            self.largest_rise = max(self.largest_rise, step)
        elif step < 0:
            self.falls += 1
            self.least_fall = min(self.least_fall, -step)

    @property
    def interval_s(self) -> float | None:
        """Mean time between values; None where too few came."""
        span_s = self.last_s - self.first_s
        return span_s / (self.count - 2) if self.count > 2 and span_s > 0 else None

    @property
    def grows(self) -> bool:
        """Whether it rose and never fell."""
        return not self.constant and not self.falls

    @property
    def wraps(self) -> bool:
        """Whether it is a saw-tooth: many small steps up, few and great ones down."""
        return 0 < SAW * self.falls <= self.rises and self.least_fall >= SAW * self.largest_rise

    @property
    def constant(self) -> bool:
        """Whether no other value than the first came."""
        return self.high - self.low <= CLOSE


@dataclass(slots=True, kw_only=True)
class FoundTag:
    """One process tag.

    ``path`` are the names of the folders that hold it and its own, outermost first, as the source writes them;
    ``address`` is where its connector finds it, and ``place`` what the connector's settings say of it. ``states`` are
    the words of an enumeration's numbers. ``writable`` is None where the source does not say. ``doubts`` are what an
    engineer should look at.
    """

    path: tuple[str, ...]
    address: str
    place: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = Kind.REAL
    unit: str = ""
    description: str = ""
    low: float | None = None
    high: float | None = None
    states: Mapping[int, str] = field(default_factory=dict)
    writable: bool | None = None
    seen: Seen = field(default_factory=Seen)
    name: str = ""
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSignal:
    """A proposed signal: why it is proposed so, and what is unsure about it."""

    signal: Signal
    why: str = ""
    doubts: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Found:
    """What one address has: tags, or media signals; a name and the settings for the connector that takes them; remarks.

    ``left_out`` counts by reason what is there and is not proposed.
    """

    url: str
    connector: str
    settings: dict[str, Any] = field(default_factory=dict)
    tags: list[FoundTag] = field(default_factory=list)
    media: list[FoundSignal] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    left_out: Mapping[str, int] = field(default_factory=dict)
