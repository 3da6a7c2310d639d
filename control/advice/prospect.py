"""What happens next if signals are moved as somebody asks, beside what happens if nothing is; knows no wire.

Shape letters: K steps of the action grid, A manipulated signals, H horizons, S signals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from control.advice.constraints import SignalLimits
from control.advice.objective import Objective
from control.advice.planner import PlannerConfig
from control.advice.world import World, along
from fusion.errors import ModelError
from fusion.plant import Plant, Signal
from fusion.prospects import Prospect, Question, Refusal, refused
from fusion.records import ACTION_STEPS, Forecast, Move, action_step_s


def foresee(question: Question, world: World, plant: Plant, t_ns: int, config: PlannerConfig) -> Prospect:
    """Roll a question out from the world's present state; each value is approached at its signal's rate and held."""
    if text := _unknown(question, world):
        return refused(question, t_ns, Refusal.UNKNOWN_SIGNAL, text)
    if text := _outside(question, plant):
        return refused(question, t_ns, Refusal.OUT_OF_RANGE, text)
    try:
        return _foreseen(question, world, plant, t_ns, config)
    except ModelError as error:
        return refused(question, t_ns, Refusal.MODEL_FAILED, str(error))


def _unknown(question: Question, world: World) -> str:
    strange = [name for name in question.moves if name not in world.manipulated]
    accepted = ", ".join(world.manipulated) or "none"
    return f"{strange[0]!r} cannot be moved; accepted: {accepted}" if strange else ""


def _outside(question: Question, plant: Plant) -> str:
    for name, value in question.moves.items():
        signal = plant.by_name[name]
        if signal.low is None or signal.high is None or not signal.low <= value <= signal.high:
            return f"{name} {value:g}: expected {signal.low:g} to {signal.high:g} {signal.unit}"
    return ""


@torch.no_grad()
def _foreseen(question: Question, world: World, plant: Plant, t_ns: int, config: PlannerConfig) -> Prospect:
    now_A = world.current_action.to(torch.get_default_dtype())
    paths_NKA = torch.stack([approached(now_A, question.moves, world, plant), now_A.expand(ACTION_STEPS, -1)])
    forecast_NHS, support_N, band_HS = world.rollout(paths_NKA), world.support(paths_NKA), world.half_band()
    if not all(bool(torch.isfinite(x).all()) for x in (now_A, forecast_NHS, support_N, band_HS)):
        raise ModelError("the forecast is not finite")
    support = float(support_N.max())
    if support > 1:
        where = "the plant" if float(support_N[1]) > 1 else "it"
        text = f"{where} would be at {support:.1f} of the limit of the trained region"
        return refused(question, t_ns, Refusal.OUT_OF_REGION, text)
    objective = Objective(plant, world.signals, world.manipulated, world.course_s, config.objective).at(t_ns)
    limits = SignalLimits(plant, world.signals, world.horizon_s, config.constraints)
    expense = objective.expense(paths_NKA, now_A)
    saved, course_NGS = float(expense[1] - expense[0]), world.course(paths_NKA)
    band_GS = along(world.course_s, world.horizon_s, band_HS)
    return Prospect(
        id=question.id,
        by=question.by,
        t_ns=t_ns,
        moves=tuple(_move(plant.by_name[n], now_A, v, world) for n, v in question.moves.items()),
        moved=forecast_of(world, forecast_NHS[0], band_HS, t_ns),
        baseline=forecast_of(world, forecast_NHS[1], band_HS, t_ns),
        gain=objective.gain(course_NGS[0], course_NGS[1], band_GS, saved, world.fits(paths_NKA)),
        binding=limits.binding(forecast_NHS[0], band_HS),
        support=support,
    )


def approached(now_A: Tensor, moves: Mapping[str, float], world: World, plant: Plant) -> Tensor:
    """Path [K, A] to the values of ``moves``, at the rate of each signal; at once where it has none."""
    aim_A, travel_KA = now_A.clone(), torch.full((ACTION_STEPS, len(now_A)), math.inf)
    for name, value in moves.items():
        a, rate = world.manipulated.index(name), plant.by_name[name].max_rate
        aim_A[a] = value
        if rate is not None:
            travel_KA[:, a] = rate * action_step_s(plant.step_s) * torch.arange(1, ACTION_STEPS + 1)
    return now_A + torch.minimum(torch.maximum(aim_A - now_A, -travel_KA), travel_KA)


def forecast_of(world: World, mean_HS: Tensor, half_HS: Tensor, t_ns: int) -> Forecast:
    """Forecast of all signals of a world, with the 90 % band around it."""
    mean = np.asarray(mean_HS.cpu().numpy(), np.float64)
    half = np.asarray(half_HS.cpu().numpy(), np.float64)
    horizon_s, signals = tuple(float(h) for h in world.horizon_s), tuple(world.signals)
    return Forecast(t_ns=t_ns, horizon_s=horizon_s, signals=signals, mean=mean, low=mean - half, high=mean + half)


def _move(signal: Signal, now_A: Tensor, value: float, world: World) -> Move:
    return Move(
        signal=signal.name,
        current=float(now_A[world.manipulated.index(signal.name)]),
        recommended=value,
        unit=signal.unit,
        low=-math.inf if signal.low is None else signal.low,
        high=math.inf if signal.high is None else signal.high,
        rate=math.inf if signal.max_rate is None else signal.max_rate,
    )
