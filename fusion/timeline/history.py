"""Recordings to frames, through the same timeline as live data: one path for past and present."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.recordings.recording import Recording, arrival_ns
from fusion.records import Frame
from fusion.timeline.process import ProcessGrid
from fusion.timeline.timeline import Timeline, TimelineConfig
from models.features.stem import FeatureStem
from models.ticks import TickBuilder, Ticks, from_process_grid

_ROWS_AT_ONCE = 500_000


def frames(recording: Recording | Path, config: TimelineConfig | None = None) -> Iterator[Frame]:
    """Every tick of a recording, closed as its items arrived."""
    recording = Recording(recording) if isinstance(recording, Path) else recording
    timeline = Timeline(recording.plant, config)
    for item in recording.items():
        timeline.push(item)
        yield from timeline.advance(arrival_ns(item))
    yield from timeline.flush()


def process_grid(recording: Recording, config: TimelineConfig | None = None) -> ProcessGrid:
    """Process values of a whole recording in large batches, exactly as ``frames`` gives them without media."""
    unbounded = replace(config or TimelineConfig(), capacity_rows=2**62)
    timeline = Timeline(recording.plant, unbounded)
    parts = []
    for first_ns, batches in recording.chunks(_ROWS_AT_ONCE):
        parts.append(timeline.advance_process(first_ns))
        for batch in batches:
            timeline.push(batch)
    return ProcessGrid.concat([*parts, timeline.flush_process()])


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
    names = [s.name for s in recording.plant.of(Modality.PROCESS)]

    def columns(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, values.T, strict=True))

    parts = {"observed": columns(grid.observed), "age_s": columns(grid.age_s), "quality": columns(grid.quality)}
    return from_process_grid(plant, grid.t_ns, columns(grid.value), **parts)
