"""The lime line in closed loop, in process: the advisor with a core in the loop, beside setpoints that stay.

Each advice is accepted and ramped at its rate, as the verifier would. No detector and no wire are in this loop.
Classical is an operator with the sheet of targets: setpoints go there at their rates at once.
Shape letters: S tags, A actions, N candidates, K steps of a path, H horizons, G steps ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from torch import Tensor

from control.advice.advisor import Advisor, AdvisorConfig
from control.advice.licence import Level, Licence, SignalLicence
from control.advice.objective import Objective
from control.advice.planner import Planner
from control.advice.situation import Situation
from fusion.plant import Plant
from fusion.records import NS_PER_S, Verdict
from fusion.simulator.fleet import Fleet
from fusion.simulator.scenario import FaultEvent, NuisanceEvent, Scenario
from models.actions import HORIZONS, course_ticks
from models.linear.core import LinearCore
from models.linear.fit import fit_core
from models.linear.standing import Lately, trail_ticks
from models.networks.linear_head import LinearHead
from models.networks.plan_head import PlanHead
from models.region import WARM_UP_TICKS, Region
from models.ticks import Ticks
from tests.benchmarks.control_whatif import as_ticks, excited_runs, lime

SECONDS, ASKED_EVERY_S, BEFORE_S = 2400, 30, 300
FIRST_SEED = 900
BOILING_DEGC = 97.0
SCENARIOS: dict[str, dict[str, object]] = {
    "ordinary day": {},
    "demand up": {"nuisances": (NuisanceEvent(name="demand_step", onset_s=1200, duration_s=1800),)},
    "lazy lime": {"faults": (FaultEvent(name="low_reactivity", onset_s=900, ramp_s=600, severity=0.6),)},
    "water valve blocked": {"faults": (FaultEvent(name="water_valve_blocked", onset_s=900, severity=0.6),)},
    "hot start": {"setpoints": {"TIC101.SP": 88.0, "LIC101.SP": 0.7, "DIC201.SP": 0.2}},
}
TARGETS = {"TT101": "TIC101.SP", "LT101": "LIC101.SP", "DT201": "DIC201.SP", "LT201": "LIC201.SP"}
Moves = dict[str, float]


class CoreWorld:
    """``control.advice.world.World`` of a core alone, standing at the last tick taken; only what has a rate moves."""

    def __init__(self, core: LinearCore, region: Region, plant: Plant) -> None:
        self._core, self._region, self._carry, self._trail = core, region, None, None
        self._lately = Lately(trail_ticks(core.step_s))
        still = np.ones(core.offset.shape, bool)
        self._head, self._plan = LinearHead(core, torch.float64, still), PlanHead(core, still)
        self._columns = [i for i, s in enumerate(plant.actions) if s.max_rate is not None]
        self.signals = tuple(s.name for s in plant.tags)
        self.manipulated = tuple(plant.actions[i].name for i in self._columns)
        self.horizon_s = tuple(k * plant.step_s for k in HORIZONS)
        self.course_s = tuple(k * plant.step_s for k in course_ticks(plant.step_s))
        self._action, self._ticks = torch.zeros(len(plant.actions)), 0

    def take(self, ticks: Ticks) -> None:
        """Take consecutive ticks."""
        seen, self._carry = self._core.encode(ticks, self._carry)
        if self._ticks < WARM_UP_TICKS:
            self._lately.restart()
        self._lately.take(seen)
        self._trail, self._ticks = self._lately.trail(), self._ticks + len(ticks)
        self._missed_HS: Tensor | None = None
        self._action = torch.from_numpy(ticks.action[-1].copy())

    @property
    def current_action(self) -> Tensor:
        return self._action[self._columns].float()

    def _paths(self, action_NKA: Tensor) -> Tensor:
        paths = self._action.expand(*action_NKA.shape[:2], -1).clone()
        paths[:, :, self._columns] = action_NKA.double()
        return paths

    def rollout(self, action_NKA: Tensor) -> Tensor:
        made = torch.from_numpy(self._core.forecast(self._trail, self._paths(action_NKA).numpy()))
        return (made + self._standing()).float()

    def _standing(self) -> Tensor:
        """What is added to forecasts [H, S], made once a tick."""
        self._missed_HS = self._plan.standing(self._trail) if self._missed_HS is None else self._missed_HS
        return self._missed_HS

    def course(self, action_NKA: Tensor) -> Tensor:
        now = self._trail
        past, tags, action, waiting = (torch.from_numpy(x[-1]) for x in (now.past, now.tags, now.action, now.waiting))
        made = self._head.course(past, tags, self._paths(action_NKA), action, waiting)
        return (made + self._plan.along(self._standing())).float()

    def fits(self, action_NKA: Tensor) -> Tensor:
        return self._plan.fits(self._trail, self._paths(action_NKA)).float()

    def half_band(self) -> Tensor:
        return torch.from_numpy(self._core.band()).float()

    def support(self, action_NKA: Tensor) -> Tensor:
        state = self._region.state_ratio(self._trail.z[-1])
        return self._region.action_ratio(action_NKA, self._columns).clamp_min(state).float()


class Advised:
    """Moves of one line by the advisor: asked every half minute, each advice accepted."""

    def __init__(self, core: LinearCore, region: Region, plant: Plant) -> None:
        self._world, self._plant = CoreWorld(core, region, plant), plant
        signals = {n: SignalLicence(signal=n, level=Level.ADVISE) for n in self._world.manipulated}
        config, self._now_ns = AdvisorConfig(), 0
        planner = Planner(config.planner, plant, self._world)
        self._advisor = Advisor(config, plant, planner, Licence(signals=signals), "core", lambda: self._now_ns)
        self.advices, self.holds = 0, dict[str, int]()

    def __call__(self, second: int, tick: Ticks) -> Moves:
        self._world.take(tick)
        if second < 0 or second % ASKED_EVERY_S:
            return {}
        self._now_ns = second * NS_PER_S
        news = self._advisor.advise(self._world, Situation(t_ns=self._now_ns))
        if news is not None and news.verdict is Verdict.ADVISE:
            self.advices += 1
            return {move.signal: move.recommended for move in news.moves}
        if news is not None and news.reason is not None:
            self.holds[news.reason.value] = self.holds.get(news.reason.value, 0) + 1
        return {}


def to_targets(plant: Plant) -> Callable[[int, Ticks], Moves]:
    """Setpoints to their targets, at once."""
    wanted = {t.signal: t.setpoint for t in plant.targets if t.setpoint is not None and t.signal in TARGETS}
    aims = {TARGETS[name]: float(value) for name, value in wanted.items()}
    return lambda second, _: aims if second == 0 else {}


@dataclass
class Stretch:
    """What came of a line: cost per hour on what the plant truly did, seconds beyond a limit, and whether it boiled."""

    cost: list[float] = field(default_factory=list)
    beyond_s: int = 0
    boiled: bool = False


def stretches(plant: Plant, scenarios: list[Scenario], policies: list[Callable[[int, Ticks], Moves]]) -> list[Stretch]:
    """The same time of each scenario under its policy, side by side."""
    fleet = Fleet(scenarios, plant)
    cost = Objective(plant, [s.name for s in plant.tags], [s.name for s in plant.actions], (1.0,))
    names = [s.name for s in plant.of(plant.tags[0].modality)]
    aims: list[Moves] = [{} for _ in scenarios]
    found = [Stretch() for _ in scenarios]
    for second in range(-BEFORE_S, SECONDS):
        read = fleet.second()
        values_CB = np.stack([read[name] for name in names])
        for row, policy in enumerate(policies):
            aims[row] |= policy(second, as_ticks(plant, values_CB[None, :, row]))
            _ramp(fleet, row, aims[row], plant)
        if second >= 0:
            _note(fleet, plant, cost, found)
    return found


def _ramp(fleet: Fleet, row: int, aims: Moves, plant: Plant) -> None:
    for name, aim in aims.items():
        now, rate = float(fleet.line.sp[name][row]), float(plant.by_name[name].max_rate or 0.0)
        fleet.set(row, name, now + float(np.clip(aim - now, -rate, rate)))


def _note(fleet: Fleet, plant: Plant, cost: Objective, found: list[Stretch]) -> None:
    """Judge a second by what instruments without noise or drift would say."""
    line = fleet.line
    true = {**line.tags(), "TT101": line.temperature}
    tags = np.stack([np.zeros(line.size) + true[s.name] for s in plant.tags], 1)
    costs = cost.outcome(torch.from_numpy(tags).float()[:, None]).tolist()
    beyond = np.zeros(line.size, bool)
    for target in plant.targets:
        value = np.zeros(line.size) + true[target.signal]
        beyond |= (value < (target.low or -np.inf)) | (value > (target.high or np.inf))
    for row, hour in enumerate(found):
        hour.cost.append(costs[row])
        hour.beyond_s += int(beyond[row])
        hour.boiled = hour.boiled or bool(line.temperature[row] > BOILING_DEGC)


def closed_line(quick: bool) -> dict[str, object]:
    """Rows by scenario: cost of setpoints that stay, and what share of it advice and targets take away."""
    plant, seeds = lime(), range(1 if quick else 3)
    runs = excited_runs(plant, *((4, 1800) if quick else (12, 3600)))
    core = fit_core(runs, plant)
    region = Region.fit(core, runs, plant)
    cases = [(name, seed) for name, seed in product(SCENARIOS, seeds)]
    kinds: dict[str, Callable[[], Callable[[int, Ticks], Moves]]] = {
        "stay": lambda: lambda *_: {},
        "targets": lambda: to_targets(plant),
        "advised": lambda: Advised(core, region, plant),
    }
    scenarios = [_scenario(name, seed) for name, seed in cases for _ in kinds]
    policies = [make() for _ in cases for make in kinds.values()]
    came = stretches(plant, scenarios, policies)
    rows: dict[str, object] = {}
    for name in SCENARIOS:
        own = [i for i, (case, _) in enumerate(cases) if case == name]
        rows[name] = {kind: _told([came[3 * i + k] for i in own]) for k, kind in enumerate(kinds)}
    advisers = [policy for policy in policies if isinstance(policy, Advised)]
    holds = {reason: sum(a.holds.get(reason, 0) for a in advisers) for a in advisers for reason in a.holds}
    return {"seeds": len(seeds), "seconds_each": SECONDS, "advices": sum(a.advices for a in advisers)} | {
        "holds": holds,
        **rows,
    }


def _scenario(name: str, seed: int) -> Scenario:
    return Scenario(name="line", seed=FIRST_SEED + seed, media=False, duration_s=SECONDS, **SCENARIOS[name])  # type: ignore[arg-type]


def _told(found: list[Stretch]) -> dict[str, object]:
    costs = [float(np.mean(hour.cost)) for hour in found]
    return {
        "cost": np.round(costs, 4).tolist(),
        "beyond_s": [hour.beyond_s for hour in found],
        "boiled": sum(hour.boiled for hour in found),
    }
