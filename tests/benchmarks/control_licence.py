"""T5: whether quiet history is refused a licence to steer, and the same with an operator's moves is granted one.

A loop holds the reactor's concentration at one setpoint, or an operator moves that setpoint now and then. What a core
fitted on either is worth is asked as a training asks it.
Shape letters: T intervals, A inputs, S states.
"""

from __future__ import annotations

import numpy as np

from control.advice.excitation import excitations
from control.advice.gains import check_gains, model_gains
from control.advice.licence import Licence, Skill, grant
from fusion.plant import Plant
from models.actions import HORIZONS
from models.linear.core import LinearCore
from models.linear.fit import fit_core
from models.region import Region
from models.ticks import Ticks
from tests.benchmarks.control_loop import Fitted, LearnedWorld, pieces, ticks_of, wandered
from tests.benchmarks.control_plants import reactor

SKILL_ROW, POINTS, WARM = 4, 6, 60  # 16 intervals ahead
PERTURBED_K = 3.0  # of the input within the window: more than the loop makes of its own accord


def history(samples: int, operator: bool, seed: int) -> list[Ticks]:
    """What a historian has of a PI loop on the concentration."""
    task, random = reactor(), np.random.default_rng(seed)
    state, feed, wanted, total = task.start.copy(), np.zeros(2), 0.875, 0.0
    action, states, actions = np.array([298.5]), [], []
    for _ in range(samples):
        seen = task.seen(state, random)
        states.append(seen)
        actions.append(action)
        if operator and random.random() < 0.01:
            wanted = float(random.uniform(0.85, 0.9))
        total += -20.0 * (wanted - seen[0])
        action = np.clip(np.array([298.5 - 60.0 * (wanted - seen[0]) + total]), task.low, task.high)
        total = float(np.clip(total, -3.5, 3.5))
        feed = wandered(feed, random)
        state = task.advance(state, action, feed)
    return pieces(ticks_of(np.array(states), np.array(actions)), 10)


def licence(samples: int, operator: bool, seed: int) -> tuple[Licence, dict[str, float]]:
    """The licence of a core fitted on nine tenths of a history, judged on all its evidence; and the numbers."""
    task = reactor()
    plant = task.plant(np.array([0.875, 0.0]))
    *fitted, later = history(samples, operator, seed)
    core = fit_core(fitted, plant).calibrate([later])
    names = [s.name for s in plant.actions]
    seen = excitations([(run.action, run.tags) for run in fitted], names, plant)
    gains = np.stack([_gains(core, plant, later, end) for end in np.linspace(200, len(later), POINTS, dtype=int)])
    verdicts = check_gains(gains, names, [s.name for s in plant.tags], plant)
    skill = {"Ca": _skill(core, later)}
    found = grant(plant, seen, verdicts, skill)
    told = {"gain_ratio": float(np.median(gains[:, 0, 0])) / -0.0112, "moves": seen["Tc"].moves}
    return found, told | {"error": skill["Ca"].model, "feedback": seen["Tc"].feedback, "span": seen["Tc"].span}


def _gains(core: LinearCore, plant: Plant, run: Ticks, end: int) -> np.ndarray:
    world = LearnedWorld(Fitted(core, Region.fit(core, [run], plant)), plant)
    world.take(run[max(0, end - 200) : end])
    return model_gains(world, plant)


def _skill(core: LinearCore, run: Ticks) -> Skill:
    """Errors as ratios to persistence where the input moved, with the true actions and with those of another time."""
    horizon = HORIZONS[SKILL_ROW]
    encoding = core.encode(run)[0]
    other = np.roll(run.action, len(run) // 3, axis=0)
    made, true = core.hindcast(encoding, horizon)
    wrong, _ = core.hindcast(encoding, horizon, core.scaling.action.scaled(other))
    ahead = np.lib.stride_tricks.sliding_window_view(run.action[:, 0], horizon + 1)
    rows = np.flatnonzero(np.ptp(ahead, axis=1) >= PERTURBED_K)
    rows = rows[rows >= WARM]
    if not len(rows):
        return Skill(model=float("nan"))
    errors = [float(np.sqrt(((m[rows, 0] - true[rows, 0]) ** 2).mean())) for m in (made, wrong, np.zeros_like(true))]
    return Skill(model=errors[0] / errors[2], arx=errors[0] / errors[2], shuffled=errors[1] / errors[2])
