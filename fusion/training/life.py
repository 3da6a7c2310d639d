"""`fusion life`: an index of condition from lives that have ended, from recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusion.files import check_place
from fusion.plant import Modality
from fusion.recordings.recording import Recording
from fusion.records import NS_PER_S
from fusion.timeline.history import process_grid
from fusion.training.ticks import one_plant
from models.progression.life import LifeIndex, fit_life
from models.progression.life_file import save_life
from models.scaling import Floats
from models.ticks import process_columns

POINTS = 200  # of a usual life


def train_life(lives: Sequence[Sequence[Path]], out: Path, point_s: float | None = None) -> LifeIndex:
    """An index from lives, each of one or more recordings that end with it; written to a file.

    Raises:
        ConfigError: where there are too few, one is of another plant than the latest, or the file cannot be written.
    """
    check_place("--out", out)
    read = [[Recording.verified(folder) for folder in life] for life in lives]
    plant = one_plant([recording for life in read for recording in life])
    found = [[_rows(recording.of(plant)) for recording in life] for life in read]
    if point_s is None:
        lengths = [sum(len(t_ns) for t_ns, _ in life) * plant.step_s for life in found]
        point_s = max(float(np.median(lengths)) / POINTS, plant.step_s)
    points = [_points(life, point_s) for life in found]
    made = replace(fit_life(points, [tag.name for tag in plant.tags], point_s), fingerprint=plant.fingerprint)
    save_life(made, out)
    return made


def _rows(recording: Recording) -> tuple[np.ndarray, Floats]:
    """Times [T] and tags [T, S] of a recording; NaN where there is no usable value."""
    grid = process_grid(recording)
    columns, _ = process_columns(recording.plant, [s.name for s in recording.plant.of(Modality.PROCESS)])
    return grid.t_ns, np.where(grid.observed, grid.value, np.nan)[:, columns]


def _points(life: Sequence[tuple[np.ndarray, Floats]], point_s: float) -> Floats:
    """Means [N, S] over each stretch of time in which a life has values."""
    t_ns, rows = np.concatenate([t for t, _ in life]), np.concatenate([values for _, values in life])
    number = (t_ns / NS_PER_S // point_s).astype(np.int64)
    made = []
    for point in np.unique(number):
        part = rows[number == point]
        there = np.isfinite(part)
        total = np.where(there, part, 0.0).sum(0)
        made.append(np.where(there.any(0), total / np.maximum(there.sum(0), 1), np.nan))
    return np.array(made)
