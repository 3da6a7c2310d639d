"""Samples out of order in, frames on a fixed grid out.

Event time with a watermark over the sources that are active, a hard deadline, age, coverage, quality and one offset
model per clock. No asyncio, no torch, no wall clock: ``advance`` is told what time it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusion.clocks import ClockModel
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Signal
from fusion.records import NS_PER_S, Columns, Frame, Item, Quality, Sample
from fusion.tracks import Assembled, AudioTrack, CloudTrack, PictureTrack

Ints = NDArray[np.int64]
Track = AudioTrack | CloudTrack | PictureTrack


@dataclass(kw_only=True, slots=True)
class TimelineConfig:
    """How long a tick waits.

    A source may be ``lateness_s`` late while it is active; one that was silent for ``idle_after_s`` is not waited for;
    no tick waits longer than ``deadline_s``. A clock is corrected where it is off by more than ``skew_tolerance_s``.
    ``longest_gap_s`` without any tick is skipped instead of filled.
    """

    lateness_s: float = 0.15
    idle_after_s: float = 3.0
    deadline_s: float = 1.5
    skew_tolerance_s: float = 0.5
    longest_gap_s: float = 60.0

    def __post_init__(self) -> None:
        """Reject waits that contradict each other."""
        if not 0.0 <= self.lateness_s < self.deadline_s:
            raise ConfigError("timeline: lateness_s must lie between 0 and deadline_s")
        if self.idle_after_s <= 0 or self.skew_tolerance_s <= 0 or self.longest_gap_s <= self.deadline_s:
            raise ConfigError(
                "timeline: idle_after_s, skew_tolerance_s must be positive, longest_gap_s above deadline_s"
            )

    def build(self, plant: Plant) -> "Timeline":
        """A timeline for a plant."""
        return Timeline(plant, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineHealth:
    """Counts since start by signal, and what is known of each clock [s]; ``skewed`` are the clocks being corrected."""

    late: Mapping[str, int]
    duplicates: Mapping[str, int]
    bad: Mapping[str, int]
    dropped: Mapping[str, int]
    clock_offset_s: Mapping[str, float]
    skewed: tuple[str, ...]


@dataclass(slots=True)
class Held:
    """The last value of each of S process signals: stamp, value, quality, and when it was last confirmed."""

    t_ns: Ints
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    confirmed_ns: Ints

    @classmethod
    def nothing(cls, signals: int) -> "Held":
        """Before the first value."""
        never = np.full(signals, np.iinfo(np.int64).min // 2)
        return cls(never, np.zeros(signals), np.zeros(signals, np.uint8), never.copy())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGrid:
    """Process values on T ticks: last known ``value``, its ``age_s``, ``quality`` and fresh ``coverage``, each [T, S]."""

    t_ns: Ints
    value: NDArray[np.float64]
    age_s: NDArray[np.float64]
    quality: NDArray[np.uint8]
    coverage: NDArray[np.float64]


@dataclass(slots=True)
class _Progress:
    """How far a source has come: its newest stamp and its last arrival."""

    t_ns: int = 0
    received_ns: int = 0


@dataclass(slots=True)
class _Counts:
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


class Timeline:
    """Push items in any order, advance, and get each tick once, in order."""

    def __init__(self, plant: Plant, config: TimelineConfig | None = None) -> None:
        self._plant = plant
        self._config = config or TimelineConfig()
        self._step_ns = int(plant.step_s * NS_PER_S)
        self._process = plant.of(Modality.PROCESS)
        self._column = {s.name: i for i, s in enumerate(self._process)}
        self._tracks: dict[str, Track] = {s.name: _track(s, self._step_ns) for s in plant.media}
        self._held = Held.nothing(len(self._process))
        self._rows: list[tuple[Ints, Ints, NDArray[np.float64], NDArray[np.uint8], str]] = []
        self._media: list[Sample] = []
        self._clocks: defaultdict[str, ClockModel] = defaultdict(self._new_clock)
        self._progress: dict[str, _Progress] = {}
        self._counts = _Counts()
        self._tick_ns: int | None = None
        self._newest_ns = 0

    def _new_clock(self) -> ClockModel:
        return ClockModel(tolerance_s=self._config.skew_tolerance_s)

    def push(self, item: Item) -> None:
        """Take one item; what is unknown to the plant or not usable is counted."""
        if isinstance(item, Sample):
            self._push_sample(item)
        else:
            self._push_columns(item)

    def _push_sample(self, sample: Sample) -> None:
        if sample.signal not in self._tracks:
            self._counts.dropped[sample.signal] += 1
            return
        track = self._tracks[sample.signal]
        end_ns = track.end_ns(sample)
        self._arrived(sample.signal, sample.clock or sample.signal, end_ns, sample.received_ns)
        self._media.append(sample)

    def _push_columns(self, batch: Columns) -> None:
        clock = batch.clock or "process"
        columns = np.array([self._column.get(name, -1) for name in batch.signals], np.int64)
        if batch.heartbeat_ns is not None:
            known = columns[columns >= 0]
            self._held.confirmed_ns[known] = np.maximum(self._held.confirmed_ns[known], batch.heartbeat_ns)
            self._advance_source(clock, batch.heartbeat_ns, batch.heartbeat_ns)
            self._start(batch.heartbeat_ns)
        if not len(batch):
            return
        column = columns[batch.index]
        for i in np.flatnonzero(np.bincount(batch.index[column < 0], minlength=len(batch.signals))):
            self._counts.dropped[batch.signals[i]] += int((batch.index == i).sum())
        keep = column >= 0
        if not keep.any():
            return
        t_ns = batch.t_ns[keep]
        received = int(batch.received_ns[keep].max())
        self._see(clock, batch.received_ns[keep], t_ns)
        self._advance_source(clock, int(t_ns.max()) + self._clocks[clock].offset_ns, received)
        self._start(received)
        finite = np.isfinite(batch.value[keep])
        quality = np.where(finite, batch.quality[keep], Quality.BAD).astype(np.uint8)
        self._rows.append((column[keep], t_ns, np.where(finite, batch.value[keep], 0.0), quality, clock))

    def _see(self, clock: str, received_ns: Ints, t_ns: Ints) -> None:
        delay = received_ns - t_ns
        seconds = received_ns // NS_PER_S
        for second in np.unique(seconds):
            at = seconds == second
            self._clocks[clock].see(int(received_ns[at].max()), int(delay[at].min()))

    def _arrived(self, source: str, clock: str, end_ns: int, received_ns: int) -> None:
        self._clocks[clock].see(received_ns, received_ns - end_ns)
        self._advance_source(source, end_ns + self._clocks[clock].offset_ns, received_ns)
        self._start(received_ns)

    def _advance_source(self, source: str, t_ns: int, received_ns: int) -> None:
        progress = self._progress.setdefault(source, _Progress())
        progress.t_ns = max(progress.t_ns, t_ns)
        progress.received_ns = max(progress.received_ns, received_ns)
        self._newest_ns = max(self._newest_ns, received_ns)

    def _start(self, received_ns: int) -> None:
        """The grid begins with the tick in which the first item arrived."""
        if self._tick_ns is None:
            self._tick_ns = -(-received_ns // self._step_ns) * self._step_ns

    def advance(self, now_ns: int) -> list[Frame]:
        """Close every tick that is due at ``now_ns`` [UTC ns of arrival]."""
        if self._tick_ns is None:
            return []
        due = min(self._watermark(now_ns), now_ns)
        due = max(due, now_ns - int(self._config.deadline_s * NS_PER_S))
        return self._close(due // self._step_ns * self._step_ns)

    def flush(self) -> list[Frame]:
        """Close every tick up to the newest arrival."""
        return [] if self._tick_ns is None else self._close(self._newest_ns // self._step_ns * self._step_ns)

    def health(self) -> TimelineHealth:
        """What was counted and what is known of the clocks."""
        clocks = {name: clock.smallest_s for name, clock in self._clocks.items()}
        skewed = tuple(sorted(name for name, clock in self._clocks.items() if clock.skewed))
        counts = self._counts
        return TimelineHealth(
            late=dict(counts.late),
            duplicates=dict(counts.duplicates),
            bad=dict(counts.bad),
            dropped=dict(counts.dropped),
            clock_offset_s=clocks,
            skewed=skewed,
        )

    def _watermark(self, now_ns: int) -> int:
        """The time up to which every active source has delivered."""
        idle_ns = int(self._config.idle_after_s * NS_PER_S)
        active = [p.t_ns for p in self._progress.values() if now_ns - p.received_ns <= idle_ns]
        return min(active, default=now_ns) - int(self._config.lateness_s * NS_PER_S)

    def _close(self, last_ns: int) -> list[Frame]:
        assert self._tick_ns is not None  # noqa: S101 - callers check
        if last_ns < self._tick_ns:
            return []
        first_ns, flags = self._tick_ns, self._flags()
        longest = int(self._config.longest_gap_s * NS_PER_S)
        if last_ns - first_ns > longest and not (self._rows or self._media):
            first_ns = last_ns
            flags = (*flags, "gap")
        ticks = np.arange(first_ns, last_ns + 1, self._step_ns, dtype=np.int64)
        self._tick_ns = int(last_ns) + self._step_ns
        grid = self._close_process(ticks)
        self._sort_media(first_ns - self._step_ns)
        frames = [self._frame(grid, i, flags) for i in range(len(ticks))]
        self._media.clear()
        return frames

    def _flags(self) -> tuple[str, ...]:
        return tuple(f"clock:{name}" for name in sorted(self._clocks) if self._clocks[name].skewed)

    def _close_process(self, ticks: Ints) -> ProcessGrid:
        rows = self._rows
        self._rows = []
        if not rows:
            return hold(ticks, _no_rows(), self._held, self._step_ns)
        column = np.concatenate([r[0] for r in rows])
        t_ns = np.concatenate([r[1] + self._offset_ns(r[4]) for r in rows])
        value, quality = np.concatenate([r[2] for r in rows]), np.concatenate([r[3] for r in rows])
        order = np.lexsort((value, t_ns))
        column, t_ns, value, quality = column[order], t_ns[order], value[order], quality[order]
        later = t_ns > ticks[-1]
        if later.any():
            self._rows.append((column[later], t_ns[later], value[later], quality[later], _MAPPED))
        now = ~later
        usable = self._count(column[now], t_ns[now], quality[now], int(ticks[0]) - self._step_ns)
        part = tuple(a[now][usable] for a in (column, t_ns, value, quality))
        return hold(ticks, part, self._held, self._step_ns)  # type: ignore[arg-type]

    def _offset_ns(self, clock: str) -> int:
        return 0 if clock == _MAPPED else self._clocks[clock].offset_ns

    def _count(self, column: Ints, t_ns: Ints, quality: NDArray[np.uint8], closed_ns: int) -> NDArray[np.bool_]:
        """Count late, bad and repeated rows; returns which rows are new."""
        key = np.stack([column, t_ns])
        _, first = np.unique(key, axis=1, return_index=True)
        new = np.zeros(len(column), np.bool_)
        new[first] = True
        new &= t_ns > self._held.t_ns[column]
        names = [s.name for s in self._process]
        late = t_ns <= closed_ns
        for counter, mask in (
            (self._counts.duplicates, ~new & ~late),
            (self._counts.late, late),
            (self._counts.bad, quality == 0),
        ):
            for i, n in enumerate(np.bincount(column[mask], minlength=0)):
                if n:
                    counter[names[i]] += int(n)
        return new

    def _sort_media(self, closed_ns: int) -> None:
        """Give waiting media to their tracks, in order of time."""
        for sample in sorted(self._media, key=lambda s: (s.signal, s.t_ns)):
            offset = self._clocks[sample.clock or sample.signal].offset_ns
            verdict = self._tracks[sample.signal].add(sample, sample.t_ns + offset, closed_ns)
            if verdict == "late":
                self._counts.late[sample.signal] += 1
            elif verdict == "duplicate":
                self._counts.duplicates[sample.signal] += 1

    def _frame(self, grid: ProcessGrid, i: int, flags: tuple[str, ...]) -> Frame:
        values: dict[str, float | NDArray[np.generic]] = {}
        age: dict[str, float] = {}
        coverage: dict[str, float] = {}
        quality: dict[str, Quality] = {}
        for j, signal in enumerate(self._process):
            if grid.quality[i, j] != Quality.BAD and grid.age_s[i, j] <= signal.stale_after_s:
                values[signal.name] = float(grid.value[i, j])
            if grid.age_s[i, j] < _NEVER_S:
                age[signal.name] = float(grid.age_s[i, j])
                quality[signal.name] = Quality(int(grid.quality[i, j]))
            coverage[signal.name] = float(grid.coverage[i, j])
        for name, track in self._tracks.items():
            part: Assembled | None = track.take(int(grid.t_ns[i]))
            coverage[name] = part.coverage if part else 0.0
            if part is not None:
                values[name], age[name], quality[name] = part.value, part.age_s, part.quality
        return Frame(t_ns=int(grid.t_ns[i]), values=values, age_s=age, coverage=coverage, quality=quality, flags=flags)


_MAPPED = "\0mapped"
_NEVER_S = 1e8
_Rows = tuple[Ints, Ints, NDArray[np.float64], NDArray[np.uint8]]


def _no_rows() -> _Rows:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8)


def _track(signal: Signal, step_ns: int) -> Track:
    kinds: dict[Modality, type[Track]] = {
        Modality.VIDEO: PictureTrack,
        Modality.AUDIO: AudioTrack,
        Modality.LIDAR: CloudTrack,
    }
    return kinds[signal.modality](signal, step_ns)


def hold(ticks: Ints, rows: _Rows, held: Held, step_ns: int) -> ProcessGrid:
    """Zero-order hold of rows (column, stamp, value, quality; ordered by stamp) on ticks; the one core, live and bulk.

    ``held`` is what was known before and is brought up to date.
    """
    column, t_ns, value, quality = rows
    shape = (len(ticks), len(held.t_ns))
    grid = ProcessGrid(
        t_ns=ticks,
        value=np.empty(shape),
        age_s=np.empty(shape),
        quality=np.empty(shape, np.uint8),
        coverage=np.empty(shape),
    )
    by_column = np.argsort(column, kind="stable")
    bounds = np.searchsorted(column[by_column], np.arange(shape[1] + 1))
    for s in range(shape[1]):
        mine = by_column[bounds[s] : bounds[s + 1]]
        _hold_one(grid, s, t_ns[mine], value[mine], quality[mine], held, step_ns)
    return grid


def _hold_one(
    grid: ProcessGrid,
    s: int,
    t_ns: Ints,
    value: NDArray[np.float64],
    quality: NDArray[np.uint8],
    held: Held,
    step_ns: int,
) -> None:
    stamps = np.concatenate([held.t_ns[s : s + 1], t_ns])
    at = np.searchsorted(stamps[1:], grid.t_ns, side="right")
    confirmed = np.minimum(np.maximum(held.confirmed_ns[s], stamps[at]), grid.t_ns)
    grid.value[:, s] = np.concatenate([held.value[s : s + 1], value])[at]
    grid.quality[:, s] = np.concatenate([held.quality[s : s + 1], quality])[at]
    grid.age_s[:, s] = (grid.t_ns - confirmed) / NS_PER_S
    before = np.searchsorted(stamps[1:], grid.t_ns - step_ns, side="right")
    grid.coverage[:, s] = np.minimum(1, at - before)
    if len(t_ns):
        held.t_ns[s], held.value[s], held.quality[s] = t_ns[-1], value[-1], quality[-1]
        held.confirmed_ns[s] = max(held.confirmed_ns[s], t_ns[-1])
