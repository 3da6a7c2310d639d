"""Limits from more ticks than calibrate: each part of what was fitted on, judged by monitors that have not seen it.

Of many short runs, or of a first half day, little is left to calibrate, and a tail read from an hour knows the levels
of that hour. Monitors in closed form cost seconds, so that those of each fold are fitted on the others. What they say
of a part they have not seen is, if anything, stronger than what the model says that was fitted on all. Many runs are
left out whole; of few, which may be one stream, a quarter of the time, judged in the course of its run; of many tags,
whose fits cost minutes, half of it.
Shape letters: T ticks, E energies.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.training.settings import TrainConfig
from fusion.training.splitting import FEW, SHORTEST, Split, hours
from models.features.stem import FeatureStem
from models.linear.fit import fit_core
from models.monitors.fit import beginning_well, fit_monitors, widened
from models.monitors.monitors import Monitors
from models.monitors.residual import WARM_UP_TICKS
from models.plant_model import PlantModel
from models.scaling import MANY_TAGS, Floats
from models.ticks import Ticks

FOLDS, FOLDS_OF_MANY = 4, 2
ENOUGH_H = 4.0  # of runs that calibrate: then they are enough
LEAST_TICKS = 2 * WARM_UP_TICKS + 1  # of a run that monitors are fitted on


@dataclass(frozen=True, slots=True)
class Part:
    """Ticks ``start`` to ``end`` of a run, by its place."""

    run: int
    start: int
    end: int


def crossed(model: PlantModel, split: Split, config: TrainConfig) -> list[Floats]:
    """Energies [T, E] of what a model was fitted on, NaN for those of networks; none where they are not needed.

    Of a plant with media, of the runs that have them: its limits rest on those.
    """
    if hours(split.calibration) >= ENOUGH_H:
        return []
    with_media = [run for run in split.fitted if run.media]
    tags = [run for run in split.fitted if not run.media] if with_media else []
    runs = [run for run in with_media or split.fitted if len(run) >= LEAST_TICKS]
    found: list[Floats] = []
    count = FOLDS_OF_MANY if len(model.plant.tags) > MANY_TAGS else FOLDS
    for fold in folds([len(run) for run in runs], count):
        others = _without(runs, fold)
        if not others:
            return []
        monitors = _fitted(model, others, tags, [runs[part.run][part.start : part.end] for part in fold], config)
        found += [_judged(model, monitors, runs[part.run], part) for part in fold]
    return found


def folds(lengths: Sequence[int], count: int) -> list[list[Part]]:
    """Parts of runs of so many ticks by fold: runs as they are where there are ``FEW``, else a share of the time."""
    if len(lengths) >= FEW:
        return [[Part(int(i), 0, lengths[i]) for i in fold] for fold in np.array_split(np.arange(len(lengths)), count)]
    begins = np.cumsum([0, *lengths])
    cuts = np.linspace(0, begins[-1], count + 1).astype(int)
    made = []
    for first, last in itertools.pairwise(cuts.tolist()):
        parts = [
            Part(i, max(first - begin, 0), min(last - begin, length))
            for i, (begin, length) in enumerate(zip(begins[:-1].tolist(), lengths, strict=True))
        ]
        made.append([part for part in parts if part.end - part.start >= SHORTEST])
    return [parts for parts in made if parts]


def _without(runs: Sequence[Ticks], fold: Sequence[Part]) -> list[Ticks]:
    """What is left of runs without the parts of a fold, each piece that is long enough a run."""
    left = []
    for i, run in enumerate(runs):
        edges = [0, *(edge for part in fold if part.run == i for edge in (part.start, part.end)), len(run)]
        left += [run[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    return [run for run in left if len(run) >= LEAST_TICKS]


def _fitted(
    model: PlantModel, others: Sequence[Ticks], tags: Sequence[Ticks], own: Sequence[Ticks], config: TrainConfig
) -> Monitors:
    """Monitors of other runs, and of runs of ``tags`` alone, with the limits widened to their ``own``."""
    core = fit_core([*others, *tags], model.plant, config.linear)
    monitors = fit_monitors(others, core, model.plant, FeatureStem(model.plant), tag_runs=tags)
    monitors = widened(monitors, own)
    return beginning_well(monitors) if model.monitors.local.begins_well else monitors


def _judged(model: PlantModel, monitors: Monitors, run: Ticks, part: Part) -> Floats:
    """Energies [T, E] of a part of a run that monitors see from its start."""
    seen = run[: part.end]
    column = {energy.name: i for i, energy in enumerate(monitors.energies)}
    values = monitors.step(seen, monitors.core.encode(seen)[0])[0].values
    known = np.concatenate([values, np.full((len(seen), 1), np.nan)], 1)
    known = known[:, [column.get(energy.name, -1) for energy in model.energies]]
    return model.operating.told(known, model.operating.states.of(seen))[part.start :]
