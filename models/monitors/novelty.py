"""Whether tags still say something new: a replay of their own past, and steps coarser than they were.

A measurement carries noise, so that it never repeats itself value by value: where it does, somebody plays back what
was recorded. And it takes many values: where it takes few, a converter, a scaling or a compression has been changed.
Rounded tags do both while normal; what each does in training decides whether it can be judged at all.
Shape letters: T ticks, S tags, M remembered ticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.monitors.relief import FIRST_TICKS
from models.monitors.steadiness import LARGEST, QUIET
from models.scaling import Bools, Floats
from models.ticks import Ticks

MEMORY_TICKS = 1800  # in which a replay is recognised
TURNS = 4  # a tag is looked at every so many ticks: half an hour of a thousand tags is long to search
BREAK = 3  # matches that one value which does not match costs: a value may slip into the next tick
LONGEST_JUDGED = 10  # matches: a tag that normally repeats more cannot be judged
REPLAYED, MOST = 60, 120  # matches that no start-up by programme makes, and beyond which they are not counted
WINDOW_TICKS = 120  # in which values are told apart
FEWEST_JUDGED, COARSER = 12, 3.0  # values there when normal, at least, and how many times fewer are too few


@dataclass(slots=True)
class NoveltyCarry:
    """The last values [S, M] in a ring, the age of the stream, and by tag [S] what it repeats and how finely it reads.

    ``lag`` is how many ticks ago it went the same way, 0 where it follows nothing, ``run`` how many moves have matched;
    ``distinct`` the values told apart in the last window, ``usual`` the fewest in the first ticks of the stream.
    """

    ring: Floats
    last: Floats
    lag: NDArray[np.int64]
    run: NDArray[np.int64]
    distinct: Floats
    usual: Floats
    age: int = 0

    @classmethod
    def begin(cls, tags: int) -> NoveltyCarry:
        """At the start of a stream."""
        lag, run = np.zeros((2, tags), np.int64)
        distinct, usual = np.full((2, tags), np.inf)
        return cls(np.full((tags, MEMORY_TICKS), np.nan), np.full(tags, np.nan), lag, run, distinct, usual)


@dataclass(frozen=True, slots=True)
class Novelty:
    """Whether a tag's moves may be held ``unique`` [S], and the ``fewest`` [S] values in a window that are normal.

    NaN is not judged. What is coarse in the first ticks of a stream is so today, and no fault.
    """

    unique: Bools
    fewest: Floats

    @classmethod
    def fit(cls, runs: Sequence[Ticks]) -> Novelty:
        """From normal runs."""
        tags = runs[0].tags.shape[1]
        found = [_followed(run, NoveltyCarry.begin(tags)) for run in runs]
        longest = np.max([run.max(0, initial=0) for run, _ in found], axis=0)
        fewest = np.min([distinct.min(0, initial=np.inf) for _, distinct in found], axis=0)
        judged = np.isfinite(fewest) & (fewest >= FEWEST_JUDGED)
        return cls(longest <= LONGEST_JUDGED, np.where(judged, fewest / COARSER, np.nan))

    def step(self, ticks: Ticks, carry: NoveltyCarry) -> tuple[Floats, Floats]:
        """Repetition and coarseness over their limits, beyond ``QUIET`` [T, S]: zero where not judged or not observed.

        Updates ``carry``.
        """
        run, distinct = _followed(ticks, carry)
        usual = np.where(np.isfinite(carry.usual), carry.usual / COARSER, np.inf)
        size = run * self.unique / REPLAYED, np.minimum(self.fewest, usual) / distinct
        over = [np.minimum(np.maximum(np.nan_to_num(s) - QUIET, 0.0), LARGEST) for s in size]
        repeated, coarse = (np.where(ticks.observed, o, 0.0) for o in over)
        return repeated, coarse


def _followed(ticks: Ticks, carry: NoveltyCarry) -> tuple[NDArray[np.int64], Floats]:
    """Moves that have matched the past, and values told apart in the last window [T, S]; updates ``carry``."""
    runs, distinct = np.zeros(ticks.tags.shape, np.int64), np.full(ticks.tags.shape, np.inf)
    for row, (now, observed) in enumerate(zip(ticks.tags, ticks.observed, strict=True)):
        moved = observed & (now != carry.last)
        turn = slice(carry.age % TURNS, None, TURNS)
        lost = _follow(now, moved, carry) | (carry.lag == 0)
        _search(now, turn, moved & lost, carry)
        carry.ring[:, carry.age % MEMORY_TICKS] = carry.last = np.where(observed, now, carry.last)
        carry.age += 1
        if carry.age >= WINDOW_TICKS:
            _count(turn, carry)
        runs[row], distinct[row] = carry.run, carry.distinct
    return runs, distinct


def _follow(now: Floats, moved: Bools, carry: NoveltyCarry) -> Bools:
    """Whether what moved is what it was ``lag`` ticks ago; tags [S] that followed something and do not now."""
    followed = moved & (carry.lag > 0)
    then = carry.ring[np.arange(len(now)), (carry.age - carry.lag) % MEMORY_TICKS]
    run = np.where(followed, np.where(then == now, carry.run + 1, carry.run - BREAK), carry.run)
    carry.run = np.clip(run, 0, MOST)
    carry.lag = np.where(followed & (run < 0), 0, carry.lag)
    return np.asarray(followed & (then != now))


def _search(now: Floats, turn: slice, asked: Bools, carry: NoveltyCarry) -> None:
    """The last time that each of the tags asked for whose turn it is went from the value before to the one now.

    One that followed another time until now keeps what has matched: a replay begins again, or leaps.
    """
    known = (carry.ring[turn] == now[turn, None]).any(1)  # of few tags where values are fine, and it costs no copy
    every = np.arange(len(now))[turn]
    tags = every[asked[turn] & known]
    past = carry.ring[tags]
    same = (past[:, 1:] == now[tags, None]) & (past[:, :-1] == carry.last[tags, None])
    newest = carry.age - 1
    when = newest - (newest - np.arange(1, MEMORY_TICKS)) % MEMORY_TICKS
    latest = np.where(same, when, -1).max(1)
    carry.run[every[asked[turn] & (carry.lag[turn] == 0)]] = 0
    carry.lag[tags] = np.where(latest >= 0, carry.age - latest, carry.lag[tags])


def _count(turn: slice, carry: NoveltyCarry) -> None:
    """How many values the tags whose turn it is took in the last window."""
    window = np.arange(carry.age - WINDOW_TICKS, carry.age) % MEMORY_TICKS
    values = np.sort(carry.ring[turn, window], axis=1)
    carry.distinct[turn] = 1.0 + (np.diff(values, axis=1) > 0).sum(1)
    if carry.age < FIRST_TICKS + TURNS:
        carry.usual[turn] = np.minimum(carry.usual[turn], carry.distinct[turn])
