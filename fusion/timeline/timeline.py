"""The timeline: samples out of order in, frames on a fixed grid out.

Event time with a watermark over the sources that are active, a hard deadline, age, coverage, quality and one offset
model per clock. No asyncio, no torch, no wall clock: ``advance`` is told what time it is. Frames depend on items and
their arrival times alone: whoever pushes everything that arrived before ``now`` gets the same ones at any cadence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant
from fusion.records import NS_PER_S, Frame, Item, Quality, Sample
from fusion.timeline.arrivals import Arrivals, Arrived
from fusion.timeline.clock_models import ClockModel, Flag
from fusion.timeline.laggards import Laggards
from fusion.timeline.media import track
from fusion.timeline.process import Heartbeats, Held, ProcessGrid, Rows, empty_grid, hold
from fusion.timeline.watermark import NEVER_NS, closing_ns

Ints = NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class TimelineConfig:
    """How long a tick waits, in seconds.

    Nothing that is less than ``lateness_s`` late misses its tick. Sources that are later than that hold a tick back
    until they reach it, but not beyond ``deadline_s``, and not once silent for ``idle_after_s``. A clock is corrected
    where it is off by more than ``skew_tolerance_s``. Ticks stop ``longest_gap_s`` after the last arrival, or two steps
    of the plant where those are longer. While nobody advances, ``capacity_s`` of each medium and ``capacity_rows``
    process values are kept, the newest ones.
    """

    lateness_s: float = 0.15
    idle_after_s: float = 3.0
    deadline_s: float = 1.5
    skew_tolerance_s: float = 0.5
    longest_gap_s: float = 60.0
    capacity_s: float = 120.0
    capacity_rows: int = 1_000_000

    def __post_init__(self) -> None:
        """Reject waits that contradict each other."""
        if not 0.0 <= self.lateness_s < self.deadline_s:
            raise ConfigError(f"timeline.lateness_s: {self.lateness_s} must lie between 0 and deadline_s")
        if self.idle_after_s < self.deadline_s:
            raise ConfigError(f"timeline.idle_after_s: {self.idle_after_s} must not be below deadline_s")
        if self.skew_tolerance_s <= 0:
            raise ConfigError(f"timeline.skew_tolerance_s: {self.skew_tolerance_s} must be positive")
        if self.longest_gap_s <= self.deadline_s or self.capacity_s <= self.deadline_s or self.capacity_rows < 1:
            raise ConfigError("timeline: longest_gap_s and capacity_s must be above deadline_s, capacity_rows positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineHealth:
    """Counts since start by signal, and what is known of each clock [s].

    ``late`` missed their tick, ``duplicates`` repeat a stamp, ``bad`` were masked, ``dropped`` were unknown, of a
    foreign shape or too many. ``clock_offset_s`` is the smallest delay of the last minute, ``skewed`` are the clocks
    that are suspected or corrected and the signals that lag behind a clock they share, ``clock_of`` tells which clock
    stamps a signal.
    """

    late: Mapping[str, int]
    duplicates: Mapping[str, int]
    bad: Mapping[str, int]
    dropped: Mapping[str, int]
    clock_offset_s: Mapping[str, float]
    clock_steps: Mapping[str, int]
    clock_of: Mapping[str, str]
    skewed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Closed:
    """Ticks that close together, the moment at which each did, their flags and process values."""

    moments: Ints
    flags: Sequence[tuple[str, ...]]
    grid: ProcessGrid


class Timeline:
    """Push items in any order, advance, and get each tick once, in order."""

    def __init__(self, plant: Plant, config: TimelineConfig | None = None) -> None:
        self._config = c = config or TimelineConfig()
        self._step_ns = round(plant.step_s * NS_PER_S)
        self._step_s = plant.step_s
        self._process = plant.of(Modality.PROCESS)
        self._tracks = {s.name: track(s, self._step_ns) for s in plant.media}
        self._lateness_ns, self._gap_ns = (
            round(c.lateness_s * NS_PER_S),
            max(round(c.longest_gap_s * NS_PER_S), 2 * self._step_ns),
        )
        self._intake = Arrivals(
            plant,
            self._tracks,
            lambda: ClockModel(tolerance_s=c.skew_tolerance_s),
            margin_ns=self._lateness_ns,
            capacity_s=c.capacity_s,
            capacity_rows=c.capacity_rows,
        )
        self._laggards = Laggards(self._process)
        self._names = tuple(s.name for s in self._process)
        self._held = Held.before(self._process)
        self._rows = Rows.concat([])
        self._beats = Heartbeats.concat([])
        self._media: list[Arrived] = []
        self._arrivals: Ints = np.empty(0, np.int64)
        self._late, self._duplicates, self._bad = Counter[str](), Counter[str](), Counter[str]()
        self._nothing = _Closed(np.empty(0, np.int64), (), empty_grid(len(self._process)))
        self._tick_ns: int | None = None
        self._first_ns = self._moment_ns = 0

    def push(self, item: Item) -> None:
        """Take one item; what is unknown to the plant or not usable is counted, what tells of a gap is left out."""
        if isinstance(item, Sample):
            self._intake.push_sample(item)
        elif not item.backfilled:
            self._intake.push_columns(item)

    def advance(self, now_ns: int) -> list[Frame]:
        """Close every tick whose moment came before ``now_ns`` [UTC ns of arrival]."""
        return self._frames(self._advance(now_ns))

    def flush(self) -> list[Frame]:
        """Close every tick up to the newest arrival: nothing more will come."""
        return self._frames(self._flush())

    def advance_process(self, now_ns: int) -> ProcessGrid:
        """Close ticks as ``advance`` does, process values only: the bulk way."""
        return self._advance(now_ns).grid

    def flush_process(self) -> ProcessGrid:
        """Close ticks as ``flush`` does, process values only."""
        return self._flush().grid

    def health(self) -> TimelineHealth:
        """What was counted and what is known of the clocks."""
        clocks = self._intake.clocks
        return TimelineHealth(
            late=dict(self._late),
            duplicates=dict(self._duplicates),
            bad=dict(self._bad),
            dropped=dict(self._intake.dropped),
            clock_offset_s={name: clock.smallest_s for name, clock in clocks.items()},
            clock_steps={name: clock.steps for name, clock in clocks.items()},
            clock_of=dict(self._intake.clock_of),
            skewed=tuple(sorted([*(name for name, clock in clocks.items() if clock.flag.up), *self._laggards.now])),
        )

    # --- closing

    def _advance(self, now_ns: int) -> _Closed:
        last_ns = now_ns - self._lateness_ns - 1
        if self._tick_ns is not None and last_ns < self._tick_ns:
            return self._nothing
        self._take_in(now_ns)
        return self._close(last_ns, now_ns)

    def _flush(self) -> _Closed:
        newest_ns = max(self._intake.newest_ns(), int(self._arrivals.max(initial=0)))
        self._take_in(newest_ns + 1)
        return self._close(newest_ns, NEVER_NS)

    def _take_in(self, now_ns: int) -> None:
        news = self._intake.take(now_ns)
        self._laggards.take(news.rows)
        self._rows = Rows.concat([self._rows, news.rows])
        self._beats = Heartbeats.concat([self._beats, news.beats])
        self._media += news.media
        self._arrivals = np.concatenate([self._arrivals, news.arrivals])
        if self._tick_ns is None and len(self._arrivals):
            self._tick_ns = self._first_ns = self._tick_of(int(self._arrivals[0]))

    def _tick_of(self, t_ns: int) -> int:
        return -(-t_ns // self._step_ns) * self._step_ns

    def _close(self, last_ns: int, now_ns: int) -> _Closed:
        """Close the ticks up to ``last_ns`` whose moment came before ``now_ns``."""
        ticks = self._candidates(last_ns)
        if not len(ticks):
            return self._nothing
        moments = closing_ns(
            ticks,
            self._intake.sources.values(),
            lateness_ns=self._lateness_ns,
            deadline_ns=round(self._config.deadline_s * NS_PER_S),
            idle_ns=round(self._config.idle_after_s * NS_PER_S),
            after_ns=self._moment_ns,
        )
        ticks, moments = ticks[moments < now_ns], moments[moments < now_ns]
        if not len(ticks):
            return self._nothing
        flags = self._flags(ticks, moments)
        self._hand_out_media(ticks, moments)
        closed = _Closed(moments, flags, self._hold(ticks, moments))
        self._tick_ns, self._moment_ns = int(ticks[-1]) + self._step_ns, int(moments[-1])
        self._forget(self._tick_ns)
        return closed

    def _candidates(self, last_ns: int) -> Ints:
        """Ticks not closed yet, up to ``last_ns``, without those after a long silence."""
        if self._tick_ns is None or last_ns < self._tick_ns:
            return np.empty(0, np.int64)
        arrivals = self._arrivals
        breaks = np.flatnonzero(np.diff(arrivals) > self._gap_ns)
        starts, ends = arrivals[[0, *(breaks + 1)]], arrivals[[*breaks, -1]]
        parts = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            stop = min(last_ns, end + self._gap_ns) + 1
            parts.append(np.arange(max(self._tick_ns, self._tick_of(start)), stop, self._step_ns, dtype=np.int64))
        return np.concatenate(parts)

    def _flags(self, ticks: Ints, moments: Ints) -> list[tuple[str, ...]]:
        flags: list[tuple[str, ...]] = [()] * len(ticks)
        expected = np.concatenate([[self._tick_ns], ticks[:-1] + self._step_ns])
        for skipped in np.flatnonzero(ticks != expected).tolist():
            flags[skipped] = ("gap",)
        for name, flag in sorted(self._all_flags().items()):
            if flag.ever:
                for i, moment in enumerate(moments.tolist()):
                    flags[i] += (f"clock:{name}",) if flag.up_at(moment) else ()
        return flags

    def _all_flags(self) -> dict[str, Flag]:
        """Of clocks, and of signals that lag behind theirs."""
        return {name: clock.flag for name, clock in self._intake.clocks.items()} | self._laggards.flags

    def _forget(self, tick_ns: int) -> None:
        """Drop what no later tick can need."""
        keep = max(0, int(np.searchsorted(self._arrivals, tick_ns, side="right")) - 1)
        self._arrivals = self._arrivals[keep:]
        for source in self._intake.sources.values():
            source.forget(tick_ns + self._lateness_ns)
        for flag in self._all_flags().values():
            flag.forget(self._moment_ns)

    def _hand_out_media(self, ticks: Ints, moments: Ints) -> None:
        """Give media that arrived in time to their tracks; those that came after the last moment wait."""
        waiting = []
        closing, open_ns = moments.tolist(), ticks.tolist()
        for medium in self._media:
            at = bisect_left(closing, medium.arrival_ns)
            if at == len(closing):
                waiting.append(medium)
                continue
            name, sample = medium.sample.signal, medium.sample
            verdict = self._tracks[name].add(sample, medium.t_ns, open_ns[at])
            if verdict == "duplicate":
                self._duplicates[name] += 1
            elif verdict == "late":
                self._late[name] += 1
            if sample.quality == Quality.BAD:
                self._bad[name] += 1
        self._media = waiting

    def _hold(self, ticks: Ints, moments: Ints) -> ProcessGrid:
        """Process values on the ticks, and counts of rows that were late, bad or repeated."""
        rows = self._rows
        open_at = np.searchsorted(moments, rows.arrival_ns, side="left")
        due = np.maximum(open_at, np.searchsorted(ticks, rows.t_ns, side="left"))
        beats_due = np.searchsorted(ticks, self._beats.t_ns, side="left")
        ready, beating = due < len(ticks), beats_due < len(ticks)
        beats, self._beats = self._beats[beating], self._beats[~beating]
        self._rows, rows, due, open_at = rows[~ready], rows[ready], due[ready], open_at[ready]
        meant = np.maximum(-(-rows.t_ns // self._step_ns) * self._step_ns, self._first_ns)
        self._count(self._late, rows.column[meant < ticks[open_at]])
        self._count(self._bad, rows.column[rows.quality == Quality.BAD])
        grid, repeated = hold(ticks, self._process, rows, due, beats, beats_due[beating], self._held, self._step_s)
        self._duplicates.update({self._process[i].name: int(n) for i, n in enumerate(repeated) if n})
        return grid

    def _count(self, counter: Counter[str], column: Ints) -> None:
        counter.update({self._process[i].name: int(n) for i, n in enumerate(np.bincount(column)) if n})

    # --- frames

    def _frames(self, closed: _Closed) -> list[Frame]:
        return [self._frame(closed, i) for i in range(len(closed.moments))]

    def _frame(self, closed: _Closed, i: int) -> Frame:
        grid = closed.grid
        t_ns = int(grid.t_ns[i])
        return Frame(
            t_ns=t_ns,
            signals=self._names,
            value_S=grid.value[i],
            observed_S=grid.observed[i],
            age_s_S=grid.age_s[i],
            quality_S=grid.quality[i],
            coverage_S=grid.coverage[i],
            media={name: medium.take(t_ns) for name, medium in self._tracks.items()},
            flags=closed.flags[i],
        )
