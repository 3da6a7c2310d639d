"""What better means: distance from setpoints, prices and the effort of moving, in one number per hour.

Shape letters: N candidates, K steps of the action grid, A manipulated signals, H horizons, S signals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.records import ACTION_STEPS, NS_PER_S, action_step_s

STUDENT_95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)  # by degrees of freedom, from one


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """``effort`` prices the squared relative length of all moves; ``gain_error`` is the believed error of effects.

    ``gain_error`` is a share: the effect of a move on a signal may be that much smaller or larger than predicted, for
    reasons that no fit of the model shows: an actuator at its limit, a plan that was chosen because it looks well.
    """

    effort: float = 0.02
    gain_error: float = 0.4

    def __post_init__(self) -> None:
        """Reject negative prices."""
        if self.effort < 0 or not 0 <= self.gain_error < 1:
            raise ConfigError("objective: effort must not be negative, gain_error must be in [0, 1)")


class Objective:
    """Cost of forecasts and action paths from the targets of a plant; lower is better.

    The horizon begins at ``t_ns``, by which scheduled setpoints count; without it those that no schedule changes.
    """

    def __init__(
        self,
        plant: Plant,
        signals: Sequence[str],
        manipulated: Sequence[str],
        horizon_s: Sequence[float],
        config: ObjectiveConfig | None = None,
        t_ns: int | None = None,
    ) -> None:
        self.config = config or ObjectiveConfig()
        self._plant, self._horizon_s = plant, tuple(horizon_s)
        self._time_H = time_weights(horizon_s)
        self._signals, self._manipulated = tuple(signals), tuple(manipulated)
        for target in plant.targets:
            if target.signal not in self._signals and target.signal not in self._manipulated:
                raise ConfigError(f"targets: {target.signal!r} is neither forecast nor manipulated, so it has no cost")
        self._weight_S, self._price_S = _terms(plant, self._signals)
        self._weight_A, self._price_A = _terms(plant, self._manipulated)
        path_s = [action_step_s(plant.step_s) * k for k in range(ACTION_STEPS)]
        self._setpoint_HS = _setpoints(plant, self._signals, self._horizon_s, t_ns)
        self._setpoint_KA = _setpoints(plant, self._manipulated, path_s, t_ns)
        self._span_A = torch.tensor([_span(plant, name) for name in self._manipulated])

    def at(self, t_ns: int) -> Objective:
        """The same where the horizon begins at a time."""
        if not any(target.schedule for target in self._plant.targets):
            return self
        return Objective(self._plant, self._signals, self._manipulated, self._horizon_s, self.config, t_ns)

    def cost(self, forecast_NHS: Tensor, action_NKA: Tensor, current_A: Tensor) -> Tensor:
        """Cost per hour [N], averaged over the horizon."""
        return self.outcome(forecast_NHS) + self.expense(action_NKA, current_A)

    def outcome(self, forecast_NHS: Tensor) -> Tensor:
        """The part [N] that the forecast signals cost."""
        error = forecast_NHS - self._setpoint_HS
        per_HS = self._weight_S * error.square() + self._price_S * forecast_NHS
        return (per_HS * self._time_H[:, None]).sum((1, 2))

    def expense(self, action_NKA: Tensor, current_A: Tensor) -> Tensor:
        """The part [N] that the moves cost: their own targets, and the effort of moving at all."""
        error = action_NKA - self._setpoint_KA
        own_N = (self._weight_A * error.square() + self._price_A * action_NKA).mean(1).sum(1)
        path = torch.cat([current_A.expand(len(action_NKA), 1, -1), action_NKA], dim=1)
        length_NA = path.diff(dim=1).abs().sum(1) / self._span_A
        return own_N + self.config.effort * length_NA.square().sum(1)

    def gain(
        self,
        plan_HS: Tensor,
        baseline_HS: Tensor,
        half_band_HS: Tensor,
        saved_expense: float,
        fits_E2HS: Tensor | None = None,
    ) -> tuple[float, float, float]:
        """Expected saving per hour of plan against baseline, with the ends of its 90 % interval.

        What happens to both alike is no error of their *difference*. ``fits_E2HS`` are plan and baseline as fits on
        parts of the data tell them: the spread of their savings is the error of the fit (a jackknife). Of signals they
        do not tell of, a forecast error counts by how much it changes the difference (to first order; taken as standing
        over the horizon, independent between signals). To that comes what no fit knows of the effect: ``gain_error``.
        ``saved_expense`` is the difference of the moves' own cost, known exactly.
        """
        both_2HS = torch.stack([plan_HS, baseline_HS])
        fits_E2HS = both_2HS[None][:0] if fits_E2HS is None else fits_E2HS
        told_S = torch.isfinite(fits_E2HS).all(0).all(0).all(0) & (len(fits_E2HS) > 1)
        effect = plan_HS - baseline_HS
        slope_HS = 2 * self._weight_S * effect * self._time_H[:, None]
        common = float(torch.where(told_S, 0.0, (slope_HS.abs() * half_band_HS).sum(0)).square().sum().sqrt())
        unsure = math.hypot(common, self._fit_error(torch.where(told_S, fits_E2HS, both_2HS)))
        share = self.config.gain_error
        scales = torch.tensor([1.0, 1 - share, 1 + share], dtype=effect.dtype)
        believed = baseline_HS + scales[:, None, None] * effect
        saved = self.outcome(baseline_HS[None]) - self.outcome(believed) + saved_expense
        middle, low, high = float(saved[0]), float(saved.min()), float(saved.max())
        return middle, middle - math.hypot(middle - low, unsure), middle + math.hypot(high - middle, unsure)

    def _fit_error(self, fits_E2HS: Tensor) -> float:
        """Half the 90 % interval of the saving by the jackknife over fits, with Student's t for few of them."""
        E = len(fits_E2HS)
        if E < 2:
            return 0.0
        cost_E2 = self.outcome(fits_E2HS.flatten(0, 1)).view(E, 2)
        saved_E = cost_E2[:, 1] - cost_E2[:, 0]
        error = math.sqrt((E - 1) / E * float((saved_E - saved_E.mean()).square().sum()))
        return STUDENT_95[min(E - 1, len(STUDENT_95)) - 1] * error


def time_weights(horizon_s: Sequence[float]) -> Tensor:
    """Weights [H] that average a curve known at the horizons over time (trapezoids, the first value from zero on)."""
    h = torch.tensor([0.0, *horizon_s], dtype=torch.float64)
    widths = h.diff()
    weights = torch.zeros(len(widths), dtype=torch.float64)
    weights += widths / 2
    weights[:-1] += widths[1:] / 2
    weights[0] += widths[0] / 2
    return (weights / h[-1]).to(torch.get_default_dtype())


def _terms(plant: Plant, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Weight per squared unit and price of each name; several targets of one signal add their prices."""
    weight, price = torch.zeros(len(names)), torch.zeros(len(names))
    for target in plant.targets:
        if target.signal in names:
            i = names.index(target.signal)
            price[i] += target.price
            if target.setpoint is not None and target.weight:
                weight[i] = target.weight / target.scale**2
    return weight, price


def _setpoints(plant: Plant, names: Sequence[str], ahead_s: Sequence[float], t_ns: int | None) -> Tensor:
    """Setpoints [H or K, names] at times ahead of ``t_ns``; without it those of no schedule. 0 where there is none."""
    found = torch.zeros(len(ahead_s), len(names))
    for target in plant.targets:
        if target.setpoint is not None and target.signal in names:
            now_s = -math.inf if t_ns is None else t_ns / NS_PER_S
            wanted = [target.setpoint_at(now_s + s) for s in ahead_s]
            found[:, names.index(target.signal)] = torch.tensor(wanted)
    return found


def _span(plant: Plant, name: str) -> float:
    signal = plant.by_name[name]
    if signal.low is None or signal.high is None:
        raise ConfigError(f"signal {name!r}: a manipulated signal needs low and high")
    return signal.high - signal.low
