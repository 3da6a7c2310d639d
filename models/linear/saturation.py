"""Where actuators stand at a limit: a setpoint moved then does little, and its gain over all rows is too small.

A limit is that of the plant file, where a tag rests at it, or the end of what was seen, where ticks pile up there. The
actuators of an action are the tags with limits that answer to it at once. In the fit of what a planned move does, an
action counts by the share of ticks at which its actuators are free.
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


@dataclass(frozen=True, slots=True)
class Saturation:
    """``low`` and ``high`` [S] in engineering units, infinite where there is none; ``acts`` [A, S] names actuators."""

    low: Floats
    high: Floats
    acts: Bools

    def __bool__(self) -> bool:
        return bool(self.acts.any())

    def free(self, tags: Floats) -> Floats:
        """Whether all actuators of each action [T, A] are off their limits, from tags [T, S]."""
        at_limit = (tags <= self.low) | (tags >= self.high)
        return np.asarray(1.0 - ((at_limit.astype(np.float64) @ self.acts.T.astype(np.float64)) > 0))


def shares(free: Floats, horizon: int) -> Floats:
    """Share [T - horizon, A] of the ticks t+1..t+horizon at which an action is ``free`` [T, A]."""
    total = np.cumsum(free, 0)
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
