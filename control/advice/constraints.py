"""Hard ranges and rates of moves, limits of signals with back-off, and the last clamp a move passes through.

Shape letters: N candidates, K steps of the action grid, A manipulated signals, H horizons, S signals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from control.advice.objective import time_weights
from fusion.errors import ConfigError
from fusion.plant import Plant, Signal
from fusion.records import ACTION_STEPS, action_step_s


@dataclass(kw_only=True, slots=True)
class ConstraintConfig:
    """``largest_step`` is the share of a signal's range that one advice may move it.

    ``band_share`` of the forecast's half band is added to the engineer's back-off. Limits count from ``from_s``.
    """

    largest_step: float = 0.25
    band_share: float = 0.0
    from_s: float = 8.0

    def __post_init__(self) -> None:
        """Reject shares that are none."""
        if not 0 < self.largest_step <= 1 or not 0 <= self.band_share <= 1:
            raise ConfigError("constraints: largest_step must be in (0, 1], band_share in [0, 1]")


def blocks(knots: int) -> tuple[int, ...]:
    """Steps of the action grid for which each knot holds: 1, 2, 4 and so on, the last to the end of the path.

    What is asked for now may be changed soon, what comes later is only there to be aimed at. Source: Cagienard et al.
    (2007), "Move blocking strategies in receding horizon control".
    """
    lengths = [2**j for j in range(knots - 1)]
    return (*lengths, ACTION_STEPS - sum(lengths))


class MoveBox:
    """Ranges, rates and step sizes of the manipulated signals, met by construction."""

    def __init__(self, plant: Plant, manipulated: Sequence[str], config: ConstraintConfig | None = None) -> None:
        config = config or ConstraintConfig()
        signals = [_movable(plant, name) for name in manipulated]
        self.names = tuple(manipulated)
        self.low = torch.tensor([s.low for s in signals])
        self.high = torch.tensor([s.high for s in signals])
        self.span = self.high - self.low
        self._step = torch.tensor([(s.max_rate or 0.0) * action_step_s(plant.step_s) for s in signals])
        self._reach = self.span * config.largest_step

    def reach(self, current_A: Tensor, free_A: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value [A] that an advice may ask for; those not free stay where they are."""
        low = torch.maximum(self.low, current_A - self._reach).minimum(self.high)
        high = torch.minimum(self.high, current_A + self._reach).maximum(self.low)
        return torch.where(free_A, low, current_A), torch.where(free_A, high, current_A)

    def paths(self, knots_NJA: Tensor, current_A: Tensor, coming_DA: Tensor | None = None) -> Tensor:
        """Paths [N, K, A] that ramp to each knot at the allowed rate and hold it until the next.

        They begin with ``coming_DA``, what is on its way whatever is asked for now.
        """
        N, J, A = knots_NJA.shape
        coming_DA = current_A[None, :][:0] if coming_DA is None else coming_DA
        value_NA, parts = current_A.expand(N, A), [coming_DA.expand(N, -1, -1)]
        if len(coming_DA):
            value_NA = coming_DA[-1].expand(N, A)
        for j, length in enumerate(blocks(J)):
            travel_LA = torch.arange(1, length + 1)[:, None] * self._step
            wanted_NA = (knots_NJA[:, j] - value_NA)[:, None]
            parts.append(value_NA[:, None] + wanted_NA.clamp(-travel_LA, travel_LA))
            value_NA = parts[-1][:, -1]
        return torch.cat(parts, dim=1)[:, :ACTION_STEPS]


class SignalLimits:
    """Operating limits of signals, kept with a back-off; soft for the planner, a reason to HOLD for the advisor."""

    def __init__(
        self, plant: Plant, signals: Sequence[str], horizon_s: Sequence[float], config: ConstraintConfig | None = None
    ) -> None:
        self._config = config or ConstraintConfig()
        self._names = tuple(signals)
        self._time_H = time_weights(horizon_s)
        self._counts_H = torch.tensor([float(h >= self._config.from_s) for h in horizon_s])
        self._low, self._high, self._backoff = (torch.zeros(len(signals)) for _ in range(3))
        self._low.fill_(-math.inf)
        self._high.fill_(math.inf)
        self._scale = torch.ones(len(signals))
        for target in plant.targets:
            if target.signal in self._names:
                i = self._names.index(target.signal)
                self._low[i] = max(float(self._low[i]), -math.inf if target.low is None else target.low)
                self._high[i] = min(float(self._high[i]), math.inf if target.high is None else target.high)
                self._backoff[i] = max(float(self._backoff[i]), target.backoff)
                self._scale[i] = target.scale if target.scale != 1.0 else self._scale[i]

    def violation(self, forecast_NHS: Tensor, half_band_HS: Tensor) -> Tensor:
        """Excess [N] over the limits with back-off, in scales of the targets: averaged over the horizon, summed.

        It is 0 only where all limits are kept; what is over already counts less the sooner it is brought back.
        """
        return (self._excess(forecast_NHS, half_band_HS) * self._time_H[:, None]).sum((1, 2))

    def binding(self, forecast_HS: Tensor, half_band_HS: Tensor) -> tuple[str, ...]:
        """Limits that the forecast reaches, back-off included, as ``signal high`` or ``signal low``."""
        margin = self._backoff + self._config.band_share * half_band_HS
        near = 0.02 * self._scale
        counts = self._counts_H[:, None] > 0
        high = ((forecast_HS >= self._high - margin - near) & counts).any(0)
        low = ((forecast_HS <= self._low + margin + near) & counts).any(0)
        sides = [(name, "high") for name, hit in zip(self._names, high.tolist(), strict=True) if hit]
        sides += [(name, "low") for name, hit in zip(self._names, low.tolist(), strict=True) if hit]
        return tuple(f"{name} {side}" for name, side in sides)

    def _excess(self, forecast_NHS: Tensor, half_band_HS: Tensor) -> Tensor:
        margin = self._backoff + self._config.band_share * half_band_HS
        over = torch.maximum(forecast_NHS - (self._high - margin), (self._low + margin) - forecast_NHS)
        return over.clamp(min=0) / self._scale * self._counts_H[:, None]


def binding_moves(box: MoveBox, target_A: Tensor, current_A: Tensor, free_A: Tensor) -> tuple[str, ...]:
    """Moves that stop at their range or at the largest step, as ``signal high``, ``signal low`` or ``signal step``."""
    low, high = box.reach(current_A, free_A)
    slack = 1e-3 * box.span
    found = []
    for a, name in enumerate(box.names):
        value = float(target_A[a])
        inside = bool(low[a] < value - slack[a]) and bool(value + slack[a] < high[a])
        if inside or not bool(free_A[a]):
            continue
        upper = value >= float(high[a] - slack[a])
        wall = float(box.high[a]) if upper else float(box.low[a])
        at_wall = abs(value - wall) <= float(slack[a])
        found.append(f"{name} {('high' if upper else 'low') if at_wall else 'step'}")
    return tuple(found)


def clamp_move(signal: Signal, current: float, wanted: float, config: ConstraintConfig | None = None) -> float:
    """The value that may be asked for: the last function before the wire, in engineering units.

    Raises:
        ConfigError: where the signal is not one that may be recommended.
    """
    config = config or ConstraintConfig()
    if signal.low is None or signal.high is None or signal.max_rate is None:
        raise ConfigError(f"signal {signal.name!r}: without low, high and max_rate it is never recommended")
    if not (math.isfinite(wanted) and math.isfinite(current)):
        return current
    reach = config.largest_step * (signal.high - signal.low)
    stepped = min(max(wanted, current - reach), current + reach)
    return min(max(stepped, signal.low), signal.high)


def _movable(plant: Plant, name: str) -> Signal:
    signal = plant.by_name.get(name)
    if signal is None or signal.max_rate is None or signal.low is None or signal.high is None:
        movable = ", ".join(s.name for s in plant.actions if s.max_rate is not None)
        raise ConfigError(f"manipulated signal {name!r} has no low, high and max_rate; accepted: {movable or 'none'}")
    return signal
