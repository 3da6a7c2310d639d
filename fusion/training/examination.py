"""The model's examination: evidence for its licence, gathered on runs that it has not been trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control.advice.excitation import excitations
from control.advice.gains import GainConfig, GainVerdict, check_gains, model_gains
from control.advice.licence import Licence, Skill, grant
from fusion.plant import Role
from fusion.records import action_step_s
from fusion.training.settings import TrainConfig
from models.actions import HORIZONS, course_ticks
from models.networks.clips import Pool
from models.plant_model import ModelState, PlantModel
from models.ticks import Ticks
from models.training.calibration import errors
from models.training.validation import examine, spread

SKILL_STEPS = 12.8  # of the action grid: where what is advised shows, and noise does not rule
CLIPS = 1024
POINTS_PER_RUN = 3


def examine_model(
    model: PlantModel, later: Sequence[Ticks], fitted: Sequence[Ticks], config: TrainConfig
) -> tuple[Licence, dict[str, Any]]:
    """Licence, and the numbers behind it, from ``later`` normal runs; excitation is that of the ``fitted`` ones.

    The reference on the same windows is the linear core, which is at least ARX where ARX was the better of its two
    readouts.
    """
    plant = model.plant
    movable = [s.name for s in plant.actions if s.max_rate is not None]
    columns = [i for i, s in enumerate(plant.actions) if s.max_rate is not None]
    found = excitations([(run.action[:, columns], run.tags) for run in fitted], movable, plant)
    gains = _checked(model, later, movable, config.gains) if movable else []
    pool = Pool(later, model.core, plant)
    errors = examine(model.networks, pool, spread(pool, model.networks.config.window_ticks, CLIPS))
    gates = model.networks.readout.gate_HS.double().cpu().numpy()
    asked_s = SKILL_STEPS * action_step_s(plant.step_s)
    row = min(range(len(HORIZONS)), key=lambda r: abs(HORIZONS[r] * plant.step_s - asked_s))
    persistence = np.maximum(errors.errors.pp.sum(0), 1e-12)
    own = np.sqrt(errors.errors.squared(gates).sum(0) / persistence)
    shuffled = np.sqrt(errors.shuffled.squared(gates).sum(0) / persistence)
    linear = np.sqrt(errors.errors.rr.sum(0) / persistence)
    dearest = own[row] * price(own, shuffled, plant.step_s)
    skill = {
        s.name: Skill(model=float(own[row, i]), arx=float(linear[row, i]), shuffled=float(dearest[i]))
        for i, s in enumerate(plant.tags)
        if s.role is Role.CONTROLLED
    }
    covered = coverage(model, later)
    inside = covered[np.isfinite(covered)]
    share = float(inside.mean()) if len(inside) else None
    licence = grant(plant, found, gains, skill, coverage=share, config=config.licence)
    card = {
        "horizon_s": [k * plant.step_s for k in HORIZONS],
        "tags": list(model.tags),
        "skill": (1.0 - own**2).tolist(),
        "skill_linear": (1.0 - linear**2).tolist(),
        "skill_over_linear": errors.errors.skill_over_linear(gates).tolist(),
        "shuffled_ratio": (shuffled / np.maximum(own, 1e-12)).tolist(),
        "coverage_90": covered.tolist(),
    }
    return licence, card


def price(own: NDArray[np.float64], shuffled: NDArray[np.float64], step_s: float) -> NDArray[np.float64]:
    """By how much shuffled actions raise errors [H, S] of each signal, where it is most as far as plans look ahead."""
    reached = np.asarray(HORIZONS) <= course_ticks(step_s)[-1]
    return np.asarray((shuffled[reached] / np.maximum(own[reached], 1e-12)).max(0))


def coverage(model: PlantModel, runs: Sequence[Ticks]) -> NDArray[np.float64]:
    """Share [H, S] of later values inside the bands; the runs that set the bands make this optimistic."""
    error = errors(model.world_model, runs, CLIPS).numpy()
    inside = np.where(np.isfinite(error), error <= model.world_model.bands(), np.nan)
    known = np.isfinite(inside).any(0)
    share = np.full(inside.shape[1:], np.nan)
    share[known] = np.nanmean(inside[:, known], 0)
    return share


def _checked(model: PlantModel, runs: Sequence[Ticks], movable: Sequence[str], config: GainConfig) -> list[GainVerdict]:
    """Declared gains against the steady-state gains at operating points spread over the runs."""
    points = []
    for run in runs:
        for end in np.linspace(len(run) // 3, len(run), POINTS_PER_RUN, dtype=int):
            state = ModelState()
            model.step(run[max(0, end - 400) : end], state)
            points.append(model_gains(model.world(state), model.plant, config.step))
    return check_gains(np.stack(points), movable, model.tags, model.plant, config)
