"""Sampling model-predictive control: iCEM over move knots, all samples of an iteration in one batch, then gradients.

Judged at every step of the action grid: a path that only passes the model's few horizons well may wander in between,
and one that is planned anew each step may put off its move for ever. Feasible first, then cheap. Knows no clock but a
deadline's and gives no advice: whether a plan may be spoken is for the advisor.
Source: Pinneri et al. (2020), "Sample-efficient Cross-Entropy Method for Real-time Planning" (iCEM); Bharadhwaj et al.
(2020), "Model-Predictive Control via Cross-Entropy and Gradient-Based Optimization".
Shape letters: N candidates, J knots, K steps of the action grid, A manipulated signals, H horizons, G steps of the
course, S signals.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from control.advice.candidates import FEASIBLE, Candidates, better, coloured
from control.advice.constraints import ConstraintConfig, MoveBox, SignalLimits, binding_moves, blocks
from control.advice.objective import Objective, ObjectiveConfig
from control.advice.world import World, along
from fusion.errors import ConfigError, ModelError
from fusion.plant import Plant
from fusion.records import ACTION_STEP_S, ACTION_STEPS, action_step_s

MOST_KNOTS = 6  # 1 + 2 + 4 + 8 + 16 steps, and the rest
_REFINED = 4  # candidates
_STRIDE, _LAST_STRIDE = 0.1, 0.005  # of the reach, first and last step down the gradient
_PROBE = 0.005  # of the reach
_SLOPE, _SQUARE = 0.7, 0.9  # what Adam keeps
_FEASIBLY = 3.0  # pull of a limit that is not kept, against that of the cost
_REACTION_STEPS = 2  # with several knots, until what is seen next can act


@dataclass(kw_only=True, slots=True)
class PlannerConfig:
    """Size of the search.

    With one knot a plan is one new value per signal, ramped at its rate and held: what an operator can be asked for
    every few minutes. More knots plan a course of moves, the first for the next step of the action grid, each later one
    for twice as long as the one before, and expect to be asked again soon. What is asked for now comes about
    ``latency_s`` later.
    ``sigma`` is the first spread of the samples as a share of the reach. Moves below ``deadband`` (share of range) and
    moves that bring less than ``minor`` of the saving are left out. With several knots the best samples go on for
    ``refinements`` steps down the gradient; one is found by samples alone.
    """

    samples: int = 128
    iterations: int = 5
    elites: int = 12
    kept: float = 0.3
    decay: float = 1.25
    beta: float = 2.0
    momentum: float = 0.1
    sigma: float = 0.5
    refinements: int = 12
    knots: int = 1
    deadband: float = 0.01
    minor: float = 0.03
    latency_s: float = 0.0
    deadline_s: float = 2.0
    seed: int = 0
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    constraints: ConstraintConfig = field(default_factory=ConstraintConfig)

    def __post_init__(self) -> None:
        """Reject a search that cannot find anything."""
        if not 1 <= self.knots <= MOST_KNOTS:
            raise ConfigError(f"planner.knots: {self.knots} must be 1 to {MOST_KNOTS}")
        if not 0 <= self.latency_s <= ACTION_STEP_S * ACTION_STEPS / 2:
            raise ConfigError(f"planner.latency_s: {self.latency_s} must be 0 to {ACTION_STEP_S * ACTION_STEPS / 2:g}")
        if not 2 <= self.elites < self.samples or self.iterations < 1:
            raise ConfigError("planner: expected 2 <= elites < samples and at least 1 iteration")
        if self.decay < 1 or self.sigma <= 0 or self.deadline_s <= 0 or not 0 <= self.momentum < 1:
            raise ConfigError("planner: decay must be >= 1, sigma and deadline_s positive, momentum in [0, 1)")
        if self.refinements < 0:
            raise ConfigError(f"planner.refinements: {self.refinements} must not be negative")
        if not 0 <= self.kept <= 1 or self.deadband < 0 or not 0 <= self.minor < 1:
            raise ConfigError("planner: kept must be in [0, 1], minor in [0, 1), deadband not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The best course found, in engineering units, against leaving everything as it is.

    ``target`` [A] is the value to ask for now, ``action`` [K, A] the course that ``expected`` [H, S] belongs to;
    ``baseline`` [H, S] is the forecast without moves. Costs and the gain with its 90 % interval are per hour.
    Violations are excesses over limits with back-off, in scales of the targets, averaged over the horizon; supports
    are ratios to the limit of the trained region.
    """

    target: Tensor
    action: Tensor
    expected: Tensor
    baseline: Tensor
    half_band: Tensor
    cost: float
    baseline_cost: float
    gain: float
    gain_low: float
    gain_high: float
    violation: float
    baseline_violation: float
    support: float
    baseline_support: float
    binding: tuple[str, ...]
    elapsed_s: float


class Planner:
    """Plans from any state of worlds that have the names and horizons of the one it was made with."""

    def __init__(
        self, config: PlannerConfig, plant: Plant, world: World, clock: Callable[[], float] = time.monotonic
    ) -> None:
        names = (world.signals, world.manipulated, world.course_s)
        self.config = config
        self.box = MoveBox(plant, world.manipulated, config.constraints)
        self.objective = Objective(plant, *names, config.objective)
        self.limits = SignalLimits(plant, world.signals, world.course_s, config.constraints)
        self.step_s = action_step_s(plant.step_s)
        self.ahead_s = world.course_s[-1]
        self._clock = clock
        self._random = torch.Generator().manual_seed(config.seed)
        self._last_JA: Tensor | None = None

    @torch.no_grad()
    def plan(
        self,
        world: World,
        free: Collection[str] | None = None,
        elapsed_s: float = 0.0,
        coming_DA: Tensor | None = None,
        t_ns: int | None = None,
    ) -> Plan:
        """Find moves of the signals named in ``free`` (default all); ``elapsed_s`` since the last plan shifts it.

        Until they come about, ``coming_DA`` is in force, by default what is so now. ``t_ns`` is the time, by which
        scheduled setpoints count; without it none is known.

        Raises:
            ModelError: where the model is not finite, of a wrong shape or later than the deadline.
        """
        began_s = self._clock()
        objective = self.objective if t_ns is None else self.objective.at(t_ns)
        search = _Search(self, world, objective, self._free(free), began_s + self.config.deadline_s, coming_DA)
        best = search.run(self._warm(elapsed_s))
        self._last_JA = best.knots[0]
        return search.plan(best, began_s)

    @torch.no_grad()
    def weigh(self, world: World, target_A: Tensor, t_ns: int | None = None) -> Plan:
        """The plan to ramp to given values [A] and hold them, beside doing nothing.

        Raises:
            ModelError: as ``plan`` does.
        """
        began_s = self._clock()
        objective = self.objective if t_ns is None else self.objective.at(t_ns)
        deadline_s = began_s + self.config.deadline_s
        search = _Search(self, world, objective, self._free(None), deadline_s, None)
        return search.plan(search.judge(target_A.expand(1, self.config.knots, -1)), began_s)

    def _free(self, free: Collection[str] | None) -> Tensor:
        return torch.tensor([free is None or name in free for name in self.box.names])

    def _warm(self, elapsed_s: float) -> Tensor | None:
        """Knots [J, A] of the last plan, moved ahead by the time that has passed."""
        if self._last_JA is None:
            return None
        starts = torch.tensor([0, *itertools.accumulate(blocks(self.config.knots)[:-1])])
        later = starts + min(round(elapsed_s / self.step_s), ACTION_STEPS)
        return self._last_JA[torch.searchsorted(starts, later, right=True) - 1]

    def noise(self, count: int, knots: int | None = None) -> Tensor:
        """Coloured noise [N, J, A] of unit variance along the knots."""
        shape = count, knots or self.config.knots, len(self.box.names)
        return coloured(shape, self.config.beta, self._random)

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds."""
        return self._clock


class _Search:
    """One planning problem: the present state of a world and the moves that are free."""

    def __init__(
        self,
        planner: Planner,
        world: World,
        objective: Objective,
        free_A: Tensor,
        deadline_s: float,
        coming_DA: Tensor | None,
    ) -> None:
        self._planner, self._world, self._deadline_s = planner, world, deadline_s
        self._objective = objective
        self._config = planner.config
        self._now_A = world.current_action.to(torch.get_default_dtype())
        self._free_A = free_A
        wait = round(self._config.latency_s / planner.step_s)
        self._coming_DA = self._now_A.expand(wait, -1) if coming_DA is None else coming_DA.to(self._now_A.dtype)
        self._low_A, self._high_A = planner.box.reach(self._now_A, free_A)
        self._band_HS = world.half_band()
        self._band_GS = along(world.course_s, world.horizon_s, self._band_HS)
        self._margin_GS = self._correctable()
        if not bool(torch.isfinite(self._now_A).all()):
            raise ModelError("a manipulated signal has no finite present value, so nothing can be planned from it")
        if not bool(torch.isfinite(self._band_HS).all()):
            raise ModelError("the band of the forecast is not finite")

    def _correctable(self) -> Tensor:
        """Band [G, S] to keep from limits: with several knots no more than at the time when the next plan acts."""
        if self._config.knots == 1:
            return self._band_GS
        known_s = self._config.latency_s + _REACTION_STEPS * self._planner.step_s
        known = torch.tensor(self._world.course_s) <= known_s
        last = max(int(known.sum()) - 1, 0)
        rows = torch.arange(len(known)).clamp(max=last)
        return self._band_GS[rows]

    def run(self, warm_JA: Tensor | None) -> Candidates:
        """The best candidate, as a batch of one."""
        config, hold_JA = self._config, self._now_A.expand(self._config.knots, -1)
        mean_JA = hold_JA if warm_JA is None else warm_JA.clamp(self._low_A, self._high_A)
        reach_JA = (self._high_A - self._low_A).expand_as(mean_JA)
        spread_JA = reach_JA * config.sigma
        pool = self.judge(torch.stack([hold_JA, mean_JA]))
        if not bool(torch.isfinite(pool.violation[0])):
            raise ModelError("the model's forecast without moves is not finite")
        if not bool(self._free_A.any()):
            return self._spare(pool.take(pool.order()[:1]))
        pool = pool.join(self._single(hold_JA, spread_JA))
        for i in range(config.iterations):
            count = max(round(config.samples * config.decay**-i), 2 * config.elites)
            sample = mean_JA + self._planner.noise(count) * spread_JA
            batch = self.judge(sample.clamp(self._low_A, self._high_A)).join(pool)
            elite = batch.take(batch.order()[: config.elites])
            mean_JA = config.momentum * mean_JA + (1 - config.momentum) * elite.knots.mean(0)
            spread_JA = config.momentum * spread_JA + (1 - config.momentum) * elite.knots.std(0)
            pool = elite.take(torch.arange(max(1, round(config.kept * config.elites))))
        pool = pool.join(self.judge(mean_JA[None]))
        best = pool.take(pool.order()[:_REFINED])
        if config.knots > 1:
            best = best.join(self._refined(best, reach_JA))
        return self._spare(best.take(best.order()[:1]))

    def _single(self, hold_JA: Tensor, spread_JA: Tensor) -> Candidates:
        """The best of plans with one move: what more knots find is to be no worse."""
        if self._config.knots == 1:
            return self.judge(hold_JA[None])
        away = self._planner.noise(self._config.samples, knots=1) * spread_JA
        pool = self.judge((hold_JA + away).clamp(self._low_A, self._high_A))
        return pool.take(pool.order()[: self._config.elites])

    def _refined(self, start: Candidates, reach_JA: Tensor) -> Candidates:
        """Each candidate at its best on the way down the gradient (Adam)."""
        found, knots = start, start.knots
        slope, square = torch.zeros_like(knots), torch.zeros_like(knots)
        steps = self._config.refinements
        for i in range(steps):
            here, gradient = self._around(knots, reach_JA)
            found = better(found, here)
            slope, square = _SLOPE * slope + (1 - _SLOPE) * gradient, _SQUARE * square + (1 - _SQUARE) * gradient**2
            way = (slope / (1 - _SLOPE ** (i + 1))) / ((square / (1 - _SQUARE ** (i + 1))).sqrt() + 1e-12)
            stride = _STRIDE * (_LAST_STRIDE / _STRIDE) ** ((i + 1) / steps)
            knots = (knots - stride * reach_JA * way).clamp(self._low_A, self._high_A)
        return better(found, self.judge(knots)) if steps else found

    def _around(self, knots_NJA: Tensor, reach_JA: Tensor) -> tuple[Candidates, Tensor]:
        """Candidates as they are, and which way is uphill [N, J, A]: of the cost and, where limits are not kept, those.

        Central differences, in one batch: no model need have a derivative, and a kink does not hide what is beside it.
        """
        N, count = len(knots_NJA), reach_JA.numel()
        probe = torch.eye(count).view(count, *reach_JA.shape) * _PROBE * reach_JA
        near = torch.cat([knots_NJA[:, None], knots_NJA[:, None] + probe, knots_NJA[:, None] - probe], 1)
        judged = self.judge(near.flatten(0, 1))
        cost, violation = judged.cost.view(N, -1), judged.violation.view(N, -1)
        uphill = [_unit(x[:, 1 : count + 1] - x[:, count + 1 :]) for x in (cost, violation)]
        here = Candidates(knots_NJA, cost[:, 0], violation[:, 0])
        return here, (uphill[0] + _FEASIBLY * uphill[1]).view_as(knots_NJA)

    def judge(self, knots_NJA: Tensor) -> Candidates:
        """Cost and violation of candidates; those whose forecast is not finite are unusable."""
        if self._planner.clock() > self._deadline_s:
            raise ModelError(f"planning took longer than {self._config.deadline_s} s")
        cost, violation = self._scores(knots_NJA)
        usable = torch.isfinite(cost) & torch.isfinite(violation)
        worst = torch.full_like(cost, math.inf)
        return Candidates(knots_NJA, torch.where(usable, cost, worst), torch.where(usable, violation, worst))

    def _scores(self, knots_NJA: Tensor) -> tuple[Tensor, Tensor]:
        """Cost and violation [N] of candidates, not finite where their forecast is not."""
        path_NKA = self._planner.box.paths(knots_NJA, self._now_A, self._coming_DA)
        forecast_NGS = self._course(path_NKA)
        cost = self._objective.cost(forecast_NGS, path_NKA, self._now_A)
        limits = self._planner.limits.violation(forecast_NGS, self._margin_GS)
        support = self._world.support(path_NKA)
        unknown = ~torch.isfinite(forecast_NGS).flatten(1).all(1)
        return cost, torch.where(unknown, math.nan, limits + (support - 1).clamp(min=0))

    def _course(self, path_NKA: Tensor) -> Tensor:
        return _shaped(self._world.course(path_NKA), (len(path_NKA), len(self._world.course_s), self._signals))

    def _rollout(self, path_NKA: Tensor) -> Tensor:
        return _shaped(self._world.rollout(path_NKA), (len(path_NKA), len(self._world.horizon_s), self._signals))

    @property
    def _signals(self) -> int:
        return len(self._world.signals)

    def _spare(self, best: Candidates) -> Candidates:
        """Leave out moves too small to be worth an operator's hand, one at a time, the least useful first."""
        hold_JA = self._now_A.expand_as(best.knots[0])
        small_A = (best.knots[0] - hold_JA).abs().amax(0) < self._config.deadband * self._planner.box.span
        best = self.judge(torch.where(small_A, hold_JA, best.knots[0])[None])
        hold = self.judge(hold_JA[None])
        allowed = float(best.cost) + self._config.minor * max(float(hold.cost - best.cost), 0.0)
        worst = max(float(best.violation), FEASIBLE)
        while True:
            moved = torch.nonzero((best.knots[0] != hold_JA).any(0)).flatten().tolist()
            if not moved:
                return best
            without = torch.stack([_replaced(best.knots[0], hold_JA, a) for a in moved])
            tried = self.judge(without)
            fewer = tried.take(tried.order()[:1])
            if float(fewer.cost) > allowed or float(fewer.violation) > worst:
                return best
            best = fewer

    def plan(self, best: Candidates, began_s: float) -> Plan:
        """Roll out the best candidate beside doing nothing and sum up."""
        planner, hold_JA = self._planner, self._now_A.expand_as(best.knots[0])
        path_NKA = planner.box.paths(torch.stack([best.knots[0], hold_JA]), self._now_A, self._coming_DA)
        forecast_NHS, support_N = self._rollout(path_NKA), self._world.support(path_NKA)
        course_NGS = self._course(path_NKA)
        cost_N = self._objective.cost(course_NGS, path_NKA, self._now_A)
        violation_N = planner.limits.violation(course_NGS, self._margin_GS)
        if not all(bool(torch.isfinite(x).all()) for x in (forecast_NHS, course_NGS, support_N, cost_N)):
            raise ModelError("the model's forecast of the plan is not finite")
        expense = self._objective.expense(path_NKA, self._now_A)
        saved, fits = float(expense[1] - expense[0]), self._world.fits(path_NKA)
        gain = self._objective.gain(course_NGS[0], course_NGS[1], self._band_GS, saved, fits)
        binding = binding_moves(planner.box, best.knots[0, 0], self._now_A, self._free_A)
        return Plan(
            target=best.knots[0, 0],
            action=path_NKA[0],
            expected=forecast_NHS[0],
            baseline=forecast_NHS[1],
            half_band=self._band_HS,
            cost=float(cost_N[0]),
            baseline_cost=float(cost_N[1]),
            gain=gain[0],
            gain_low=gain[1],
            gain_high=gain[2],
            violation=float(violation_N[0]),
            baseline_violation=float(violation_N[1]),
            support=float(support_N[0]),
            baseline_support=float(support_N[1]),
            binding=(*binding, *planner.limits.binding(course_NGS[0], self._margin_GS)),
            elapsed_s=planner.clock() - began_s,
        )


def _shaped(forecast: Tensor, expected: tuple[int, int, int]) -> Tensor:
    if tuple(forecast.shape) != expected:
        raise ModelError(f"the model's rollout has shape {tuple(forecast.shape)}, expected {expected}")
    return forecast


def _unit(slope_NX: Tensor) -> Tensor:
    """Directions of length one; none where it is not finite, beside an unusable candidate."""
    slope = torch.nan_to_num(slope_NX, nan=0.0, posinf=0.0, neginf=0.0)
    return torch.nn.functional.normalize(slope, dim=1, eps=1e-30)


def _replaced(knots_JA: Tensor, hold_JA: Tensor, a: int) -> Tensor:
    changed = knots_JA.clone()
    changed[:, a] = hold_JA[:, a]
    return changed
