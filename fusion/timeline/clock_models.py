"""Clock models: how far each clock is off, from the lower envelope of arrival minus stamp, by second of arrival.

Decisions depend only on arrivals, never on when they are looked at, so that a recording gives the same answer as the
live stream it was made of.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fusion.records import NS_PER_S

Ints = NDArray[np.int64]
AHEAD_SECONDS = 2


@dataclass(slots=True)
class Flag:
    """Something that is said or not, by time of arrival; ``ever`` is whether there is any history of it."""

    _turned_ns: list[int] = field(default_factory=list)

    @property
    def up(self) -> bool:
        """Whether it is said at present."""
        return len(self._turned_ns) % 2 == 1

    @property
    def ever(self) -> bool:
        """Whether it was said, as far back as is remembered."""
        return bool(self._turned_ns)

    def up_at(self, arrival_ns: int) -> bool:
        """Whether it was said at ``arrival_ns`` (not before what ``forget`` was told)."""
        return bisect_right(self._turned_ns, arrival_ns) % 2 == 1

    def turn(self, up: bool, arrival_ns: int) -> None:
        """Say it, or no longer, from ``arrival_ns`` on."""
        if up != self.up:
            self._turned_ns.append(arrival_ns)

    def forget(self, before_ns: int) -> None:
        """Drop the history before ``before_ns``."""
        while len(self._turned_ns) > 1 and self._turned_ns[1] <= before_ns:
            del self._turned_ns[:2]


@dataclass(slots=True)
class ClockModel:
    """Offset of one source clock: a stamp plus ``offset_ns`` is UTC of the receiver.

    A delay up to ``tolerance_s`` is taken for transport. Beyond it the clock is suspected, and once ``settle_s``
    seconds of arrival in a row agree it is corrected by their smallest delay. A clock that is ahead cannot be explained
    by transport and is corrected after two seconds; until then a stamp from the future counts as its arrival.
    ``flag`` is up while a clock is suspected or corrected.
    """

    tolerance_s: float = 0.5
    settle_s: float = 5.0
    window_s: float = 60.0
    offset_ns: int = 0
    steps: int = 0
    _second: int | None = None
    _open: list[Ints] = field(default_factory=list)
    _lows: deque[tuple[int, int]] = field(default_factory=deque)
    _streak: list[int] = field(default_factory=list)
    flag: Flag = field(default_factory=Flag)

    @property
    def smallest_s(self) -> float:
        """Smallest delay of the last minute [s]; zero before the first whole second."""
        return min((low for _, low in self._lows), default=0) / NS_PER_S

    def shift_ns(self, arrival_ns: Ints, delay_ns: Ints) -> Ints:
        """What to add to stamps that arrived at ``arrival_ns`` (ascending, never before earlier calls)."""
        if not len(delay_ns):
            return delay_ns
        if self._calm(delay_ns):
            self._skim(arrival_ns, delay_ns)
            return np.zeros(len(delay_ns), np.int64)
        shift = np.empty(len(delay_ns), np.int64)
        for second, start, end in _seconds(arrival_ns):
            self._enter(second, int(arrival_ns[start]))
            delay = delay_ns[start:end]
            self._open.append(delay)
            ahead = self.offset_ns > delay + int(self.tolerance_s * NS_PER_S)
            shift[start:end] = np.where(ahead, delay, self.offset_ns)
        return shift

    def _calm(self, delay_ns: Ints) -> bool:
        if self.offset_ns != 0 or self._streak or self.flag.up:
            return False
        largest_ns = max(int(np.abs(part).max(initial=0)) for part in (delay_ns, *self._open))
        return largest_ns <= self.tolerance_s * NS_PER_S

    def _skim(self, arrival_ns: Ints, delay_ns: Ints) -> None:
        """Nothing is decided on delays within tolerance: only the last minute is of interest."""
        recent = np.searchsorted(arrival_ns, arrival_ns[-1] - int((self.window_s + 1) * NS_PER_S))
        arrival_ns, delay_ns = arrival_ns[recent:], delay_ns[recent:]
        for second, start, end in _seconds(arrival_ns):
            self._enter(second, int(arrival_ns[start]))
            self._open.append(delay_ns[start:end])

    def _enter(self, second: int, arrival_ns: int) -> None:
        """A new second of arrival completes the one before."""
        if self._second is not None and second > self._second:
            low = _lower_envelope(np.concatenate(self._open), int(self.tolerance_s * NS_PER_S))
            self._lows.append((self._second, low))
            while self._lows and self._lows[0][0] < second - self.window_s:
                self._lows.popleft()
            self._open.clear()
            self._decide(low, arrival_ns)
        self._second = second if self._second is None else max(second, self._second)

    def _ordinary(self, low_ns: int) -> bool:
        tolerance_ns = self.tolerance_s * NS_PER_S
        return abs(low_ns - self.offset_ns) <= (tolerance_ns if self.offset_ns == 0 else tolerance_ns / 2)

    def _decide(self, low_ns: int, arrival_ns: int) -> None:
        tolerance_ns = self.tolerance_s * NS_PER_S
        if self._ordinary(low_ns):
            self._streak.clear()
        else:
            agrees = not self._streak or abs(low_ns - self._streak[-1]) <= tolerance_ns
            self._streak = [*self._streak, low_ns] if agrees else [low_ns]
        needed = AHEAD_SECONDS if low_ns < self.offset_ns else max(AHEAD_SECONDS, round(self.settle_s))
        if len(self._streak) >= needed:
            smallest = min(self._streak)
            self.offset_ns = 0 if abs(smallest) <= tolerance_ns else smallest
            self.steps += 1
            self._streak.clear()
        self.flag.turn(self.offset_ns != 0 or len(self._streak) >= AHEAD_SECONDS, arrival_ns)


def _seconds(arrival_ns: Ints) -> list[tuple[int, int, int]]:
    """Each second of arrival and the part [start, end) of ascending times that falls into it."""
    first = int(arrival_ns[0]) // NS_PER_S
    if int(arrival_ns[-1]) // NS_PER_S == first:  # as most often: ticks close every second
        return [(first, 0, len(arrival_ns))]
    seconds = arrival_ns // NS_PER_S
    edges = [0, *(np.flatnonzero(np.diff(seconds)) + 1).tolist(), len(seconds)]
    return [(int(seconds[start]), start, end) for start, end in pairwise(edges)]


def _lower_envelope(delay_ns: Ints, tolerance_ns: int) -> int:
    """Smallest delay among those that agree with most: one wild stamp does not move a clock."""
    ordered = np.sort(delay_ns)
    middle = ordered[len(ordered) // 2]
    return int(ordered[np.searchsorted(ordered, middle - tolerance_ns)])
