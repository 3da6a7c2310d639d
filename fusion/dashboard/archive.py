"""What was recorded, for the page to look back at; the folder of a recorder is read here, never written.

A course is the zero-order hold of what the daemon received, as its own timeline holds it: absent where nothing came,
where it was BAD or too old. What was read of a tag is kept, so that another look at the same stretch is quick.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusion.dashboard.courses import Buckets, Data
from fusion.errors import RecordingError
from fusion.plant import Modality, Plant, Signal
from fusion.recordings.marks import Mark, holding, marks_of
from fusion.recordings.recorder import MARKS, OPEN
from fusion.recordings.recording import HEARTBEATS, MANIFEST, MEDIA, MEDIA_INDEX, PROCESS, SURPRISE, read_manifest
from fusion.records import NS_PER_S, Quality
from fusion.timeline.process import UNSEEN_NS, Heartbeats, Held, Rows, hold

log = logging.getLogger(__name__)

COURSES_KEPT = 4096
SURPRISES_KEPT = 512  # recordings, of half an hour as a rule: some ten days
JOINED_NS = 60 * NS_PER_S
FOREIGN_NS = 60 * NS_PER_S
KEY_EVERY = 10
SHEETS = (pl.exceptions.PolarsError, OSError)


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """One closed recording or slice of one, by its first and last arrival [UTC ns]."""

    t0_ns: int
    t1_ns: int
    path: Path


@dataclass(frozen=True, slots=True)
class Kept:
    """One tag in one block: its values on the block's ticks (NaN where absent), and what is known at the end of it."""

    value: NDArray[np.float32]
    end: tuple[int, float, int, int, float]


Judged = dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Of each sense the ticks that a model has judged, and how unusual it found them, over the limit."""
UNSEEN = (UNSEEN_NS, 0.0, 0, UNSEEN_NS, 0.0)


@dataclass(slots=True)
class Archive:
    """A recorder's folder, whether a daemon is at work there or not; used by one thread at a time."""

    folder: Path
    plant: Plant
    _blocks: dict[Path, Block | None] = field(default_factory=dict)
    _kept: OrderedDict[tuple[Path, str], Kept] = field(default_factory=OrderedDict)
    _surprises: dict[Path, Judged] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _marks: dict[str, Mark] = field(default_factory=dict)
    _marks_at: int = 0
    _span: tuple[int, int] | None = None

    @property
    def step_ns(self) -> int:
        """Distance of the ticks of a course."""
        return round(max(1.0, self.plant.step_s) * NS_PER_S)

    def span_ns(self) -> tuple[int, int] | None:
        """The first and the last arrival that is recorded, as known last; None where nothing is. It never waits."""
        if self._lock.acquire(blocking=False):
            try:
                blocks = self._found()
                self._span = (blocks[0].t0_ns, max(block.t1_ns for block in blocks)) if blocks else None
            finally:
                self._lock.release()
        return self._span

    def courses(self, names: Sequence[str], t0_ns: int, t1_ns: int, points: int) -> dict[str, Data]:
        """The course of each tag in a span as at most ``2 * points`` pairs of time [ms] and value; None breaks it."""
        wanted = [name for name in names if self._is_tag(name)]
        buckets = {name: Buckets.over(t0_ns, t1_ns, points, self.step_ns) for name in wanted}
        with self._lock:
            for block, kept in self._walk(wanted, t0_ns, t1_ns):
                ticks = self._ticks(block)
                for name, course in kept.items():
                    buckets[name].add(ticks, course.value)
        return {name: found.points() for name, found in buckets.items()}

    def surprise(self, t0_ns: int, t1_ns: int, points: int) -> dict[str, Data]:
        """How unusual each sense was in a span, over the limit, as the courses of tags are given."""
        found: dict[str, Buckets] = {}
        with self._lock:
            blocks = self._found()
            self._surprises = {path: judged for path, judged in self._surprises.items() if path in self._blocks}
            for block in blocks:
                if block.t0_ns <= t1_ns and t0_ns <= block.t1_ns + JOINED_NS:  # a tick is judged after it has arrived
                    for sense, (t_ns, factor) in self._judged(block).items():
                        if sense not in found:
                            found[sense] = Buckets.over(t0_ns, t1_ns, points, self.step_ns)
                        found[sense].add(t_ns, factor)
        return {sense: buckets.points() for sense, buckets in found.items()}

    def marks(self, t0_ns: int, t1_ns: int) -> list[Mark]:
        """What people and alarms said of stretches that reach into a span."""
        return holding(self.all_marks(), t0_ns, t1_ns)

    def all_marks(self) -> list[Mark]:
        """The last word on each name; of the journal only what is new is read."""
        file = self.folder / MARKS
        try:
            with file.open("rb") as stream:
                if stream.seek(0, 2) < self._marks_at:
                    self._marks_at = 0  # another journal
                    self._marks.clear()
                stream.seek(self._marks_at)
                whole = stream.read().rpartition(b"\n")  # the last line may not be whole yet
        except OSError:
            return list(self._marks.values())
        if whole[1]:
            self._marks |= marks_of(whole[0].decode("utf-8", "replace"), str(file))
            self._marks_at += len(whole[0]) + 1
        return list(self._marks.values())

    def samples(self, signal: Signal, t_ns: int, length_s: float = 0.0) -> list[NDArray[np.generic]]:
        """What a medium had sent last at a time, and ``length_s`` before that; [] where it was silent for long."""
        with self._lock:
            blocks = [b for b in self._found() if b.t0_ns <= t_ns and t_ns - b.t1_ns < self._patience_ns(signal)]
            for block in reversed(blocks):
                try:
                    if found := self._read_media(block, signal, t_ns, length_s):
                        return found
                except RecordingError as error:
                    log.warning("history: %s", error)
        return []

    # -- blocks

    def _is_tag(self, name: str) -> bool:
        return name in self.plant.by_name and self.plant.by_name[name].modality is Modality.PROCESS

    def _patience_ns(self, signal: Signal) -> int:
        return round(max(signal.stale_after_s, 2 * signal.period_s) * NS_PER_S)

    def _found(self) -> list[Block]:
        """Every whole recording and slice of this plant, oldest first; slices that one took up are left out."""
        paths = {path for place in (self.folder, self.folder / OPEN) for path in _folders(place)}
        self._blocks = {path: self._blocks.get(path) for path in paths}
        for path, known in self._blocks.items():
            if known is None:
                self._blocks[path] = self._block(path)
        blocks = sorted(block for block in self._blocks.values() if block is not None)
        whole = [block for block in blocks if block.path.parent == self.folder]
        return [b for b in blocks if b in whole or not any(w.t0_ns <= b.t0_ns <= w.t1_ns for w in whole)]

    def _block(self, path: Path) -> Block | None:
        try:
            manifest = read_manifest(path / MANIFEST)
        except (RecordingError, OSError):
            return None
        return Block(manifest.t0_ns, manifest.t1_ns, path) if manifest.plant == self.plant.name else None

    def _ticks(self, block: Block) -> NDArray[np.int64]:
        step_ns = self.step_ns
        first, last = -(-block.t0_ns // step_ns), -(-block.t1_ns // step_ns)
        return np.arange(first, last + 1, dtype=np.int64) * step_ns

    def _walk(self, names: Sequence[str], t0_ns: int, t1_ns: int) -> Iterator[tuple[Block, dict[str, Kept]]]:
        """The blocks of a span with these tags, each begun with what was known at the end of the one before."""
        before: Block | None = None
        ends: dict[str, tuple[int, float, int, int, float]] = {}
        blocks = self._found()
        for i, block in enumerate(blocks):
            if block.t1_ns < t0_ns or block.t0_ns > t1_ns:
                continue
            if before is None:
                ends = self._last_known(blocks[:i], names, block.t0_ns)
            elif block.t0_ns - before.t1_ns > JOINED_NS:
                ends = {}
            kept = {name: self._kept[block.path, name] for name in names if (block.path, name) in self._kept}
            if missing := [name for name in names if name not in kept]:
                try:
                    kept |= self._read(block, missing, ends)
                except SHEETS as error:
                    log.warning("history: %s is left out: %s", block.path, str(error).partition("\n")[0])
                    continue
            ends, before = {name: course.end for name, course in kept.items()}, block
            yield block, kept

    # -- tags

    def _read(
        self, block: Block, names: Sequence[str], ends: dict[str, tuple[int, float, int, int, float]]
    ) -> dict[str, Kept]:
        signals = [self.plant.by_name[name] for name in names]
        ticks = self._ticks(block)
        held = Held(*(np.array(column) for column in zip(*(ends.get(name, UNSEEN) for name in names), strict=True)))
        held.t_ns, held.heartbeat_ns = held.t_ns.astype(np.int64), held.heartbeat_ns.astype(np.int64)
        held.value, held.usable = held.value.astype(np.float64), held.usable.astype(np.float64)
        rows, beats = _rows(block.path, names), _beats(block.path, names)
        step_s = self.step_ns / NS_PER_S
        due, beats_due = (self._due(ticks, column) for column in (rows.t_ns, beats.t_ns))
        grid, _ = hold(ticks, signals, rows, due, beats, beats_due, held, step_s)
        found = {}
        for i, name in enumerate(names):
            value = np.where(grid.observed[:, i], grid.value[:, i], np.nan).astype(np.float32)
            last = held.t_ns[i], held.value[i], held.quality[i], held.heartbeat_ns[i], held.usable[i]
            found[name] = self._kept[block.path, name] = Kept(value, last)
        while len(self._kept) > COURSES_KEPT:
            self._kept.popitem(last=False)
        return found

    def _due(self, ticks: NDArray[np.int64], t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        due: NDArray[np.int64] = -(-t_ns // self.step_ns) - ticks[0] // self.step_ns
        return due.clip(0, len(ticks) - 1)

    def _last_known(
        self, blocks: Sequence[Block], names: Iterable[str], since_ns: int
    ) -> dict[str, tuple[int, float, int, int, float]]:
        """The newest value of each tag before a time, from blocks that joined on; a tag may be quiet for hours."""
        missing, found = list(names), {}
        for block in reversed(blocks):
            if not missing or since_ns - block.t1_ns > JOINED_NS:
                break
            since_ns = block.t0_ns
            try:
                rows = _rows(block.path, missing)
            except SHEETS:
                continue
            for i, name in enumerate(missing):
                mine = np.flatnonzero(rows.column == i)
                if len(mine):
                    at = mine[-1]
                    value = float(rows.value[at])
                    found[name] = int(rows.t_ns[at]), value, int(rows.quality[at]), UNSEEN_NS, value
            missing = [name for name in missing if name not in found]
        return found

    # -- surprise

    def _judged(self, block: Block) -> Judged:
        if block.path not in self._surprises:
            if len(self._surprises) >= SURPRISES_KEPT:
                del self._surprises[next(iter(self._surprises))]
            self._surprises[block.path] = _judged(block.path / SURPRISE)
        return self._surprises[block.path]

    # -- media

    def _read_media(self, block: Block, signal: Signal, t_ns: int, length_s: float) -> list[NDArray[np.generic]]:
        from fusion.recordings.media import samples_between

        file = block.path / MEDIA
        if not file.is_file():
            return []
        known = pl.col("signal") == signal.name, pl.col("received_ns") <= t_ns
        try:
            index = pl.read_parquet(block.path / MEDIA_INDEX).filter(*known)["received_ns"].sort()
        except SHEETS as error:
            raise RecordingError(f"{block.path / MEDIA_INDEX}: {error}") from error
        if not len(index) or t_ns - index[-1] > self._patience_ns(signal):
            return []
        needed = KEY_EVERY if signal.modality is Modality.VIDEO else 1
        since_ns = min(index[-min(needed, len(index))], t_ns - round(length_s * NS_PER_S))
        found = [sample.value for sample in samples_between(file, signal, since_ns, index[-1] + 1)]
        return found if length_s else found[-1:]


def _judged(file: Path) -> Judged:
    if not file.is_file():
        return {}
    largest = pl.col("factor").max()
    try:
        rows = pl.scan_parquet(file).group_by("sense", "t_ns").agg(largest).sort("t_ns").collect()
    except SHEETS as error:
        log.warning("history: %s is left out: %s", file, str(error).partition("\n")[0])
        return {}
    senses = rows.partition_by("sense", as_dict=True)
    return {str(sense): (own["t_ns"].to_numpy(), own["factor"].to_numpy()) for (sense,), own in senses.items()}


def _folders(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if path.is_dir() and path.name != OPEN and not path.suffix]
    except OSError:
        return []


def _rows(path: Path, names: Sequence[str]) -> Rows:
    """Process values of these tags by their place among them; stamps of foreign clocks give way to the arrival."""
    table = _of(path / PROCESS, names, ["t_ns", "received_ns", "value", "quality"])
    arrival, stamp = table["received_ns"].to_numpy(), table["t_ns"].to_numpy()
    value = table["value"].to_numpy()
    finite = np.isfinite(value)
    quality = np.where(finite, table["quality"].to_numpy(), np.uint8(Quality.BAD)).astype(np.uint8)
    known = np.where(np.abs(arrival - stamp) < FOREIGN_NS, stamp, arrival)
    return Rows(table["place"].to_numpy().astype(np.int64), known, arrival, np.where(finite, value, 0.0), quality)


def _beats(path: Path, names: Sequence[str]) -> Heartbeats:
    if not (path / HEARTBEATS).is_file():
        return Heartbeats(np.empty(0, np.int64), np.empty(0, np.int64))
    table = _of(path / HEARTBEATS, names, ["received_ns"])
    return Heartbeats(table["place"].to_numpy().astype(np.int64), table["received_ns"].to_numpy())


def _of(file: Path, names: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    """The rows of these signals in order of arrival, with the ``place`` of each signal among them."""
    signal = pl.col("signal").cast(pl.String)
    place = signal.replace_strict(list(names), list(range(len(names))), return_dtype=pl.Int64).alias("place")
    return pl.scan_parquet(file).filter(signal.is_in(list(names))).select(place, *columns).collect()
