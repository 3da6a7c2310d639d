"""T4: a gate at the head of a pipe that the water takes 20 intervals to pass; only what leaves it is scored.

The set-up is that of NeoRL-2's Pipeline, the code is our own: the gate moves by at most 1 an interval, its flow of 0 to
200 arrives 20 intervals later, the wanted flow changes by chance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from control.advice.planner import Planner, PlannerConfig
from fusion.plant import Plant, Role, Signal
from fusion.records import ACTION_STEP_S
from fusion.targets import Target
from models.linear.fit import fit_core
from models.region import Region
from models.ticks import Ticks
from tests.benchmarks.control_loop import LINEAR, PLANNER, Fitted, LearnedWorld, ticks_of

DELAY, STEPS, FLOWS, CHANCE = 20, 1000, (50.0, 80.0, 110.0, 140.0), 0.003
Move = Callable[[float, float, float], float]


def plant(wanted: float) -> Plant:
    """Gate and outflow, an interval being a step of the action grid."""
    return Plant(
        name="pipeline",
        step_s=ACTION_STEP_S,
        signals=(
            Signal(name="out", role=Role.CONTROLLED, low=0.0, high=200.0, period_s=ACTION_STEP_S),
            Signal(
                name="gate",
                role=Role.MANIPULATED,
                low=0.0,
                high=200.0,
                max_rate=1.0 / ACTION_STEP_S,
                period_s=ACTION_STEP_S,
            ),
        ),
        targets=(Target(signal="out", setpoint=wanted, scale=50.0, weight=1.0),),
    )


def score(move: Move, seed: int) -> float:
    """The return of 1000 intervals; ``move`` hears outflow, wanted flow and gate, and asks for a change of the gate."""
    random = np.random.default_rng(seed)
    wanted, gate = float(random.choice(FLOWS)), float(random.uniform(80, 120))
    pipe = deque([gate] * DELAY, maxlen=DELAY)
    total = 0.0
    for _ in range(STEPS):
        change = float(np.clip(move(pipe[-1], wanted, gate), -1.0, 1.0))
        wanted = float(random.choice(FLOWS)) if random.random() < CHANCE else wanted
        gate = float(np.clip(gate + change, 0.0, 200.0))
        pipe.appendleft(gate)
        total += ((200 - abs(pipe[-1] - wanted)) * 0.01) ** 2 - 3
    return total


def history(samples: int, seed: int) -> list[Ticks]:
    """Episodes of a gate that goes by its rate to places near and far, and rests there for short and long."""
    random = np.random.default_rng(seed)
    return [_episode(random) for _ in range(samples // STEPS)]


def _episode(random: np.random.Generator) -> Ticks:
    gate = float(random.uniform(80, 120))
    aim, left = gate, 0
    pipe, out, gates = deque([gate] * DELAY, maxlen=DELAY), [], []
    for _ in range(STEPS):
        out.append(pipe[-1])
        gates.append(gate)
        left -= 1
        if left < 0:
            aim = float(np.clip(random.normal(100, 50) if random.random() < 0.2 else random.normal(gate, 8), 0, 200))
            left = int(random.integers(1, 60))
        gate += float(np.clip(aim - gate, -1, 1))
        pipe.appendleft(gate)
    return ticks_of(np.array(out)[:, None], np.array(gates)[:, None])


def fitted(samples: int, seed: int) -> Fitted:
    """The linear core of the pipe."""
    runs = history(samples, seed)
    core = fit_core(runs, plant(100.0), LINEAR).calibrate(runs)
    return Fitted(core, Region.fit(core, runs, plant(100.0)))


def planned(model: Fitted, config: PlannerConfig = PLANNER) -> Move:
    """Our planner on the learned pipe."""
    world, planners = LearnedWorld(model, plant(100.0)), dict[float, Planner]()

    def move(out: float, wanted: float, gate: float) -> float:
        world.see(np.array([out]), np.array([gate]))
        if wanted not in planners:
            planners[wanted] = Planner(config, plant(wanted), world)
        with torch.no_grad():
            return float(planners[wanted].plan(world, None, 10.0).action[0, 0]) - gate

    return move


def proportional(gain: float) -> Move:
    """What knows nothing of the delay."""
    return lambda out, wanted, _gate: gain * (wanted - out)


def compensating() -> Move:
    """What knows the pipe: the gate's own flow is what will come out (Smith)."""
    return lambda _out, wanted, gate: wanted - gate
