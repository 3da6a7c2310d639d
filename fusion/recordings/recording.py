"""Recordings: a folder with the plant, process columns, media, ground truth and a manifest with hashes.

``process.parquet`` holds process values in order of arrival, ``heartbeats.parquet`` which signals were known to be
alive without a change, ``media.mcap`` pictures, sound and point clouds as Foxglove messages (topic = signal, publish
time = source time, log time = arrival), ``media.parquet`` one row per media message with its quality and clock,
``truth.parquet`` hidden states and faults by tick, ``surprise.parquet`` how unusual the model of a daemon found each.
Written aside, renamed when whole.
"""

from __future__ import annotations

import copy
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from fusion.errors import ConfigError, PlantMismatch, RecordingError
from fusion.files import OLD, PARTIAL, sha256_of, within
from fusion.plain import decode, plain
from fusion.plant import Plant
from fusion.plant_difference import clause, unrecorded
from fusion.plant_file import load_plant
from fusion.recordings.media import MediaReader
from fusion.recordings.tables import (
    HEARTBEAT_SCHEMA,
    PROCESS_SCHEMA,
    SURPRISE_SCHEMA,
    ProcessTable,
    heartbeats,
    read_table,
)
from fusion.records import NS_PER_S, Columns, Item, Quality, Sample

FORMAT = "fusion-recording/1"
NORMAL, FAULT, LABELLED, MARKED = "normal", "fault", "labelled", "marked"
SOFTWARE = "0.1.0"
MANIFEST, PLANT, SCENARIO = "manifest.json", "plant.yaml", "scenario.yaml"
PROCESS, HEARTBEATS, TRUTH = "process.parquet", "heartbeats.parquet", "truth.parquet"
MEDIA, MEDIA_INDEX = "media.mcap", "media.parquet"
STATES, SURPRISE = "states.parquet", "surprise.parquet"
STATES_SCHEMA = {"t_ns": pl.Int64, "signal": pl.String, "state": pl.String, "text": pl.String}
SLICE_NS = NS_PER_S
LAST_NS = 2**63 - 1
PLANTS_KEPT = 16
_DESCRIBED: dict[str, Plant] = {}
"""Plants by the SHA-256 of their description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fault or nuisance: times are UTC nanoseconds, severity 0..1.

    One that was entered by hand has a name and its times; without an end it lasts to that of the recording. What is to
    be ignored is neither normal nor a fault to be found: maintenance, or an alarm on which nobody has decided.
    """

    name: str
    onset_ns: int
    end_ns: int | None = None
    ramp_s: float = 0.0
    severity: float = 1.0
    nuisance: bool = False
    ignore: bool = False
    kind: str = ""
    modalities: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What the manifest says of one file."""

    sha256: str
    bytes: int = 0

    @classmethod
    def of(cls, file: Path) -> Self:
        """What is true of a file."""
        return cls(sha256=sha256_of(file), bytes=file.stat().st_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a recording says of itself; times are UTC nanoseconds, of the first and the last arrival."""

    format: str
    software: str = ""
    plant: str
    fingerprint: str
    kind: str
    t0_ns: int
    t1_ns: int
    events: tuple[Event, ...]
    files: dict[str, FileEntry]


INDEX_SCHEMA = {
    "signal": pl.String,
    "t_ns": pl.Int64,
    "received_ns": pl.Int64,
    "quality": pl.UInt8,
    "clock": pl.String,
}


class Recording:
    """A recording at rest.

    Raises:
        RecordingError: where the folder or a file in it is missing, damaged or of another format.
        PlantMismatch: where the plant description is not the one the manifest was written with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest = read_manifest(path / MANIFEST)
        self._check_files()
        self.plant = self._recorded = self._described()

    def _described(self) -> Plant:
        """The plant as it was; the recordings of a folder share it, so that many are opened in no time."""
        file, listed = self.path / PLANT, self._manifest.files.get(PLANT)
        try:
            digest = sha256_of(file)
            plant = _DESCRIBED.get(digest) or load_plant(file)
        except (OSError, ConfigError) as error:
            raise RecordingError(f"{file}: missing or damaged ({error})") from error
        if listed is None or digest != listed.sha256:
            raise PlantMismatch(f"{file}: not the plant this recording was made of (its hash differs)")
        if len(_DESCRIBED) >= PLANTS_KEPT:
            _DESCRIBED.clear()
        _DESCRIBED[digest] = plant
        return plant

    def _check_files(self) -> None:
        """What is read is listed with its hash, and what is listed is in the folder."""
        files = self._manifest.files
        if missing := {PROCESS, *([MEDIA_INDEX] if MEDIA in files else [])} - set(files):
            raise RecordingError(f"{self.path / MANIFEST}: does not list {min(missing)}")
        try:
            for name in files:
                within(self.path, name)
        except ConfigError as error:
            raise RecordingError(f"{self.path / MANIFEST}: {error}") from error

    @classmethod
    def verified(cls, path: Path) -> Self:
        """A recording that is as it was written, file by file.

        Raises:
            RecordingError: naming the first file that is missing or differs.
        """
        recording = cls(path)
        recording.verify()
        return recording

    def of(self, plant: Plant) -> Self:
        """The same recording as one of a plant whose description was changed since: without what that no longer has.

        Raises:
            PlantMismatch: naming what of the plant was not recorded, or was otherwise.
        """
        if lacking := unrecorded(plant, self._recorded):
            raise PlantMismatch(
                f"{self.path}: recorded on plant {self._recorded.name!r} ({self._recorded.fingerprint[:12]}), another "
                f"plant than {plant.name!r} ({plant.fingerprint[:12]}): {clause(lacking)}"
            )
        seen = copy.copy(self)
        seen.plant = plant
        return seen

    @property
    def manifest(self) -> dict[str, Any]:
        """What the recording says of itself, as plain values."""
        return dict(plain(self._manifest))

    @property
    def has_media(self) -> bool:
        """Whether pictures, sound or point clouds of the plant were recorded."""
        return MEDIA in self._manifest.files and any(s.name in self._recorded.by_name for s in self.plant.media)

    @property
    def kind(self) -> str:
        """What the recording shows: ``normal``, ``fault``, or ``labelled``, where its events are all that was wrong.

        ``marked`` is labelled by people and alarms while it ran, so that its beginning is that of nothing.
        """
        return self._manifest.kind

    @property
    def span_s(self) -> float:
        """Time from first to last arrival [s]."""
        return (self._manifest.t1_ns - self._manifest.t0_ns) / NS_PER_S

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last arrival [UTC ns]."""
        return self._manifest.t0_ns, self._manifest.t1_ns

    @property
    def bytes(self) -> int:
        """Size of all files that the manifest lists."""
        return sum(entry.bytes for entry in self._manifest.files.values())

    @property
    def events(self) -> list[Event]:
        """Faults and nuisances put in, in order of onset."""
        return sorted(self._manifest.events, key=lambda event: event.onset_ns)

    def verify(self) -> None:
        """Compare every file with its hash in the manifest.

        Raises:
            RecordingError: naming the first file that is missing or differs.
        """
        for name, entry in self._manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise RecordingError(f"{file}: missing, though {MANIFEST} lists it")
            if sha256_of(file) != entry.sha256:
                raise RecordingError(f"{file}: damaged, its hash is not the one in {MANIFEST}")

    def table(self) -> pl.DataFrame:
        """All process values, one row each, in order of arrival."""
        return self._process().cast(PROCESS_SCHEMA)  # type: ignore[arg-type]

    def newest_ns(self) -> dict[str, int]:
        """The last time stamp of each tag that has a value [UTC ns].

        Raises:
            RecordingError: where the values cannot be read.
        """
        file = self.path / PROCESS
        try:
            found = pl.scan_parquet(file).group_by(pl.col("signal").cast(pl.String)).agg(pl.col("t_ns").max()).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RecordingError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
        return dict(found.iter_rows())

    def columns(self) -> Columns:
        """All process values as one batch, without heartbeats."""
        return self._process_table().everything()

    def truth(self) -> pl.DataFrame:
        """Ground truth by tick; empty where none was recorded."""
        if TRUTH not in self._manifest.files:
            return pl.DataFrame(schema={"t_ns": pl.Int64})
        return read_table(self.path / TRUTH, {"t_ns": pl.Int64})

    def surprise(self) -> pl.DataFrame:
        """How unusual the model in use found each tick, by sense and family; empty where none was recorded."""
        if SURPRISE not in self._manifest.files:
            return pl.DataFrame(schema=SURPRISE_SCHEMA)
        return read_table(self.path / SURPRISE, SURPRISE_SCHEMA)

    def states(self) -> pl.DataFrame:
        """Why process values were no numbers, from a historian; empty where none was recorded."""
        if STATES not in self._manifest.files:
            return pl.DataFrame(schema=STATES_SCHEMA)
        return read_table(self.path / STATES, STATES_SCHEMA)

    def items(self) -> Iterator[Item]:
        """Everything in order of arrival.

        Process values come in batches of one clock and up to one second of arrival. Nothing that follows an item
        arrived before the last value in it, so that ``arrival_ns`` of each may drive a timeline.
        """
        index = self.media_index()
        table = self._process_table()
        beats = self._beats()
        cuts = np.array(index["received_ns"].to_list() + [arrival_ns(beat) for beat in beats], np.int64)
        streams: list[Iterator[Item]] = [table.batches(cuts, SLICE_NS), iter(beats), self._media_items(index)]
        yield from heapq.merge(*streams, key=arrival_ns)

    def chunks(self, rows: int) -> Iterator[tuple[int, list[Columns]]]:
        """Process values and heartbeats in chunks of about ``rows`` values, one batch per clock, for bulk work.

        With each goes the time of its first arrival; nothing in later chunks arrived before theirs.
        """
        table, beats = self._process_table(), self._beats()
        waiting, at = list(table.chunks(rows)), 0
        starts = [*(start for start, _ in waiting[1:]), LAST_NS]
        for (start, batches), end in zip(waiting or [(0, [])], starts, strict=True):
            first = at
            while at < len(beats) and arrival_ns(beats[at]) < end:
                at += 1
            found = beats[first:at]
            yield min([start, *(arrival_ns(beat) for beat in found[:1])]), [*batches, *found]

    def _process_table(self) -> ProcessTable:
        return ProcessTable(self._process())

    def _process(self) -> pl.DataFrame:
        return self._own(read_table(self.path / PROCESS, PROCESS_SCHEMA))

    def _own(self, table: pl.DataFrame) -> pl.DataFrame:
        """The rows of signals that the plant has."""
        if self.plant.by_name.keys() >= self._recorded.by_name.keys():
            return table
        return table.filter(pl.col("signal").cast(pl.String).is_in(list(self.plant.by_name)))

    def heartbeats(self) -> pl.DataFrame:
        """Which signals were known to be alive when, without a change; empty where none was recorded."""
        if HEARTBEATS not in self._manifest.files:
            return pl.DataFrame(schema=HEARTBEAT_SCHEMA)
        return self._own(read_table(self.path / HEARTBEATS, HEARTBEAT_SCHEMA))

    def _beats(self) -> list[Columns]:
        return heartbeats(self.heartbeats())

    def media_index(self) -> pl.DataFrame:
        """Signal, times, quality and clock of each picture, chunk and cloud; empty where there is none."""
        if not self.has_media:
            return pl.DataFrame(schema=INDEX_SCHEMA)
        return self._own(read_table(self.path / MEDIA_INDEX, INDEX_SCHEMA))

    def _media_items(self, index: pl.DataFrame) -> Iterator[Sample]:
        """Media in order of arrival; what was written out of order waits until its turn is certain."""
        if not len(index):
            return
        file = self.path / MEDIA
        received = index["received_ns"].to_numpy()
        later = np.append(np.minimum.accumulate(received[::-1])[::-1][1:], LAST_NS).tolist()
        waiting: list[tuple[int, int, Sample]] = []
        rows = index.select("quality", "clock").iter_rows()
        place = -1
        for place, (sample, row) in enumerate(zip(MediaReader(file, self.plant), rows, strict=False)):
            whole = _stamped(sample, *row)
            if not waiting and whole.received_ns <= later[place]:  # as nearly always
                yield whole
                continue
            heapq.heappush(waiting, (whole.received_ns, place, whole))
            while waiting and waiting[0][0] <= later[place]:
                yield heapq.heappop(waiting)[2]
        if place + 1 != len(index):
            raise RecordingError(f"{file}: {place + 1} messages, but {MEDIA_INDEX} lists {len(index)}")


def _stamped(sample: Sample, quality: int, clock: str) -> Sample:
    """What the index knows of a sample; ``replace`` would take thrice as long."""
    return Sample(
        signal=sample.signal,
        t_ns=sample.t_ns,
        received_ns=sample.received_ns,
        value=sample.value,
        quality=Quality(quality),
        clock=clock,
        replayed=True,
    )


def recordings_in(places: Sequence[Path]) -> list[Path]:
    """Folders of recordings; one that holds some, such as a recorder's, stands for all that are closed there."""
    found: list[Path] = []
    for place in places:
        parts = sorted(m.parent for m in place.glob(f"*/{MANIFEST}") if m.parent.suffix not in (PARTIAL, OLD))
        found += [place] if (place / MANIFEST).is_file() or not parts else parts
    return found


def arrival_ns(item: Item) -> int:
    """When an item arrived [UTC ns]: of a batch, its last value or heartbeat."""
    if isinstance(item, Sample):
        return item.received_ns
    return int(item.received_ns.max()) if len(item) else item.heartbeat_ns or 0


def read_manifest(file: Path) -> Manifest:
    """What a recording says of itself.

    Raises:
        RecordingError: where the file is missing, damaged or of another format.
    """
    if not file.is_file():
        raise RecordingError(f"{file}: missing; a recording is a folder written by `fusion record`")
    try:
        manifest = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file}: not JSON ({error})") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise RecordingError(f"{file}: format {found!r} is not accepted; expected {FORMAT!r}")
    try:
        return decode(manifest, Manifest)
    except ConfigError as error:
        raise RecordingError(f"{file}: {error}") from error
