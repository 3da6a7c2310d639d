"""Where a model was trained: how far a state and its actions are from that.

Shape letters: N candidates, K steps of the action grid, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusion.plant import Plant
from models.linear.core import LinearCore
from models.scaling import Floats
from models.ticks import Ticks

WARM_UP_TICKS = 60  # until a forecast rests on a past and not on the first values
LEAST_VARIANCE = 1e-6  # of the largest, or of one: directions that never move do not make a region empty
REGION_QUANTILE = 0.999  # of the distances seen in training: the border of the region


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where the model was trained: an ellipsoid of linear states, and the range of each action."""

    centre: Floats
    whiten: Floats
    limit: float
    low: Floats
    high: Floats

    @classmethod
    def fit(cls, core: LinearCore, runs: Sequence[Ticks], plant: Plant) -> Region:
        """From the runs that the core was fitted on."""
        z = np.concatenate([core.encode(run)[0].z[WARM_UP_TICKS:] for run in runs])
        action = np.concatenate([run.action for run in runs])
        centre = z.mean(0)
        variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(z.T)))
        whiten = axes / np.sqrt(variance.clip(min=0.0) + LEAST_VARIANCE * float(variance.max(initial=1.0)))
        distance = (((z - centre) @ whiten) ** 2).sum(1)
        limit = float(np.quantile(distance, REGION_QUANTILE))
        slack = 0.02 * np.array([_span(s.low, s.high) for s in plant.actions])
        low, high = action.min(0) - slack, action.max(0) + slack
        return cls(centre=centre, whiten=whiten, limit=max(limit, LEAST_VARIANCE), low=low, high=high)

    def state_ratio(self, z: Floats) -> float:
        """Distance of a state to the centre as a ratio to the limit; at most 1 is inside."""
        return float(np.sqrt((((z - self.centre) @ self.whiten) ** 2).sum() / self.limit))

    def action_ratio(self, action_NKA: Tensor, columns: Sequence[int]) -> Tensor:
        """Distance [N] of action paths to the middle of the range seen, as a ratio to its half width."""
        if not columns:
            return action_NKA.new_zeros(len(action_NKA)).double()
        low, high = (torch.as_tensor(bound[list(columns)]) for bound in (self.low, self.high))
        middle, half = (low + high) / 2.0, (high - low).clamp_min(1e-9) / 2.0
        return ((action_NKA.double() - middle).abs() / half).amax(dim=(1, 2))


def _span(low: float | None, high: float | None) -> float:
    return 1.0 if low is None or high is None else high - low
