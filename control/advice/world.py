"""What control needs of a world model: rollouts, bands and support, as tensors; nothing about how they are made.

Shape letters: N candidates, K steps of the action grid, A manipulated signals, H horizons, S signals.
"""

from __future__ import annotations

from typing import Protocol

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

    def half_band(self) -> Tensor:
        """Half width [H, S] of the 90 % band of the forecast, engineering units."""
        ...

    def support(self, action_NKA: Tensor) -> Tensor:
        """Distance [N] of (state, action) to the trained region as a ratio to its limit: at most 1 is inside."""
        ...
