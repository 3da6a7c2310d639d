"""The operating state of a plant that runs, stands, starts and is cleaned, tick by tick.

Some tags stand on levels far apart, and a state is a combination of levels that lasts. What normally lies between two
states is a transition. A combination that was never seen counts as the state before it: a fault makes no state.
Shape letters: T ticks, C tags that tell states, K states.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.scaling import Bools, Floats
from models.ticks import Ticks

Ints = NDArray[np.int64]

SETTLES_TICKS = 60  # after a new state is reached: averages are as old
SLACK = 1.5  # of the longest transition seen


@dataclass(slots=True)
class StateCarry:
    """What a stream leaves behind: its state (-1 before the first), ticks since it left it, ticks until it settles."""

    state: int = -1
    away: int = 0
    settles: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingStates:
    """Tags that tell states, by name and ``column`` [C], with the ``edges`` between their levels.

    ``states`` [K, C] are the levels of each state, ``passing`` [N, C] those seen in transitions, of which the longest
    took ``longest`` ticks. A plant without states has K = 1 and C = 0.
    """

    tags: tuple[str, ...] = ()
    column: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    edges: tuple[Floats, ...] = ()
    states: Ints = field(default_factory=lambda: np.zeros((1, 0), np.int64))
    passing: Ints = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    longest: int = 0

    def __len__(self) -> int:
        return len(self.states)

    @property
    def names(self) -> tuple[str, ...]:
        """States in words, as the levels of the tags that tell them: K."""
        return tuple(", ".join(self._words(c, int(level)) for c, level in enumerate(row)) for row in self.states)

    def step(self, ticks: Ticks, carry: StateCarry) -> Ints:
        """The state [T] of consecutive ticks, K while the plant passes from one to another; updates ``carry``."""
        if len(self) == 1:
            return np.zeros(len(ticks), np.int64)
        found = self.matched(self.levels(ticks))
        made = np.empty(len(ticks), np.int64)
        for row in range(len(ticks)):
            made[row] = self._follow(found[row], carry)
        return made

    def of(self, run: Ticks) -> Ints:
        """The state [T] of a whole run."""
        return self.step(run, StateCarry())

    def _follow(self, matched: Bools, carry: StateCarry) -> int:
        """The state after one tick that matches some states [K], or a transition (the last entry)."""
        there = np.flatnonzero(matched[:-1])
        stays = carry.state >= 0 and bool(matched[carry.state])
        if not stays and len(there) == 1:
            carry.settles = SETTLES_TICKS if carry.state >= 0 else 0
            carry.state, stays = int(there[0]), True
        carry.away = 0 if stays else carry.away + 1
        carry.settles = max(carry.settles - 1, 0) if stays else carry.settles
        passes = not stays and bool(matched[-1]) and carry.away <= SLACK * self.longest
        return len(self) if carry.state < 0 or passes or carry.settles else carry.state

    def levels(self, ticks: Ticks) -> Ints:
        """The level [T, C] of each tag that tells states; -1 where it has no usable value."""
        levels = [np.searchsorted(e, ticks.tags[:, c]) for e, c in zip(self.edges, self.column, strict=True)]
        made = np.stack(levels, 1) if levels else np.zeros((len(ticks), 0), np.int64)
        return np.where(ticks.observed[:, self.column], made, -1).astype(np.int64)

    def matched(self, levels: Ints) -> Bools:
        """Which states [T, K + 1] the known levels agree with; the last column is a transition that was seen."""
        rows, place = np.unique(levels, axis=0, return_inverse=True)
        states = [_agree(row, self.states) for row in rows]
        passing = [bool(_agree(row, self.passing).any()) for row in rows]
        return np.asarray(np.column_stack([states, passing])[place.reshape(-1)], bool)

    def _words(self, column: int, level: int) -> str:
        edges = self.edges[column]
        low = "" if level == 0 else f"above {edges[level - 1]:.4g}"
        high = "" if level == len(edges) else f"below {edges[level]:.4g}"
        return " ".join(word for word in (self.tags[column], low, "and" if low and high else "", high) if word)


def _agree(row: Ints, patterns: Ints) -> Bools:
    """Which patterns [N, C] a row [C] of levels agrees with, where both are known; none where that is nowhere."""
    both = (patterns >= 0) & (row >= 0)
    return np.asarray(((patterns == row) | ~both).all(axis=1) & both.any(axis=1))
