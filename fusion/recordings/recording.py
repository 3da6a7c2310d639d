"""Recordings: a folder with the plant, process columns, media, ground truth and a manifest with hashes.

``process.parquet`` holds process values in order of arrival, ``heartbeats.parquet`` which signals were known to be
alive without a change, ``media.mcap`` pictures, sound and point clouds as Foxglove messages (topic = signal, publish
time = source time, log time = arrival), ``media.parquet`` one row per media message with its quality and clock,
``truth.parquet`` hidden states and faults by tick. Written aside, renamed when whole.
"""

from __future__ import annotations

import heapq
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from fusion.errors import ConfigError, PlantMismatch, RecordingError
from fusion.plant import Plant, plant_from_dict, plant_to_dict
from fusion.recordings.media import MediaReader, MediaWriter
from fusion.recordings.tables import (
    HEARTBEAT_SCHEMA,
    PROCESS_SCHEMA,
    ProcessTable,
    TableWriter,
    heartbeat_frame,
    heartbeats,
    process_frame,
    read_table,
)
from fusion.records import NS_PER_S, Columns, Item, Quality, Sample

FORMAT = "fusion-recording/1"
SOFTWARE = "0.1.0"
MANIFEST, PLANT, SCENARIO = "manifest.json", "plant.yaml", "scenario.yaml"
PROCESS, HEARTBEATS, TRUTH = "process.parquet", "heartbeats.parquet", "truth.parquet"
MEDIA, MEDIA_INDEX = "media.mcap", "media.parquet"
STATES = "states.parquet"
STATES_SCHEMA = {"t_ns": pl.Int64, "signal": pl.String, "state": pl.String, "text": pl.String}
SLICE_NS = NS_PER_S
LAST_NS = 2**63 - 1
LOADER, DUMPER = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Those of libyaml where they are there: ten times as quick for a plant of hundreds of signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fault or nuisance that was put in: times are UTC nanoseconds, severity 0..1."""

    name: str
    onset_ns: int
    end_ns: int | None
    ramp_s: float
    severity: float
    nuisance: bool = False
    kind: str = ""
    modalities: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()


def load_plant(path: Path) -> Plant:
    """A plant description from YAML.

    Raises:
        ConfigError: naming the file and the key.
    """
    try:
        data = yaml.load(path.read_text(), LOADER)  # noqa: S506 - it is a safe one
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a plant YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    return plant_from_dict(data, str(path))


def dump_plant(plant: Plant, path: Path) -> None:
    """Write a plant description that ``load_plant`` reads back to the same fingerprint."""
    path.write_text(yaml.dump(plant_to_dict(plant), Dumper=DUMPER, sort_keys=False))


class RecordingWriter:
    """Writes one recording; use as a context manager: an exception inside leaves nothing behind."""

    def __init__(
        self,
        path: Path,
        plant: Plant,
        *,
        scenario_text: str = "",
        kind: str = "normal",
        events: Sequence[Event] = (),
        overwrite: bool = False,
    ) -> None:
        if path.exists() and not overwrite:
            raise RecordingError(f"{path}: exists already; choose another folder")
        self._path, self._aside = path, path.with_name(path.name + ".partial")
        self._plant, self._kind, self._events = plant, kind, events
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        dump_plant(plant, self._aside / PLANT)
        (self._aside / SCENARIO).write_text(scenario_text)
        self._overwrite = overwrite
        self._media: MediaWriter | None = None
        self._process = TableWriter(self._aside / PROCESS, PROCESS_SCHEMA)
        self._heartbeats = TableWriter(self._aside / HEARTBEATS, HEARTBEAT_SCHEMA)
        self._adopted: Path | None = None
        self._has_heartbeats = False
        self._index: list[tuple[str, int, int, int, str]] = []
        self._truth: list[pl.DataFrame] = []
        self._states: list[pl.DataFrame] = []
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

    def media(self, sample: Sample) -> None:
        """Append a picture, an audio chunk or a point cloud."""
        if self._media is None:
            self._media = MediaWriter(self._aside / MEDIA, self._plant)
        self._media.write(sample)
        self._index.append((sample.signal, sample.t_ns, sample.received_ns, int(sample.quality), sample.clock))
        self._widen(sample.received_ns, sample.received_ns)

    def truth(self, columns: Mapping[str, NDArray[Any] | Sequence[Any]]) -> None:
        """Append ground truth rows: ``t_ns`` and one column per hidden state or fault severity."""
        self._truth.append(pl.DataFrame(dict(columns)))

    def close(self) -> None:
        """Write what is left, the manifest, and put the recording in place."""
        if self._media is not None:
            self._media.close()
            rows = pl.DataFrame(self._index, schema=_INDEX_SCHEMA, orient="row")
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
        self._write_manifest()
        if self._path.exists():
            if not self._overwrite:
                raise RecordingError(f"{self._path}: exists already; choose another folder")
            shutil.rmtree(self._path)
        self._aside.rename(self._path)

    def discard(self) -> None:
        """Drop everything written so far."""
        if self._media is not None:
            self._media.close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _write_manifest(self) -> None:
        files = {f.name: {"sha256": _sha256(f), "bytes": f.stat().st_size} for f in sorted(self._aside.iterdir())}
        start, end = self._span or (0, 0)
        manifest = {
            "format": FORMAT,
            "software": SOFTWARE,
            "plant": self._plant.name,
            "fingerprint": self._plant.fingerprint,
            "kind": self._kind,
            "t0_ns": start,
            "t1_ns": end,
            "events": [asdict(event) for event in self._events],
            "files": files,
        }
        (self._aside / MANIFEST).write_text(json.dumps(manifest, indent=1))

    def _widen(self, low: int, high: int) -> None:
        start, end = self._span or (low, high)
        self._span = min(low, start), max(high, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._aside.exists():
                self.discard()


_INDEX_SCHEMA = {
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
        self.manifest = _manifest(path / MANIFEST)
        try:
            self.plant = load_plant(path / PLANT)
        except ConfigError as error:
            raise RecordingError(f"{path / PLANT}: missing or damaged ({error})") from error
        if self.plant.fingerprint != self.manifest["fingerprint"] and not self._untouched(PLANT):
            raise PlantMismatch(f"{path / PLANT}: not the plant this recording was made of (fingerprint differs)")

    def _untouched(self, name: str) -> bool:
        """Whether a file is the one that was written: its plant may have been fingerprinted in another way."""
        return bool(_sha256(self.path / name) == self.manifest["files"].get(name, {}).get("sha256"))

    @property
    def has_media(self) -> bool:
        """Whether pictures, sound or point clouds were recorded."""
        return MEDIA in self.manifest["files"]

    @property
    def kind(self) -> str:
        """What the recording shows: ``normal`` or ``fault``."""
        return str(self.manifest["kind"])

    @property
    def span_s(self) -> float:
        """Time from first to last arrival [s]."""
        return float(self.manifest["t1_ns"] - self.manifest["t0_ns"]) / NS_PER_S

    @property
    def events(self) -> list[Event]:
        """Faults and nuisances put in, in order of onset."""
        rows = [
            {**e, "modalities": tuple(e["modalities"]), "signals": tuple(e["signals"])} for e in self.manifest["events"]
        ]
        return sorted((Event(**row) for row in rows), key=lambda event: event.onset_ns)

    def verify(self) -> None:
        """Compare every file with its hash in the manifest.

        Raises:
            RecordingError: naming the first file that is missing or differs.
        """
        for name, entry in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                raise RecordingError(f"{file}: missing, though {MANIFEST} lists it")
            if _sha256(file) != entry["sha256"]:
                raise RecordingError(f"{file}: damaged, its hash is not the one in {MANIFEST}")

    def table(self) -> pl.DataFrame:
        """All process values, one row each, in order of arrival."""
        return read_table(self.path / PROCESS, PROCESS_SCHEMA).cast(PROCESS_SCHEMA)  # type: ignore[arg-type]

    def columns(self) -> Columns:
        """All process values as one batch, without heartbeats."""
        return self._process_table().everything()

    def truth(self) -> pl.DataFrame:
        """Ground truth by tick; empty where none was recorded."""
        if TRUTH not in self.manifest["files"]:
            return pl.DataFrame(schema={"t_ns": pl.Int64})
        return read_table(self.path / TRUTH, {"t_ns": pl.Int64})

    def states(self) -> pl.DataFrame:
        """Why process values were no numbers, from a historian; empty where none was recorded."""
        if STATES not in self.manifest["files"]:
            return pl.DataFrame(schema=STATES_SCHEMA)
        return read_table(self.path / STATES, STATES_SCHEMA)

    def items(self) -> Iterator[Item]:
        """Everything in order of arrival.

        Process values come in batches of one clock and up to one second of arrival. Nothing that follows an item
        arrived before the last value in it, so that ``arrival_ns`` of each may drive a timeline.
        """
        index = self._media_index()
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
        return ProcessTable(read_table(self.path / PROCESS, PROCESS_SCHEMA))

    def _beats(self) -> list[Columns]:
        if HEARTBEATS not in self.manifest["files"]:
            return []
        return heartbeats(read_table(self.path / HEARTBEATS, HEARTBEAT_SCHEMA))

    def _media_index(self) -> pl.DataFrame:
        if not self.has_media:
            return pl.DataFrame(schema=_INDEX_SCHEMA)
        return read_table(self.path / MEDIA_INDEX, _INDEX_SCHEMA)

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


def arrival_ns(item: Item) -> int:
    """When an item arrived [UTC ns]: of a batch, its last value or heartbeat."""
    if isinstance(item, Sample):
        return item.received_ns
    return int(item.received_ns.max()) if len(item) else item.heartbeat_ns or 0


def _manifest(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RecordingError(f"{file}: missing; a recording is a folder written by `fusion record`")
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file}: not JSON ({error})") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise RecordingError(f"{file}: format {found!r} is not accepted; expected {FORMAT!r}")
    for key in ("plant", "fingerprint", "kind", "t0_ns", "t1_ns", "events", "files"):
        if key not in manifest:
            raise RecordingError(f"{file}: key {key!r} is missing")
    return manifest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
