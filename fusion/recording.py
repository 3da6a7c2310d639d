"""Recordings: a folder with the plant, process columns, media, ground truth and a manifest with hashes.

``process.parquet`` holds process values in order of arrival, ``media.mcap`` the pictures, sound and point clouds as
Foxglove messages (topic = signal, publish time = source time, log time = arrival), ``media.parquet`` one row per media
message with its quality and clock, ``truth.parquet`` hidden states and faults by tick. Written aside, renamed when whole.
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
from fusion.media import MediaReader, MediaWriter
from fusion.plant import Plant, plant_from_dict, plant_to_dict
from fusion.records import NS_PER_S, Columns, Item, Quality, Sample

FORMAT = "fusion-recording/1"
MANIFEST, PLANT, PROCESS, TRUTH, SCENARIO = (
    "manifest.json",
    "plant.yaml",
    "process.parquet",
    "truth.parquet",
    "scenario.yaml",
)
MEDIA, MEDIA_INDEX = "media.mcap", "media.parquet"
SLICE_NS = NS_PER_S
_FLUSH_ROWS = 2_000_000


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
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a plant YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    return plant_from_dict(data, str(path))


def dump_plant(plant: Plant, path: Path) -> None:
    """Write a plant description that ``load_plant`` reads back to the same fingerprint."""
    path.write_text(yaml.safe_dump(plant_to_dict(plant), sort_keys=False))


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
        self._media: MediaWriter | None = None
        self._parts: list[pl.DataFrame] = []
        self._index: list[tuple[str, int, int, int, str]] = []
        self._truth: list[pl.DataFrame] = []
        self._span: tuple[int, int] | None = None

    def write(self, item: Item) -> None:
        """Append one item, in order of arrival."""
        if isinstance(item, Columns):
            self.process(item)
        else:
            self.media(item)

    def process(self, columns: Columns) -> None:
        """Append a batch of process values."""
        if not len(columns):
            return
        names = np.asarray(columns.signals, dtype=object)[columns.index]
        frame = {
            "t_ns": columns.t_ns,
            "received_ns": columns.received_ns,
            "signal": pl.Series(names, dtype=pl.String),
            "value": columns.value,
            "quality": columns.quality,
            "clock": [columns.clock] * len(columns),
        }
        self._parts.append(pl.DataFrame(frame))
        self._widen(int(columns.received_ns.min()), int(columns.received_ns.max()))
        if len(self._parts) > 4096:
            self._parts = [pl.concat(self._parts)]

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
        process = pl.concat(self._parts) if self._parts else pl.DataFrame(schema=_PROCESS_SCHEMA)
        process.sort("received_ns", maintain_order=True).write_parquet(self._aside / PROCESS)
        if self._truth:
            pl.concat(self._truth).write_parquet(self._aside / TRUTH)
        self._write_manifest()
        if self._path.exists():
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
            "software": "0.1.0",
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
        if kind is None:
            self.close()
        else:
            self.discard()


_PROCESS_SCHEMA = {
    "t_ns": pl.Int64,
    "received_ns": pl.Int64,
    "signal": pl.String,
    "value": pl.Float64,
    "quality": pl.UInt8,
    "clock": pl.String,
}
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
        self.plant = load_plant(path / PLANT)
        if self.plant.fingerprint != self.manifest["fingerprint"]:
            raise PlantMismatch(f"{path / PLANT}: not the plant this recording was made of (fingerprint differs)")

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
        """Compare every file with its hash in the manifest."""
        for name, entry in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                raise RecordingError(f"{file}: missing, though {MANIFEST} lists it")
            if _sha256(file) != entry["sha256"]:
                raise RecordingError(f"{file}: damaged, its hash is not the one in {MANIFEST}")

    def table(self) -> pl.DataFrame:
        """All process values, one row each, in order of arrival."""
        return self._parquet(PROCESS)

    def columns(self) -> Columns:
        """All process values as one batch."""
        return _columns(self.table(), "")

    def truth(self) -> pl.DataFrame:
        """Ground truth by tick; empty where none was recorded."""
        return (
            self._parquet(TRUTH) if TRUTH in self.manifest["files"] else pl.DataFrame({"t_ns": []}, {"t_ns": pl.Int64})
        )

    def items(self) -> Iterator[Item]:
        """Everything in order of arrival; process values in batches of up to one second of arrival per clock."""
        streams: tuple[Iterator[Item], ...] = (self._process_items(), self._media_items())
        yield from heapq.merge(*streams, key=arrival_ns)

    def _process_items(self) -> Iterator[Columns]:
        table = self.table()
        for slot in table.with_columns(slot=pl.col("received_ns") // SLICE_NS).partition_by(
            "slot", maintain_order=True
        ):
            batches = slot.partition_by("clock", maintain_order=True)
            yield from sorted((_columns(b, b["clock"][0]) for b in batches), key=arrival_ns)

    def _media_items(self) -> Iterator[Sample]:
        if not self.has_media:
            return
        index = self._parquet(MEDIA_INDEX)
        rows = zip(index["quality"].to_list(), index["clock"].to_list(), strict=True)
        for sample, (quality, clock) in zip(MediaReader(self.path / MEDIA, self.plant), rows, strict=True):
            yield Sample(
                signal=sample.signal,
                t_ns=sample.t_ns,
                received_ns=sample.received_ns,
                value=sample.value,
                quality=Quality(quality),
                clock=clock,
                replayed=True,
            )

    def _parquet(self, name: str) -> pl.DataFrame:
        file = self.path / name
        try:
            return pl.read_parquet(file)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RecordingError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def arrival_ns(item: Item) -> int:
    """When an item arrived [UTC ns]: of a batch, its last value or heartbeat."""
    if isinstance(item, Sample):
        return item.received_ns
    return int(item.received_ns.max()) if len(item) else item.heartbeat_ns or 0


def _columns(table: pl.DataFrame, clock: str) -> Columns:
    names = table["signal"].unique(maintain_order=True).to_list()
    index = table["signal"].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)
    return Columns(
        signals=tuple(names),
        index=index,
        t_ns=table["t_ns"].to_numpy(),
        received_ns=table["received_ns"].to_numpy(),
        value=table["value"].to_numpy(),
        quality=table["quality"].to_numpy(),
        clock=clock,
        replayed=True,
    )


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
    return manifest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
