"""Recordings as model input: ticks with features and patches, computed once and cached by content."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.progress import Progress

from fusion.errors import ConfigError, PlantMismatch
from fusion.files import whole_file
from fusion.plant import Modality, Plant, difference
from fusion.recordings.recording import MANIFEST, Recording
from fusion.timeline.history import frames, process_grid
from fusion.timeline.process import ProcessGrid
from models.features.stem import FeatureStem
from models.ticks import TickBuilder, Ticks, process_columns

log = logging.getLogger(__name__)


def ticks(recording: Recording, plant: Plant | None = None) -> Ticks:
    """A recording as model input: features and patches of all media, one row per tick.

    Columns are in the order of ``plant``, which may list the recorded signals otherwise; default: as recorded.
    """
    plant = plant or recording.plant
    if not recording.has_media:
        return _grid_ticks(recording, plant, process_grid(recording))
    builder = TickBuilder(plant, FeatureStem(plant))
    for frame in frames(recording):
        builder.add(frame)
    return builder.ticks()


def _grid_ticks(recording: Recording, plant: Plant, grid: ProcessGrid) -> Ticks:
    """Bulk way for process values alone; the same masks as a ``Frame`` has."""
    tags, actions = process_columns(plant, [s.name for s in recording.plant.of(Modality.PROCESS)])
    return Ticks(
        t_ns=grid.t_ns,
        tags=grid.value.take(tags, axis=1),
        observed=grid.observed.take(tags, axis=1),
        age_s=grid.age_s.take(tags, axis=1),
        quality=grid.quality.take(tags, axis=1),
        action=grid.value.take(actions, axis=1),
        media={},
        present={},
        patches={},
    )


def cache_ticks(recordings: Sequence[Recording], cache: Path, bar: Progress) -> list[Path]:
    """Files with the ticks of normal recordings in order of time; computed on all cores, cached by content.

    All have the columns of the first recording's plant.
    """
    normal = sorted((r for r in recordings if r.kind == "normal"), key=lambda r: r.manifest["t0_ns"])
    if len(normal) < len(recordings):
        log.info("%d recordings hold faults and are left out of training", len(recordings) - len(normal))
    plant = recordings[0].plant
    files = [cache / f"{digest(r, plant)}.npz" for r in normal]
    missing = [(r.path, plant, f) for r, f in zip(normal, files, strict=True) if not f.is_file()]
    task = bar.add_task("reading recordings", total=len(missing))
    if missing:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(missing)), mp_context=spawn) as pool:
            for _ in pool.map(_cache_ticks, missing):
                bar.advance(task)
    return files


def _cache_ticks(job: tuple[Path, Plant, Path]) -> None:
    path, plant, file = job
    with whole_file(file) as aside:
        ticks(Recording.verified(path), plant).save(aside)


def digest(recording: Recording, plant: Plant) -> str:
    """Names what is recorded and the order of the columns it is read to."""
    order = "\n".join(signal.name for signal in plant.signals)
    return hashlib.sha256((recording.path / MANIFEST).read_bytes() + order.encode()).hexdigest()[:24]


def one_plant(recordings: Sequence[Recording]) -> Plant:
    """The plant of all recordings.

    Raises:
        ConfigError: where there is none, PlantMismatch: naming one of another plant.
    """
    if not recordings:
        raise ConfigError("training needs at least one recording")
    plant = recordings[0].plant
    for recording in recordings:
        if recording.plant.fingerprint != plant.fingerprint:
            raise PlantMismatch(
                f"{recording.path}: another plant than {recordings[0].path}: {difference(plant, recording.plant)}; "
                "train on one plant at a time"
            )
    return plant
