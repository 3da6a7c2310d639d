"""What has arrived and was not used yet: bounded queues, stamps mapped by the model of their clock, progress."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.records import NS_PER_S, Columns, Sample
from fusion.timeline.clock_models import ClockModel
from fusion.timeline.media import Track
from fusion.timeline.process import LATEST_NS, Heartbeats, Rows, columns_of, process_rows
from fusion.timeline.watermark import Reach

Ints = NDArray[np.int64]
PROCESS_CLOCK = "process"
KNOWN_BATCHES = 256


@dataclass(frozen=True, slots=True)
class Arrived:
    """A medium with its stamp mapped to the receiver's clock."""

    sample: Sample
    t_ns: int
    arrival_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What arrived since the last time: rows, heartbeats, media and all arrival times, each in order of arrival."""

    rows: Rows
    beats: Heartbeats
    media: Sequence[Arrived]
    arrivals: Ints


@dataclass(slots=True)
class _Batch:
    """What one push of process values brought: rows, and the columns ``alive`` at ``heartbeat_ns``."""

    source: tuple[str, int]
    rows: Rows
    heartbeat_ns: int | None
    alive: Ints


@dataclass(slots=True)
class _Group:
    """Arrivals of one source, in order: stamps of their ends, and when heartbeats came; either rows or samples."""

    source: tuple[str, int]
    clock: str
    arrival_ns: Ints
    end_ns: Ints
    beats: Heartbeats
    rows: Rows | None = None
    samples: Sequence[Sample] = ()


class Arrivals:
    """Takes items in any order and gives them out in order of arrival, each once.

    A source is a medium, or the process signals of one clock and period. It is known to have delivered everything up
    to one period after its newest stamp, less ``margin_ns`` for what is out of order.
    """

    def __init__(
        self,
        plant: Plant,
        tracks: dict[str, Track],
        new_clock: Callable[[], ClockModel],
        *,
        margin_ns: int,
        capacity_s: float,
        capacity_rows: int,
    ) -> None:
        self._plant = plant
        self._process = plant.of(Modality.PROCESS)
        self._tracks = tracks
        self._new_clock = new_clock
        self._margin_ns = margin_ns
        self._capacity_rows = capacity_rows
        self._media = {s.name: deque[Sample](maxlen=int(capacity_s / s.period_s) + 1) for s in plant.media}
        self._batches: deque[_Batch] = deque()
        self._known: dict[tuple[tuple[str, ...], str], tuple[Ints, tuple[str, int]]] = {}
        self._waiting_rows = 0
        self._taken_ns = 0
        self.clocks: dict[str, ClockModel] = {}
        self.clock_of: dict[str, str] = {}
        self.sources: dict[tuple[str, int], Reach] = {}
        self.dropped: Counter[str] = Counter()

    # --- push

    def push_sample(self, sample: Sample) -> None:
        """Queue a medium; of a full queue the oldest goes."""
        queue = self._media.get(sample.signal)
        if queue is None or not self._tracks[sample.signal].accepts(sample.value):
            self.dropped[sample.signal] += 1
            return
        if len(queue) == queue.maxlen:
            self.dropped[sample.signal] += 1
        queue.append(sample)

    def push_columns(self, batch: Columns) -> None:
        """Queue process values and news of being alive."""
        columns, source = self._source(batch)
        rows = process_rows(columns, batch)
        unknown = rows.column < 0
        if unknown.any():
            self._drop(batch.index[unknown], batch.signals)
            rows = rows[~unknown]
        alive = columns[columns >= 0]
        if not len(alive) or not (len(rows) or batch.heartbeat_ns is not None):
            return
        self._batches.append(_Batch(source, rows, batch.heartbeat_ns, alive))
        self._waiting_rows += len(rows)
        while self._waiting_rows > self._capacity_rows and len(self._batches) > 1:
            oldest = self._batches.popleft()
            self._waiting_rows -= len(oldest.rows)
            self._drop(oldest.rows.column, [s.name for s in self._process])

    def _source(self, batch: Columns) -> tuple[Ints, tuple[str, int]]:
        """The columns of a batch's signals, and the source it is from."""
        key = (batch.signals, batch.clock)
        if key not in self._known:
            columns = columns_of(self._plant, batch.signals)
            clock = batch.clock or PROCESS_CLOCK
            signals = [self._process[i] for i in columns if i >= 0]
            self.clock_of.update({signal.name: clock for signal in signals})
            period_s = max((signal.period_s for signal in signals), default=0.0)
            if len(self._known) >= KNOWN_BATCHES:
                self._known.clear()
            self._known[key] = columns, (clock, round(period_s * NS_PER_S))
        return self._known[key]

    def _drop(self, column: NDArray[np.integer], names: Sequence[str]) -> None:
        self.dropped.update({names[i]: int(n) for i, n in enumerate(np.bincount(column)) if n})

    # --- take

    def newest_ns(self) -> int:
        """The newest arrival that waits here; zero where nothing does."""
        media = [sample.received_ns for queue in self._media.values() for sample in queue]
        rows = [int(batch.rows.arrival_ns.max()) for batch in self._batches if len(batch.rows)]
        beats = [batch.heartbeat_ns for batch in self._batches if batch.heartbeat_ns is not None]
        return max([*media, *rows, *beats], default=0)

    def take(self, now_ns: int) -> News:
        """What arrived before ``now_ns``; what is pushed after its arrival time was taken counts as arriving then."""
        groups = [*self._process_groups(now_ns), *self._media_groups(now_ns)]
        self._taken_ns = max(self._taken_ns, now_ns)
        by_clock: defaultdict[str, list[_Group]] = defaultdict(list)
        for group in groups:
            by_clock[group.clock].append(group)
        rows, media = [], []
        for clock, members in by_clock.items():
            for group, shift_ns in zip(members, self._shifts(clock, members), strict=True):
                self._note_progress(group, shift_ns)
                if group.rows is not None:
                    rows.append(replace(group.rows, t_ns=group.rows.t_ns + shift_ns))
                arrived = zip(group.samples, shift_ns.tolist(), group.arrival_ns.tolist(), strict=False)
                media += [Arrived(sample, sample.t_ns + shift, arrival) for sample, shift, arrival in arrived]
        every = [np.concatenate([group.arrival_ns, group.beats.t_ns]) for group in groups]
        return News(
            rows=rows[0] if len(rows) == 1 else _in_order(Rows.concat(rows)),
            beats=Heartbeats.concat([group.beats for group in groups]),
            media=sorted(media, key=lambda m: m.arrival_ns),
            arrivals=np.sort(np.concatenate([np.empty(0, np.int64), *every])),
        )

    def _process_groups(self, now_ns: int) -> Iterable[_Group]:
        due: defaultdict[tuple[str, int], list[_Batch]] = defaultdict(list)
        waiting = list(self._batches)
        self._batches.clear()
        for batch in waiting:
            now, later = _split(batch, now_ns)
            if now is not None:
                due[batch.source].append(now)
            if later is not None:
                self._batches.append(later)
        self._waiting_rows = sum(len(batch.rows) for batch in self._batches)
        for source, batches in due.items():
            rows = Rows.concat([batch.rows for batch in batches])
            rows = _in_order(replace(rows, arrival_ns=np.maximum(rows.arrival_ns, self._taken_ns)))
            beats = [
                Heartbeats(b.alive, np.full(len(b.alive), b.heartbeat_ns))
                for b in batches
                if b.heartbeat_ns is not None
            ]
            yield _Group(source, source[0], rows.arrival_ns, rows.t_ns, Heartbeats.concat(beats), rows)

    def _media_groups(self, now_ns: int) -> Iterable[_Group]:
        for name, queue in self._media.items():
            due: defaultdict[str, list[Sample]] = defaultdict(list)
            waiting = list(queue)
            queue.clear()
            for sample in waiting:
                if sample.received_ns < now_ns:
                    due[sample.clock or name].append(sample)
                else:
                    queue.append(sample)
            source = (f"{name}/", round(self._plant.by_name[name].period_s * NS_PER_S))
            for clock, found in due.items():
                self.clock_of[name] = clock
                samples = sorted(found, key=lambda s: (s.received_ns, s.t_ns))
                arrival = np.maximum([s.received_ns for s in samples], self._taken_ns)
                stamps = np.array([_plausible(s.t_ns) + self._tracks[name].length_ns(s) for s in samples], np.int64)
                yield _Group(source, clock, arrival, stamps, Heartbeats.concat([]), samples=samples)

    def _shifts(self, clock: str, groups: Sequence[_Group]) -> list[Ints]:
        """What to add to the stamps of each group."""
        model = self.clocks.get(clock) or self.clocks.setdefault(clock, self._new_clock())
        if len(groups) == 1:
            return [model.shift_ns(groups[0].arrival_ns, groups[0].arrival_ns - groups[0].end_ns)]
        arrival = np.concatenate([group.arrival_ns for group in groups])
        delay = arrival - np.concatenate([group.end_ns for group in groups])
        order = np.argsort(arrival, kind="stable")
        shift = np.empty(len(order), np.int64)
        shift[order] = model.shift_ns(arrival[order], delay[order])
        return np.split(shift, np.cumsum([len(group.arrival_ns) for group in groups])[:-1])

    def _note_progress(self, group: _Group, shift_ns: Ints) -> None:
        arrival, reach = group.arrival_ns, group.end_ns + shift_ns
        if len(group.beats.t_ns):
            arrival = np.concatenate([arrival, group.beats.t_ns])
            order = np.argsort(arrival, kind="stable")
            arrival, reach = arrival[order], np.concatenate([reach, group.beats.t_ns])[order]
        ahead_ns = group.source[1] - self._margin_ns
        self.sources.setdefault(group.source, Reach()).take(arrival, reach + ahead_ns)


def _plausible(t_ns: int) -> int:
    return min(max(t_ns, 0), LATEST_NS)


def _in_order(rows: Rows) -> Rows:
    return rows[np.argsort(rows.arrival_ns, kind="stable")]


def _split(batch: _Batch, now_ns: int) -> tuple[_Batch | None, _Batch | None]:
    """The part of a batch that arrived before ``now_ns`` and the rest."""
    early = batch.rows.arrival_ns < now_ns
    beat_early = batch.heartbeat_ns is not None and batch.heartbeat_ns < now_ns
    if early.all() and (beat_early or batch.heartbeat_ns is None):
        return batch, None
    now = replace(batch, rows=batch.rows[early], heartbeat_ns=batch.heartbeat_ns if beat_early else None)
    later = replace(batch, rows=batch.rows[~early], heartbeat_ns=None if beat_early else batch.heartbeat_ns)
    return (now if early.any() or beat_early else None), later
