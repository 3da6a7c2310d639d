"""Recordings to frames, through the same timeline as live data: one path for past and present."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fusion.recordings.recording import Recording, arrival_ns
from fusion.records import Frame
from fusion.timeline.process import ProcessGrid
from fusion.timeline.timeline import Timeline, TimelineConfig

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
