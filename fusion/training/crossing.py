"""Limits from more runs than calibrate: each run that was fitted on, judged by monitors that have not seen it.

Of many short runs few are left to calibrate, and a tail read from minutes is a guess. Monitors in closed form cost
seconds, so that those of each fold are fitted on the others. What they say of a run they have not seen is, if anything,
stronger than what the model says that was fitted on all. Shape letters: T ticks, E energies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.training.settings import TrainConfig
from fusion.training.splitting import Split, crossing, hours
from models.features.stem import FeatureStem
from models.linear.fit import fit_core
from models.monitors.fit import beginning_well, fit_monitors, widened
from models.plant_model import PlantModel
from models.scaling import Floats
from models.ticks import Ticks

FOLDS = 4
ENOUGH_H = 1.0  # of runs that calibrate: then they are enough


def crossed(model: PlantModel, split: Split, config: TrainConfig) -> list[Floats]:
    """Energies [T, E] of the runs a model was fitted on, NaN for those of networks; none where they are not needed."""
    runs = crossing(split.fitted)
    if not runs or hours(split.calibration) >= ENOUGH_H:
        return []
    found: list[Floats] = []
    for fold in np.array_split(np.arange(len(runs)), FOLDS):
        own = [runs[i] for i in fold]
        found += _judged(model, [run for i, run in enumerate(runs) if i not in fold], own, config)
    return found


def _judged(model: PlantModel, others: Sequence[Ticks], runs: Sequence[Ticks], config: TrainConfig) -> list[Floats]:
    """Energies [T, E] of runs by monitors that were fitted on the others."""
    core = fit_core(others, model.plant, config.linear)
    monitors = widened(fit_monitors(others, core, model.plant, FeatureStem(model.plant)), runs)
    if model.monitors.local.begins_well:
        monitors = beginning_well(monitors)
    column = {energy.name: i for i, energy in enumerate(monitors.energies)}
    found = []
    for run in runs:
        values = monitors.step(run, core.encode(run)[0])[0].values
        known = np.concatenate([values, np.full((len(run), 1), np.nan)], 1)
        known = known[:, [column.get(energy.name, -1) for energy in model.energies]]
        found.append(model.operating.told(known, model.operating.states.of(run)))
    return found
