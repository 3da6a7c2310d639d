"""Watermark: a tick closes as soon as every active source has reached it, never later than the deadline.

All times are nanoseconds; the moment depends only on what arrived up to it, so any cadence of looking finds the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NEVER_NS = np.iinfo(np.int64).max // 2


def _nothing() -> Ints:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Reach:
    """How far one source has come: at ``arrival_ns[i]`` everything up to ``reach_ns[i]`` had been delivered."""

    arrival_ns: Ints = field(default_factory=_nothing)
    reach_ns: Ints = field(default_factory=_nothing)

    def take(self, arrival_ns: Ints, reach_ns: Ints) -> None:
        """Append news in order of arrival, none older than what is known."""
        if not len(arrival_ns):
            return
        known = self.reach_ns[-1:]
        reach = np.maximum.accumulate(np.concatenate([known, reach_ns]))[len(known) :]
        self.arrival_ns = np.concatenate([self.arrival_ns, arrival_ns])
        self.reach_ns = np.concatenate([self.reach_ns, reach])

    def forget(self, before_ns: int) -> None:
        """Drop all but the last news up to ``before_ns``."""
        first = max(0, int(np.searchsorted(self.arrival_ns, before_ns, side="right")) - 1)
        self.arrival_ns, self.reach_ns = self.arrival_ns[first:], self.reach_ns[first:]

    def release_ns(self, ticks: Ints, earliest_ns: Ints, idle_ns: int) -> Ints:
        """When this source stops holding back each tick: it reached it, fell idle, or was not there to begin with."""
        arrival = np.append(self.arrival_ns, NEVER_NS)
        reached = arrival[np.searchsorted(self.reach_ns, ticks, side="left")]
        last = np.searchsorted(self.arrival_ns, earliest_ns, side="right") - 1
        falls_idle = arrival[last] + idle_ns
        idle = np.where(arrival[last + 1] > falls_idle, falls_idle, NEVER_NS)
        release = np.where(last < 0, earliest_ns, np.minimum(reached, idle))
        return np.maximum(release, earliest_ns)


def closing_ns(
    ticks: Ints, sources: Iterable[Reach], *, lateness_ns: int, deadline_ns: int, idle_ns: int, after_ns: int
) -> Ints:
    """The moment at which each tick closes, ascending and not before ``after_ns``."""
    earliest = ticks + lateness_ns
    moment = earliest
    for source in sources:
        moment = np.maximum(moment, source.release_ns(ticks, earliest, idle_ns))
    moment = np.minimum(moment, ticks + deadline_ns)
    return np.maximum.accumulate(np.maximum(moment, after_ns))
