"""Recordings as model input: ticks with features and patches, computed once and cached by content."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from fusion.errors import ConfigError
from fusion.files import whole_file
from fusion.plant import Modality, Plant
from fusion.recordings import normal
from fusion.recordings.recording import FAULT, LAST_NS, MANIFEST, NORMAL, Recording
from fusion.records import NS_PER_S
from fusion.timeline.history import frames, process_grid
from fusion.timeline.process import ProcessGrid
from fusion.training.splitting import SHORTEST
from models.features.eye import Eye
from models.features.stem import FeatureStem
from models.perception.backbone import backbone
from models.ticks import TickBuilder, Ticks, process_columns

log = logging.getLogger(__name__)

ALL = (0, LAST_NS)


def ticks(recording: Recording, plant: Plant | None = None, eye: Eye | None = None) -> Ticks:
    """A recording as model input: features and patches of all media, one row per tick, and what an ``eye`` sees.

    It is read as one of ``plant``, whose description may have changed since; default: as recorded.
    """
    recording = recording if plant is None else recording.of(plant)
    plant = recording.plant
    if not recording.has_media:
        return _grid_ticks(plant, process_grid(recording))
    builder = TickBuilder(plant, FeatureStem(plant), eye)
    for frame in frames(recording):
        builder.add(frame)
    return builder.ticks()


def _grid_ticks(plant: Plant, grid: ProcessGrid) -> Ticks:
    """Bulk way for process values alone; the same masks as a ``Frame`` has."""
    tags, actions = process_columns(plant, [s.name for s in plant.of(Modality.PROCESS)])
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


def cache_ticks(
    recordings: Sequence[Recording], plant: Plant, cache: Path, bar: Progress, name: str | None = None
) -> list[Path]:
    """Files with the normal ticks of recordings in order of time; computed on all cores, cached by content.

    All have the columns of the plant. Of a labelled or marked recording each normal stretch is a file. Where a backbone
    has a ``name``, it sees the pictures.
    """
    used = sorted((r for r in recordings if r.kind != FAULT), key=lambda r: r.manifest["t0_ns"])
    if len(used) < len(recordings):
        log.info("%d recordings hold faults and are left out of training", len(recordings) - len(used))
    jobs = [(r.path, plant, name, _pieces(r, cache / digest(r, plant, name))) for r in used]
    missing = [job for job in jobs if not all(file.is_file() for file in job[3])]
    task = bar.add_task("reading recordings", total=len(missing))
    if missing:
        spawn = multiprocessing.get_context("spawn")
        count = min(os.cpu_count() or 1, len(missing))
        with ProcessPoolExecutor(count, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(_cache_ticks, missing):
                bar.advance(task)
    return [file for _, _, _, pieces in jobs for file in pieces]


def _pieces(recording: Recording, place: Path) -> dict[Path, tuple[int, int]]:
    """A file for each normal stretch of a recording, and the stretch [UTC ns]."""
    if recording.kind == NORMAL:
        return {place.with_suffix(".npz"): ALL}
    least_ns = SHORTEST * round(recording.plant.step_s * NS_PER_S)
    found = [span for span in normal.of(recording) if span[1] - span[0] > least_ns]
    return {place.with_name(f"{place.name}-{i}.npz"): span for i, span in enumerate(found)}


def _cache_ticks(job: tuple[Path, Plant, str | None, Mapping[Path, tuple[int, int]]]) -> None:
    path, plant, name, pieces = job
    whole = ticks(Recording.verified(path), plant, None if name is None else Eye(backbone(name)))
    for file, (start_ns, end_ns) in pieces.items():
        first, last = np.searchsorted(whole.t_ns, (start_ns, end_ns))
        with whole_file(file) as aside:
            whole[first:last].save(aside)


def digest(recording: Recording, plant: Plant, name: str | None = None) -> str:
    """Names what is recorded, the columns it is read to, and by which backbone it is seen."""
    columns = "\n".join(map(repr, plant.signals))
    columns += "" if name is None else f"\n{name}#{backbone(name).sha256}"
    return hashlib.sha256((recording.path / MANIFEST).read_bytes() + columns.encode()).hexdigest()[:24]


def one_plant(recordings: Sequence[Recording]) -> Plant:
    """The plant of all recordings, as the latest describes it.

    Raises:
        ConfigError: where there is none, PlantMismatch: naming one of another plant.
    """
    if not recordings:
        raise ConfigError("training needs at least one recording")
    plant = max(recordings, key=lambda recording: recording.span_ns).plant
    for recording in recordings:
        recording.of(plant)
    return plant
