"""Where actuators stand at a limit: a setpoint moved then does little, and its gain over all rows is too small.

A limit is that of the plant file, where a tag rests at it, or the end of what was seen, where ticks pile up there. The
actuators of an action are the tags with limits that answer to it at once. What a planned move of an action does is
fitted on the rows whose actuators stay free until the horizon: a row that is limited for a part of it moves by more
than that part says, for the actuator goes on at its limit. Other actions count there by the share of free ticks.
Shape letters: T ticks, S tags, A actions, Q summaries per action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.plant import Plant
from models.scaling import Bools, Floats
from models.ticks import Ticks

NEAR = 0.01  # of a tag's range from its limit
PILE = 0.005  # share of ticks at a limit, from which it is one
REST = 0.95  # share above which a tag does not act at all
AT_ONCE_TICKS = 4
ANSWER = 0.1  # spreads of a tag, to a tenth of an action's range
KEPT = 0.1  # of all rows, the freest: so many are used at least
FREE = 0.999


@dataclass(frozen=True, slots=True)
class Window:
    """Share [T - horizon, A] of free ticks until the horizon, and which rows [T - horizon] count."""

    share: Floats
    counts: Bools


@dataclass(frozen=True, slots=True)
class Freed:
    """Whether each of the ``actions`` that have actuators is free, ``free`` [T, A] of each run."""

    free: Sequence[Floats]
    actions: tuple[int, ...]

    def windows(self, action: int, horizon: int) -> list[Window]:
        """Of each run, the rows at which ``action`` is free until ``horizon`` [ticks], or the freest where few are."""
        made = [shares(one, horizon) for one in self.free]
        every = np.concatenate([one[:, action] for one in made])
        least = min(FREE, float(np.quantile(every, 1.0 - KEPT))) if len(every) else FREE
        return [Window(one, one[:, action] >= least) for one in made]


@dataclass(frozen=True, slots=True)
class Saturation:
    """``low`` and ``high`` [S] in engineering units, infinite where there is none; ``acts`` [A, S] names actuators."""

    low: Floats
    high: Floats
    acts: Bools

    def __bool__(self) -> bool:
        return bool(self.acts.any())

    def freed(self, runs: Sequence[Floats]) -> Freed:
        """Where all actuators of each action are off their limits, from the tags [T, S] of each run."""
        return Freed([self._free(tags) for tags in runs], tuple(int(a) for a in np.flatnonzero(self.acts.any(1))))

    def _free(self, tags: Floats) -> Floats:
        at_limit = (tags <= self.low) | (tags >= self.high)
        return np.asarray(1.0 - ((at_limit.astype(np.float64) @ self.acts.T.astype(np.float64)) > 0))


def shares(free: Floats, horizon: int) -> Floats:
    """Share [T - horizon, A] of the ticks t+1..t+horizon at which an action is ``free`` [T, A]."""
    total = np.cumsum(free, 0)
    if len(free) <= horizon:
        return free[:0]
    return np.asarray((total[horizon:] - total[:-horizon]) / horizon)


def saturation(runs: Sequence[Ticks], plant: Plant, effect: Floats) -> Saturation:
    """From runs, and the effect [S, A] of a tenth of each action's range at once, in spreads of a tag."""
    tags, observed = (np.concatenate([getattr(run, name) for run in runs]) for name in ("tags", "observed"))
    pairs = [_limits(tags[observed[:, i], i], s.low, s.high) for i, s in enumerate(plant.tags)]
    low, high = np.array(pairs, np.float64).reshape(-1, 2).T
    strongest = np.abs(effect) >= np.abs(effect).max(1, keepdims=True, initial=0.0)
    limited = np.isfinite(low) | np.isfinite(high)
    acts = strongest & (np.abs(effect) >= ANSWER) & limited[:, None]
    return Saturation(low, high, np.asarray(acts.T))


def _limits(values: Floats, low: float | None, high: float | None) -> tuple[float, float]:
    """Values at and beyond which a tag is at a limit."""
    if not len(values):
        return -np.inf, np.inf
    near = NEAR * (high - low) if low is not None and high is not None else 0.0
    bottoms = [] if low is None else [low + near]
    tops = [] if high is None else [high - near]
    found_low = next((x for x in (*bottoms, float(values.min())) if PILE < (values <= x).mean() < REST), -np.inf)
    found_high = next((x for x in (*tops, float(values.max())) if PILE < (values >= x).mean() < REST), np.inf)
    return found_low, found_high
