"""The gain card: steady-state gains of a model at several operating points against what the engineer declared.

Shape letters: N candidates, P operating points, K steps of the action grid, A manipulated signals, S signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from control.advice.constraints import MoveBox
from control.advice.world import World
from fusion.errors import ConfigError
from fusion.plant import Gain, Plant

Floats = NDArray[np.float64]


@dataclass(kw_only=True, slots=True)
class GainConfig:
    """``step`` is the test move as a share of range; a declared range is widened by ``lowest`` and ``highest``.

    Underestimating a gain is the dangerous side. On a declared zero the effect must be below ``zero`` of the largest
    effect on that signal. ``agree`` is the share of operating points that must show the sign, and below ``none`` of
    the signal's scale an effect is none.
    """

    step: float = 0.1
    lowest: float = 0.7
    highest: float = 3.0
    zero: float = 0.2
    agree: float = 0.9
    none: float = 1e-3

    def __post_init__(self) -> None:
        """Reject shares that are none."""
        if not 0 < self.step <= 1 or not 0 < self.agree <= 1 or not 0 < self.lowest <= 1 <= self.highest:
            raise ConfigError("gains: step and agree must be in (0, 1], lowest <= 1 <= highest")


@dataclass(frozen=True, slots=True, kw_only=True)
class GainVerdict:
    """One declared pair: median ``gain`` over the operating points and whether it passes, with the reason if not."""

    manipulated: str
    controlled: str
    sign: int
    gain: float
    passed: bool
    reason: str = ""


@torch.no_grad()
def model_gains(world: World, plant: Plant, step: float = 0.1) -> Floats:
    """Steady-state gains [A, S] at the world's present state, in units of signal per unit of action.

    Each action is moved by ``step`` of its range towards the middle, at its rate, and held for as long as plans look
    ahead: what comes later no plan rests on, and few data tell it.
    """
    box = MoveBox(plant, world.manipulated)
    now_A = world.current_action.to(torch.get_default_dtype())
    direction_A = torch.where(now_A <= (box.low + box.high) / 2, 1.0, -1.0)
    moves_A = direction_A * step * box.span
    targets_NA = torch.cat([now_A[None], now_A + torch.diag(moves_A)])
    last_NS = world.course(box.paths(targets_NA[:, None], now_A))[:, -1]
    return np.asarray(((last_NS[1:] - last_NS[0]) / moves_A[:, None]).cpu().numpy(), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """How a declared pair answers to a lasting step: gain, dead time and settling time, to the model's horizons."""

    manipulated: str
    controlled: str
    gain: float
    dead_s: float
    settling_s: float


@torch.no_grad()
def response_times(world: World, plant: Plant, step: float = 0.1) -> list[Response]:
    """Every declared pair at the world's present state: dead until a tenth of the effect, settled within a tenth."""
    box = MoveBox(plant, world.manipulated)
    now_A = world.current_action.to(torch.get_default_dtype())
    moves_A = torch.where(now_A <= (box.low + box.high) / 2, 1.0, -1.0) * step * box.span
    paths = box.paths(torch.cat([now_A[None], now_A + torch.diag(moves_A)])[:, None], now_A)
    made = world.rollout(paths)
    effect_AHS = np.asarray(((made[1:] - made[0]) / moves_A[:, None, None]).cpu().numpy(), np.float64)
    declared = [g for g in plant.gains if g.manipulated in world.manipulated and g.controlled in world.signals]
    return [_response(gain, effect_AHS, world) for gain in declared]


def _response(gain: Gain, effect_AHS: Floats, world: World) -> Response:
    a, s = list(world.manipulated).index(gain.manipulated), list(world.signals).index(gain.controlled)
    effect_H, horizon = effect_AHS[a, :, s], np.asarray(world.horizon_s)
    last = float(effect_H[-1])
    begun = np.abs(effect_H) >= 0.1 * abs(last)
    away = np.flatnonzero(np.abs(effect_H - last) > 0.1 * abs(last))
    return Response(
        manipulated=gain.manipulated,
        controlled=gain.controlled,
        gain=last,
        dead_s=float(horizon[int(begun.argmax()) - 1]) if begun.argmax() else 0.0,
        settling_s=float(horizon[min(int(away[-1]) + 1, len(horizon) - 1)]) if len(away) else float(horizon[0]),
    )


def check_gains(
    gains_PAS: Floats,
    manipulated: Sequence[str],
    signals: Sequence[str],
    plant: Plant,
    config: GainConfig | None = None,
) -> list[GainVerdict]:
    """Judge every declared gain whose manipulated signal may be recommended."""
    config = config or GainConfig()
    declared = [g for g in plant.gains if g.manipulated in manipulated]
    return [_judge(gain, np.asarray(gains_PAS, np.float64), manipulated, signals, plant, config) for gain in declared]


def _judge(
    gain: Gain,
    gains_PAS: Floats,
    manipulated: Sequence[str],
    signals: Sequence[str],
    plant: Plant,
    config: GainConfig,
) -> GainVerdict:
    if gain.controlled not in signals:
        return _verdict(gain, float("nan"), "the model does not forecast the signal")
    s, a = list(signals).index(gain.controlled), list(manipulated).index(gain.manipulated)
    value_P = gains_PAS[:, a, s]
    middle = float(np.median(value_P))
    if not np.isfinite(value_P).all():
        return _verdict(gain, middle, "the gain is not finite")
    spans_A = np.array([_span(plant, name) for name in manipulated])
    if gain.sign == 0:
        return _zero(gain, middle, gains_PAS, (a, s), spans_A, manipulated, plant, config)
    right = float((np.sign(value_P) == gain.sign).mean())
    if right < config.agree:
        return _verdict(gain, middle, f"sign {gain.sign:+d} declared, seen at {right:.0%} of the operating points")
    if abs(middle) * spans_A[a] < config.none * _scale(plant, gain.controlled):
        return _verdict(gain, middle, "the effect over the whole range is none")
    if gain.low is not None and abs(middle) < config.lowest * gain.low:
        return _verdict(gain, middle, f"{abs(middle):.3g} is below {config.lowest} x {gain.low:.3g}")
    if gain.high is not None and abs(middle) > config.highest * gain.high:
        return _verdict(gain, middle, f"{abs(middle):.3g} is above {config.highest} x {gain.high:.3g}")
    return _verdict(gain, middle, "")


def _zero(
    gain: Gain,
    middle: float,
    gains_PAS: Floats,
    at: tuple[int, int],
    spans_A: Floats,
    manipulated: Sequence[str],
    plant: Plant,
    config: GainConfig,
) -> GainVerdict:
    """A declared zero: the effect against the largest declared one on the same signal, or against its scale."""
    a, s = at
    effect_A = np.median(np.abs(gains_PAS[:, :, s]), axis=0) * spans_A
    known = [g.manipulated for g in plant.gains if g.controlled == gain.controlled and g.sign]
    effects = [float(effect_A[list(manipulated).index(m)]) for m in known if m in manipulated]
    largest = max(effects, default=_scale(plant, gain.controlled))
    share = float(effect_A[a]) / max(largest, 1e-12)
    return _verdict(
        gain, middle, f"no effect declared, {share:.0%} of the largest seen" if share >= config.zero else ""
    )


def _verdict(gain: Gain, value: float, fault: str) -> GainVerdict:
    pair = f"{gain.manipulated} -> {gain.controlled}"
    return GainVerdict(
        manipulated=gain.manipulated,
        controlled=gain.controlled,
        sign=gain.sign,
        gain=value,
        passed=not fault,
        reason=f"{pair}: {fault}" if fault else "",
    )


def _span(plant: Plant, name: str) -> float:
    signal = plant.by_name[name]
    return (signal.high or 0.0) - (signal.low or 0.0)


def _scale(plant: Plant, name: str) -> float:
    """What counts as a visible change of a signal: the scale of its target, else a tenth of its range."""
    for target in plant.targets:
        if target.signal == name:
            return target.scale
    signal = plant.by_name[name]
    return 1.0 if signal.low is None or signal.high is None else 0.1 * (signal.high - signal.low)
