"""What control needs of a world model: rollouts, bands and support, as tensors; nothing about how they are made.

Shape letters: N candidates, K steps of the action grid, A manipulated signals, H horizons, G steps ahead, S signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class World(Protocol):
    """A world model standing at the present state of the plant.

    Actions are paths in engineering units on the 10 s grid: the value at step ``k`` holds from ``10 k`` to
    ``10 (k + 1)`` seconds from now. Bias correction to the last measurement is the model's duty, not the planner's.
    """

    @property
    def horizon_s(self) -> tuple[float, ...]:
        """Times ahead of the H forecasts, increasing [s]."""
        ...

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the S forecast signals."""
        ...

    @property
    def manipulated(self) -> tuple[str, ...]:
        """Names of the A signals that may be recommended: those with a ``max_rate``."""
        ...

    @property
    def current_action(self) -> Tensor:
        """Their present values [A], engineering units."""
        ...

    def rollout(self, action_NKA: Tensor) -> Tensor:
        """Expected signals [N, H, S] in engineering units under each action path."""
        ...

    @property
    def course_s(self) -> tuple[float, ...]:
        """Times ahead [s] of the G steps of a course: the ends of the first steps of the action grid."""
        ...

    def course(self, action_NKA: Tensor) -> Tensor:
        """As ``rollout``, [N, G, S] at ``course_s``: dense, so that no step of a path goes unjudged."""
        ...

    def fits(self, action_NKA: Tensor) -> Tensor:
        """As ``course``, [E, N, G, S], of E models that each lack a part of the data; E = 0: none known.

        Their spread is how unsure the model is of itself. NaN of signals that they do not tell of.
        """
        ...

    def half_band(self) -> Tensor:
        """Half width [H, S] of the 90 % band of the forecast, engineering units."""
        ...

    def support(self, action_NKA: Tensor) -> Tensor:
        """Distance [N] of (state, action) to the trained region as a ratio to its limit: at most 1 is inside."""
        ...


def along(course_s: Sequence[float], horizon_s: Sequence[float], values_HS: Tensor) -> Tensor:
    """Values [G, S] at the times of a course, interpolated from those at the horizons; the first holds until then."""
    known = np.eye(len(horizon_s))
    weights_GH = np.stack([np.interp(course_s, horizon_s, column) for column in known], 1)
    return torch.from_numpy(weights_GH).to(values_HS.dtype) @ values_HS
