"""The loop of the control benchmarks: excited data, a model fitted on them, and our own planner in the loop.

One configuration serves every task. A controller hears the wanted values of the interval that its move acts on, and no
later ones unless it is told the schedule; of its advice it hears what was taken. Models see what the controllers see:
noise, and in training feeds that wander unmeasured.
Shape letters: T intervals, N candidates, K steps of a path, A inputs, H horizons, S states.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, pairwise, product

import numpy as np
import torch
from torch import Tensor

from control.advice.constraints import ConstraintConfig
from control.advice.objective import ObjectiveConfig
from control.advice.planner import Planner, PlannerConfig
from fusion.plant import Plant
from fusion.records import ACTION_STEP_S, NS_PER_S
from models.actions import HORIZONS, course_ticks
from models.linear.core import LinearConfig, LinearCore
from models.linear.fit import fit_core
from models.linear.standing import Lately, trail_ticks
from models.networks.linear_head import LinearHead
from models.networks.plan_head import PlanHead
from models.networks.size import ModelConfig
from models.region import Region
from models.ticks import Ticks
from models.training.fitter import Fitter, build
from models.training.settings import FitConfig
from models.world_model import WorldModel
from tests.benchmarks.control_plants import Floats, Task

EPISODE = 200
AHEAD = 32  # intervals that the planner looks ahead: longer than any of the plants takes to settle
PLANNER = PlannerConfig(
    knots=5,
    deadband=0.0,
    minor=0.0,
    deadline_s=5.0,
    objective=ObjectiveConfig(effort=1e-4),
    constraints=ConstraintConfig(largest_step=1.0, from_s=0.0, band_share=1.0),
)
LINEAR = LinearConfig(warm_up_ticks=0)  # an episode begins where the scored run begins
Policy = Callable[[int, Floats, Floats, Sequence[Floats]], Floats]


def ticks_of(states: Floats, actions: Floats, begin: int = 0) -> Ticks:
    """A course [T, S] with the actions [T, A] in force when each state was seen."""
    n = len(states)
    return Ticks(
        t_ns=(begin + np.arange(n, dtype=np.int64)) * 10 * NS_PER_S,
        tags=states,
        observed=np.ones(states.shape, bool),
        age_s=np.zeros(states.shape),
        quality=np.full(states.shape, 2, np.uint8),
        action=actions,
        media={},
        present={},
        patches={},
    )


def wandered(feed: Floats, random: np.random.Generator) -> Floats:
    """Slow unmeasured disturbances of feed temperature (sd 1 K) and concentration (sd .008)."""
    keep = np.exp(-1 / 50)
    return keep * feed + np.sqrt(1 - keep**2) * np.array([1.0, 0.008]) * random.normal(size=2)


def excited(task: Task, samples: int, seed: int) -> list[Ticks]:
    """Open-loop episodes from the start of the task: random levels, each held for a random while.

    An episode that the plant does not survive is no history of it, and another takes its place.
    """
    made = (_episode(task, np.random.default_rng((seed, k))) for k in count())
    return list(islice((run for run in made if np.isfinite(run.tags).all()), samples // EPISODE))


def _episode(task: Task, random: np.random.Generator) -> Ticks:
    state, action, feed = task.start.copy(), (task.low + task.high) / 2, np.zeros(2)
    low, high = task.excite
    left = np.zeros(len(action), int)
    states, actions = [], [action]
    for _ in range(EPISODE):
        states.append(task.seen(state, random))
        action = np.where(left == 0, random.uniform(low, high), action)
        left = np.where(left == 0, random.integers(2, 20, size=len(action)), left) - 1
        feed = wandered(feed, random)
        actions.append(action)
        state = task.advance(state, action, feed)
    return ticks_of(np.array(states), np.array(actions[:-1]))


@dataclass
class Fitted:
    """What was learned of a task: the linear core, where it was fitted, and the networks if any."""

    core: LinearCore
    region: Region
    whole: WorldModel | None = None


def fitted(task: Task, samples: int, seed: int, network_s: float = 0.0) -> Fitted:
    """The core in closed form; with ``network_s`` also the networks, one episode in five held out for their gates."""
    runs, plant = excited(task, samples, seed), task.plant(task.wanted[0])
    core = fit_core(runs, plant, LINEAR).calibrate(runs)
    region = Region.fit(core, runs, plant)
    if not network_s:
        return Fitted(core, region)
    held, training = runs[::5], [run for k, run in enumerate(runs) if k % 5]
    networks = build(plant, core, training, ModelConfig(), seed)
    fitter = Fitter(networks, core, plant, training, held, FitConfig(seconds=network_s, seed=seed))
    fitter.run()
    return Fitted(core, region, WorldModel(plant, core, fitter.networks()))


def pieces(run: Ticks, parts: int) -> list[Ticks]:
    """A run in parts of equal length."""
    cuts = np.linspace(0, len(run), parts + 1, dtype=int)
    return [run[a:b] for a, b in pairwise(cuts)]


class LearnedWorld:
    """``control.advice.world.World`` of what was learned; ``see`` takes a state an interval."""

    def __init__(self, model: Fitted, plant: Plant) -> None:
        self._model = model
        self.signals = tuple(s.name for s in plant.tags)
        self.manipulated = tuple(s.name for s in plant.actions)
        self._rows = [row for row, k in enumerate(HORIZONS) if k <= AHEAD]
        self.horizon_s = tuple(HORIZONS[row] * plant.step_s for row in self._rows)
        self.course_s = tuple(k * plant.step_s for k in course_ticks(plant.step_s) if k <= AHEAD)
        still = np.ones(model.core.offset.shape, bool) if model.whole is None else model.whole.gates == 0
        self._head, self._plan = LinearHead(model.core, torch.float64, still), PlanHead(model.core, still)
        self._carry = self._encoding = self._trail = self._state = self._missed_HS = None
        self._lately, self._ticks = Lately(trail_ticks(plant.step_s)), 0
        self.current_action = torch.zeros(len(self.manipulated))

    def see(self, state: Floats, action: Floats) -> None:
        """Take the newest state, and the action that has been in force since the one before."""
        self.take(ticks_of(state[None], action[None], self._ticks))

    def take(self, tick: Ticks) -> None:
        """Take consecutive ticks."""
        now, self._carry = self._model.core.encode(tick, self._carry)
        self._lately.take(now)
        self._encoding = self._lately.trail()
        self._missed_HS = self._plan.standing(self._encoding)
        if self._model.whole is not None:
            seen, self._trail = self._model.whole.observe(tick, now, self._trail, energies=False)
            self._state = seen.state
        self._ticks += len(tick)
        self.current_action = torch.from_numpy(tick.action[-1].copy()).float()

    @torch.no_grad()
    def rollout(self, action_NKA: Tensor) -> Tensor:
        paths = action_NKA.double()
        if self._model.whole is not None:
            made = self._model.whole.forecast(self._state, paths)
        else:
            made = torch.from_numpy(self._model.core.forecast(self._encoding, paths.numpy()))
        return (made + self._missed_HS)[:, self._rows].float()

    def course(self, action_NKA: Tensor) -> Tensor:
        paths, steps = action_NKA.double(), len(self.course_s)
        if self._model.whole is not None:
            made = self._model.whole.course(self._state, paths)
        else:
            now = self._encoding
            last = [torch.from_numpy(x[-1].copy()) for x in (now.past, now.tags, now.action, now.waiting)]
            made = self._head.course(*last[:2], paths, *last[2:])
        return (made + self._plan.along(self._missed_HS))[:, :steps].float()

    def fits(self, action_NKA: Tensor) -> Tensor:
        return self._plan.fits(self._encoding, action_NKA)[:, :, : len(self.course_s)].float()

    def half_band(self) -> Tensor:
        return torch.from_numpy(self._model.core.band()[self._rows]).float()

    def support(self, action_NKA: Tensor) -> Tensor:
        state = self._model.region.state_ratio(self._encoding.z[-1])
        return self._model.region.action_ratio(action_NKA, range(len(self.manipulated))).clamp_min(state).float()


@dataclass
class Course:
    """What came of a run: the return on true states, moves in shares of range, limits broken, planning times [s].

    ``lost`` says that the plant did not survive it.
    """

    value: float = 0.0
    moves: float = 0.0
    broken: int = 0
    excess: float = 0.0
    times_s: list[float] = field(default_factory=list)
    lost: bool = False


@dataclass(frozen=True)
class Delivery:
    """How advice reaches the plant: ``late`` intervals after it is asked for, taken with probability ``accepted``."""

    late: int = 0
    accepted: float = 1.0


def closed_loop(task: Task, policy: Policy, seed: int, delivery: Delivery = Delivery()) -> Course:
    """The scored run of a task, 59 intervals: every controller meets the same noise and the same acceptance.

    A policy hears what it sees, the inputs in force, and those on their way: what was taken and has not come about.
    """
    random, chance = np.random.default_rng(1000 + seed), np.random.default_rng(2000 + seed)
    state, action, first = task.start.copy(), (task.low + task.high) / 2, True
    coming, course = deque([action] * delivery.late), Course()
    for i in range(len(task.wanted) - 1):
        wanted = task.wanted[i + 1]
        seen = task.seen(state, random)
        began = time.process_time()
        asked = policy(i, seen, action, tuple(coming))
        course.times_s.append(time.process_time() - began)
        taken = chance.random() < delivery.accepted
        coming.append(asked if taken else (coming[-1] if coming else action))
        before, action = action, coming.popleft()
        travel = task.rate * (task.high - task.low)
        action = np.clip(np.clip(action, before - travel, before + travel), task.low, task.high)
        state = task.advance(state, action)
        if task.lost(state):
            course.value, course.lost = -np.inf, True
            return course
        course.value -= task.cost(state, wanted, action, action if first else before)
        course.moves += 0.0 if first else float(np.abs((action - before) / (task.high - task.low)).sum())
        first = False
        over = [_over(task, state, name, *limits) for name, limits in task.limits.items()]
        course.broken += int(any(o > 0 for o in over))
        course.excess = max([course.excess, *over])
    return course


def _over(task: Task, state: Floats, name: str, low: float, high: float) -> float:
    value = state[task.states.index(name)]
    return float(max(low - value, value - high))


class Planned:
    """A policy: our planner on a learned model. ``late`` intervals are those that it knows its moves to be late.

    Where it is ``heard`` what was taken it plans on from there, else from what it asked for. ``ahead`` tells it the
    schedule of what is wanted.
    """

    def __init__(
        self,
        task: Task,
        model: Fitted,
        late: int = 0,
        config: PlannerConfig = PLANNER,
        *,
        heard: bool = True,
        ahead: bool = False,
    ) -> None:
        self._task, self._config, self._late, self._heard, self._ahead = task, config, late, heard, ahead
        self._world = LearnedWorld(model, task.plant(task.wanted[0]))
        self._planners: dict[bytes, Planner] = {}
        self._asked = deque[Floats](maxlen=max(late, 1))

    def __call__(self, i: int, seen: Floats, action: Floats, coming: Sequence[Floats]) -> Floats:
        self._world.see(seen, action)
        known = coming if self._heard else [action] * (self._late - len(self._asked)) + list(self._asked)
        on_its_way = torch.from_numpy(np.stack(known[: self._late])).float() if self._late else None
        t_ns = i * int(ACTION_STEP_S) * NS_PER_S if self._ahead else None
        plan = self._planner(i).plan(self._world, None, ACTION_STEP_S, on_its_way, t_ns)
        asked = plan.action[self._late].double().numpy()
        self._asked.append(asked)
        return asked

    def _planner(self, i: int) -> Planner:
        wanted = self._task.wanted[i + 1]
        key = b"" if self._ahead else wanted.tobytes()
        if key not in self._planners:
            plant = self._task.scheduled() if self._ahead else self._task.plant(wanted)
            self._planners[key] = Planner(self._config, plant, self._world)
        return self._planners[key]


class Pi:
    """A policy: one PI loop for each tracked state, on the input that ``pairs`` names, with anti-windup."""

    def __init__(self, task: Task, gain: float, reset: float, pairs: Sequence[tuple[int, int, float]]) -> None:
        self._task, self._gain, self._reset, self._pairs = task, gain, reset, pairs
        self._sum = np.zeros(len(task.low))

    def __call__(self, i: int, seen: Floats, action: Floats, coming: Sequence[Floats]) -> Floats:
        asked = (self._task.low + self._task.high) / 2 + self._sum
        for state, move, sign in self._pairs:
            error = sign * (self._task.wanted[i + 1][state] - seen[state])
            asked[move] += self._gain * error
            if self._task.low[move] < asked[move] < self._task.high[move]:
                self._sum[move] += self._reset * error
        return np.clip(asked, self._task.low, self._task.high)


def tuned(task: Task, pairs: Sequence[tuple[int, int, float]]) -> tuple[float, float]:
    """Gain and reset of the PI that does best on the scored run without noise: in hindsight, which favours it."""
    quiet = Task(**{**task.__dict__, "noise": 0.0})
    span = float((task.high - task.low).mean()) / float(task.scale[pairs[0][0]])
    grid = list(product(np.geomspace(0.3, 100, 11) * span, np.geomspace(0.01, 10, 11) * span))
    courses = [closed_loop(quiet, Pi(quiet, gain, reset, pairs), 0) for gain, reset in grid]
    return grid[int(np.argmax([course.value - course.excess for course in courses]))]
