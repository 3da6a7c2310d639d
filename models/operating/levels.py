"""Energies in units of what is normal in the present operating state, so that one limit serves them all.

What a standstill shows sets no limit for a plant that runs, and the noise of a start-up hides nothing of it.
Shape letters: T ticks, K states, E energies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.operating.fit import LEAST_TICKS
from models.operating.states import Ints, OperatingStates
from models.scaling import Bools, Floats
from models.ticks import Ticks

MEDIAN, UPPER = 0.5, 0.995
LEAST_SPREAD = 0.05  # of an energy's spread over all states: a still plant is judged no finer
RESOLUTION = 1e-3  # the smallest spread: a sign of life is zero while all is well, and must not be infinite when not
TRANSITION, NOT_JUDGED = "transition", "state not judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLevels:
    """What energies normally are by state, transitions last: ``median`` and ``spread`` [K + 1, E] of those named.

    Of a transition the spread is the largest seen, for it is short and much of it is rare; it is infinite where a state
    was not seen for long enough.
    """

    names: tuple[str, ...]
    median: Floats
    spread: Floats

    @classmethod
    def fit(cls, names: Sequence[str], values: Floats, state: Ints, count: int) -> StateLevels:
        """From energies [T, E] of normal runs and the state [T] of each tick, one of ``count`` or a transition."""
        whole = _quantiles(values)
        parts = [_quantiles(values[state == k], UPPER if k < count else 1.0) for k in range(count + 1)]
        median = np.stack([m for m, _ in parts])
        least = np.maximum(LEAST_SPREAD * (whole[1] - whole[0]), RESOLUTION)
        spread = np.maximum(np.stack([u - m for m, u in parts]), least)
        known = np.isfinite(median) & np.isfinite(spread)
        return cls(names=tuple(names), median=np.where(known, median, 0.0), spread=np.where(known, spread, np.inf))

    def heard(self, names: Sequence[str]) -> StateLevels:
        """The levels of some energies, in their order."""
        kept = [self.names.index(name) for name in names]
        return StateLevels(names=tuple(names), median=self.median[:, kept], spread=self.spread[:, kept])

    def told(self, values: Floats, state: Ints) -> Floats:
        """Energies [T, E] in units of what is normal in the state [T] of each tick; NaN where that is not known."""
        spread = self.spread[state]
        return np.asarray((values - self.median[state]) / np.where(np.isfinite(spread), spread, np.nan))

    def raw(self, told: Floats, state: int) -> Floats:
        """Inverse of ``told`` [E] in one state."""
        return np.asarray(self.median[state] + told * self.spread[state])

    @property
    def unknown(self) -> Bools:
        """States [K + 1] in which nothing is judged, for want of normal data."""
        return np.asarray(np.isinf(self.spread).all(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """The states of a plant and what energies are in each; a plant of one state has no ``levels``."""

    states: OperatingStates = field(default_factory=OperatingStates)
    levels: StateLevels | None = None

    def fit(self, names: Sequence[str], runs: Sequence[Ticks], judge: Callable[[Ticks], Floats]) -> Operating:
        """With the levels of energies [T, E] that ``judge`` makes of normal runs."""
        if len(self.states) < 2:
            return self
        state = np.concatenate([self.states.of(run) for run in runs])
        values = np.concatenate([judge(run) for run in runs])
        return replace(self, levels=StateLevels.fit(names, values, state, len(self.states)))

    def hearing(self, names: Sequence[str]) -> Operating:
        """The same for some energies, in their order."""
        return self if self.levels is None else replace(self, levels=self.levels.heard(names))

    def told(self, values: Floats, state: Ints) -> Floats:
        """Energies [T, E] in units of what is normal in the state [T] of each tick."""
        return values if self.levels is None else self.levels.told(values, state)

    def raw(self, told: Floats, state: int) -> Floats:
        """Inverse of ``told`` [E] in one state."""
        return told.copy() if self.levels is None else self.levels.raw(told, state)

    def flags(self, state: int) -> tuple[str, ...]:
        """Whether the plant passes from one state to another, and whether nothing is judged in it."""
        if self.levels is None:
            return ()
        passing = (TRANSITION,) if state == len(self.states) else ()
        return (*passing, NOT_JUDGED) if self.levels.unknown[state] else passing


def _quantiles(values: Floats, upper: float = UPPER) -> tuple[Floats, Floats]:
    """Median and upper quantile [E] of the values [T, E] that are there; NaN where too few are."""
    enough = np.isfinite(values).sum(axis=0) >= LEAST_TICKS
    made = np.full((2, values.shape[1]), np.nan)
    for e in np.flatnonzero(enough):
        made[:, e] = np.quantile(values[np.isfinite(values[:, e]), e], [MEDIAN, upper])
    return made[0], made[1]
