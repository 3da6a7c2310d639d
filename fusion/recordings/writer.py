"""Writing recordings: aside first, in place when whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
from numpy.typing import NDArray

from fusion.files import whole_file, whole_folder
from fusion.plain import plain
from fusion.plant import Plant
from fusion.plant_file import dump_plant
from fusion.recordings.media import MediaWriter
from fusion.recordings.recording import (
    FORMAT,
    HEARTBEATS,
    INDEX_SCHEMA,
    MANIFEST,
    MEDIA,
    MEDIA_INDEX,
    PLANT,
    PROCESS,
    SCENARIO,
    SOFTWARE,
    STATES,
    STATES_SCHEMA,
    SURPRISE,
    TRUTH,
    Event,
    FileEntry,
    Manifest,
    Recording,
    read_manifest,
)
from fusion.recordings.tables import (
    HEARTBEAT_SCHEMA,
    PROCESS_SCHEMA,
    TableWriter,
    heartbeat_frame,
    process_frame,
    surprise_frame,
)
from fusion.records import Columns, Item, Peaks, Sample


class _Abandoned(Exception):
    """A recording that nobody wants any more."""


class RecordingWriter:
    """Writes one recording; use as a context manager: an exception inside leaves nothing behind.

    Raises:
        ConfigError: where ``path`` exists and is not to be overwritten.
    """

    def __init__(
        self,
        path: Path,
        plant: Plant,
        *,
        scenario_text: str = "",
        kind: str = "normal",
        events: Sequence[Event] = (),
        overwrite: bool = False,
        exact: bool = False,
    ) -> None:
        self._plant, self._kind, self._events, self._exact = plant, kind, events, exact
        self._whole = ExitStack()
        self._aside = self._whole.enter_context(whole_folder(path, overwrite=overwrite))
        self._whole.push(self._close)
        dump_plant(plant, self._aside / PLANT)
        (self._aside / SCENARIO).write_text(scenario_text)
        self._media: MediaWriter | None = None
        self._process = TableWriter(self._aside / PROCESS, PROCESS_SCHEMA)
        self._heartbeats = TableWriter(self._aside / HEARTBEATS, HEARTBEAT_SCHEMA)
        self._adopted: Path | None = None
        self._has_heartbeats = False
        self._index: list[tuple[str, int, int, int, str]] = []
        self._truth: list[pl.DataFrame] = []
        self._states: list[pl.DataFrame] = []
        self._surprise: list[pl.DataFrame] = []
        self._span: tuple[int, int] | None = None

    def write(self, item: Item) -> None:
        """Append one item, in order of arrival."""
        if isinstance(item, Columns):
            self.process(item)
        else:
            self.media(item)

    def process(self, columns: Columns) -> None:
        """Append a batch of process values, and its heartbeat."""
        if len(columns):
            self._process.append(process_frame(columns))
            self._widen(int(columns.received_ns.min()), int(columns.received_ns.max()))
        if columns.heartbeat_ns is not None:
            self._has_heartbeats = True
            self._heartbeats.append(heartbeat_frame(columns))
            self._widen(columns.heartbeat_ns, columns.heartbeat_ns)

    def adopt(self, table: Path) -> None:
        """Take a file that is the whole process table in order of arrival, instead of any other process values."""
        arrival = pl.col("received_ns")
        low, high = pl.scan_parquet(table).select(arrival.min().alias("low"), arrival.max()).collect().row(0)
        self._adopted = table
        self._widen(low, high)

    def states(self, rows: pl.DataFrame) -> None:
        """Append why process values were no numbers: ``t_ns``, ``signal``, ``state`` (a kind), ``text``."""
        self._states.append(rows.select(*STATES_SCHEMA))

    def surprise(self, peaks: Sequence[Peaks]) -> None:
        """Append how unusual ticks were."""
        self._surprise.append(surprise_frame(peaks))

    def media(self, sample: Sample) -> None:
        """Append a picture, an audio chunk or a point cloud."""
        if self._media is None:
            self._media = MediaWriter(self._aside / MEDIA, self._plant, exact=self._exact)
        self._media.write(sample)
        self._index.append((sample.signal, sample.t_ns, sample.received_ns, int(sample.quality), sample.clock))
        self._widen(sample.received_ns, sample.received_ns)

    def take(self, recording: Recording) -> None:
        """Append all of another recording of this plant, as it arrived."""
        self._process.append(recording.table())
        if len(beats := recording.heartbeats()):
            self._has_heartbeats = True
            self._heartbeats.append(beats)
        if len(states := recording.states()):
            self.states(states)
        if len(surprise := recording.surprise()):
            self._surprise.append(surprise)
        if recording.has_media:
            self._media = self._media or MediaWriter(self._aside / MEDIA, self._plant)
            self._media.copy(recording.path / MEDIA)
            self._index += recording.media_index().iter_rows()
        self._widen(*recording.span_ns)

    def truth(self, columns: Mapping[str, NDArray[Any] | Sequence[Any]]) -> None:
        """Append ground truth rows: ``t_ns`` and one column per hidden state or fault severity."""
        self._truth.append(pl.DataFrame(dict(columns)))

    def _close(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is left and the manifest, unless an exception made it useless."""
        if self._media is not None:
            self._media.close()
        if kind is None:
            self._write_tables()
            self._write_manifest()

    def _write_tables(self) -> None:
        if self._media is not None:
            rows = pl.DataFrame(self._index, schema=INDEX_SCHEMA, orient="row")
            rows.write_parquet(self._aside / MEDIA_INDEX)
        if self._adopted is not None:
            self._adopted.rename(self._aside / PROCESS)
        else:
            self._process.close()
        if self._has_heartbeats:
            self._heartbeats.close()
        if self._truth:
            pl.concat(self._truth).write_parquet(self._aside / TRUTH)
        if self._states:
            pl.concat(self._states).write_parquet(self._aside / STATES)
        if self._surprise:
            pl.concat(self._surprise).write_parquet(self._aside / SURPRISE)

    def _write_manifest(self) -> None:
        start, end = self._span or (0, 0)
        manifest = Manifest(
            format=FORMAT,
            software=SOFTWARE,
            plant=self._plant.name,
            fingerprint=self._plant.fingerprint,
            kind=self._kind,
            t0_ns=start,
            t1_ns=end,
            events=tuple(self._events),
            files={f.name: FileEntry.of(f) for f in sorted(self._aside.iterdir())},
        )
        (self._aside / MANIFEST).write_text(json.dumps(plain(manifest), indent=1))

    def _widen(self, low: int, high: int) -> None:
        start, end = self._span or (low, high)
        self._span = min(low, start), max(high, end)

    def close(self) -> None:
        """Put the recording in its place."""
        self._whole.close()

    def abandon(self) -> None:
        """Leave nothing of it."""
        with suppress(_Abandoned), self._whole:
            raise _Abandoned

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.__exit__(kind, error, trace)


def relabel(path: Path, kind: str, events: Sequence[Event]) -> None:
    """Say anew what a recording shows; its data stay what they are.

    Raises:
        RecordingError: where there is no recording.
        OSError: where it cannot be written.
    """
    manifest = replace(read_manifest(path / MANIFEST), kind=kind, events=tuple(events))
    with whole_file(path / MANIFEST) as aside:
        aside.write_text(json.dumps(plain(manifest), indent=1))
