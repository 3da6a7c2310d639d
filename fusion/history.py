"""Recordings to frames, through the same timeline as live data: one path for past and present."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality
from fusion.recording import Recording, arrival_ns
from fusion.records import NS_PER_S, Frame, Quality
from fusion.timeline import Held, ProcessGrid, Timeline, TimelineConfig, hold
from models.batch import TickBuilder, Ticks, from_process_grid
from models.features import FeatureStem


def frames(recording: Recording, config: TimelineConfig | None = None) -> Iterator[Frame]:
    """Every tick of a recording, closed as its items arrived."""
    timeline = Timeline(recording.plant, config)
    for item in recording.items():
        timeline.push(item)
        yield from timeline.advance(arrival_ns(item))
    yield from timeline.flush()


def process_grid(recording: Recording, config: TimelineConfig | None = None) -> ProcessGrid | None:
    """Process values of a whole recording at once, as ``frames`` would give them.

    ``None`` where stamps run so far from arrivals that the clock model must decide: then ``frames`` is the way.
    """
    config = config or TimelineConfig()
    plant, batch = recording.plant, recording.columns()
    if not len(batch) or np.abs(batch.received_ns - batch.t_ns).max() > config.skew_tolerance_s * NS_PER_S:
        return None
    column_of = {s.name: i for i, s in enumerate(plant.of(Modality.PROCESS))}
    column = np.array([column_of.get(name, -1) for name in batch.signals], np.int64)[batch.index]
    finite = np.isfinite(batch.value)
    quality = np.where(finite, batch.quality, Quality.BAD).astype(np.uint8)
    keep = np.flatnonzero(column >= 0)
    order = keep[np.argsort(batch.t_ns[keep], kind="stable")]
    step_ns = int(plant.step_s * NS_PER_S)
    first = -(-int(batch.received_ns.min()) // step_ns) * step_ns
    ticks = np.arange(first, int(batch.received_ns.max()) // step_ns * step_ns + 1, step_ns, dtype=np.int64)
    rows = (column[order], batch.t_ns[order], np.where(finite, batch.value, 0.0)[order], quality[order])
    return hold(ticks, rows, Held.nothing(len(column_of)), step_ns)


def ticks(recording: Recording) -> Ticks:
    """A recording as model input: features and patches of all media, one row per tick."""
    plant = recording.plant
    grid = None if recording.has_media else process_grid(recording)
    if grid is not None:
        return _grid_ticks(recording, grid)
    builder = TickBuilder(plant, FeatureStem(plant))
    for frame in frames(recording):
        builder.add(frame)
    return builder.ticks()


def _grid_ticks(recording: Recording, grid: ProcessGrid) -> Ticks:
    """Bulk way for process values alone; the same masks as a ``Frame`` has."""
    process = recording.plant.of(Modality.PROCESS)
    stale_s = np.array([s.stale_after_s for s in process])
    seen = (grid.quality != Quality.BAD) & (grid.age_s <= stale_s)
    names = [s.name for s in process]

    def columns(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, values.T, strict=True))

    parts = {"observed": columns(seen), "age_s": columns(grid.age_s), "quality": columns(grid.quality)}
    return from_process_grid(recording.plant, grid.t_ns, columns(grid.value), **parts)
