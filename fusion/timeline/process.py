"""Process values on the grid: the last usable value at each tick, its age, quality and coverage; held here alone.

One vectorised core for one live tick and for years of history. Shape letters: N rows, T ticks, S process signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant, Role, Signal
from fusion.records import NS_PER_S, Columns, Quality

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
UNSEEN_NS = np.iinfo(np.int64).min // 2
LATEST_NS = 2**62  # the year 2116: later stamps would overflow differences of times


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGrid:
    """Process values on T ticks, each [T, S] in plant order.

    ``value`` is the last usable one (before the first, mid-range of what may be moved and 0 of the rest), ``age_s``
    the time since the newest one was last confirmed (infinite where none came), ``observed`` whether that is usable:
    seen, not BAD, not stale. ``coverage`` is 1 where the signal gave news within its period.
    """

    t_ns: Ints
    value: Floats
    observed: Bools
    age_s: Floats
    quality: NDArray[np.uint8]
    coverage: Floats

    @classmethod
    def concat(cls, parts: Sequence[ProcessGrid]) -> ProcessGrid:
        """Consecutive parts as one."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Rows:
    """N process values in order of arrival: column of the signal, mapped stamp, arrival, value, quality."""

    column: Ints
    t_ns: Ints
    arrival_ns: Ints
    value: Floats
    quality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, part: Bools | Ints) -> Rows:
        return Rows(self.column[part], self.t_ns[part], self.arrival_ns[part], self.value[part], self.quality[part])

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """Rows of several batches."""
        if not parts:
            none = np.empty(0, np.int64)
            return cls(none, none, none, np.empty(0), np.empty(0, np.uint8))
        some = [part for part in parts if len(part)] or parts[:1]
        if len(some) == 1:
            return some[0]
        return cls(*(np.concatenate([getattr(part, name) for part in some]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """Confirmations in order of arrival: column of the signal and when it was known to be alive."""

    column: Ints
    t_ns: Ints

    def __getitem__(self, part: NDArray[np.bool_]) -> Heartbeats:
        return Heartbeats(self.column[part], self.t_ns[part])

    @classmethod
    def concat(cls, parts: Sequence[Heartbeats]) -> Heartbeats:
        """Heartbeats of several batches."""
        parts = [part for part in parts if len(part.column)]
        if len(parts) == 1:
            return parts[0]
        none = np.empty(0, np.int64)
        return cls(np.concatenate([none, *(p.column for p in parts)]), np.concatenate([none, *(p.t_ns for p in parts)]))


@dataclass(slots=True)
class Held:
    """What is known of each of S signals: stamp, value and quality of the newest one, and its last heartbeat.

    ``usable`` is the last value that could be used, which a newest one that is BAD or came too late does not replace.
    """

    t_ns: Ints
    value: Floats
    quality: NDArray[np.uint8]
    heartbeat_ns: Ints
    usable: Floats

    @classmethod
    def before(cls, signals: Sequence[Signal]) -> Held:
        """Before the first value: mid-range of what may be moved, 0 of the rest."""
        unseen, nothing = np.full(len(signals), UNSEEN_NS), np.zeros(len(signals))
        start = np.array([_middle(s) if s.role is Role.MANIPULATED else 0.0 for s in signals])
        return cls(unseen, nothing, np.zeros(len(signals), np.uint8), unseen.copy(), start)


def _middle(signal: Signal) -> float:
    return 0.0 if signal.low is None or signal.high is None else 0.5 * (signal.low + signal.high)


def columns_of(plant: Plant, signals: Sequence[str]) -> Ints:
    """The column of each signal among the process signals of a plant, -1 where it is not one."""
    column_of = {s.name: i for i, s in enumerate(plant.of(Modality.PROCESS))}
    return np.array([column_of.get(name, -1) for name in signals], np.int64)


def process_rows(columns: Ints, batch: Columns) -> Rows:
    """The rows of a batch, given the column of each of its signals; BAD where a value is not finite."""
    finite = np.isfinite(batch.value)
    value, quality = batch.value, batch.quality
    if not finite.all():
        value, quality = np.where(finite, value, 0.0), np.where(finite, quality, np.uint8(Quality.BAD))
    stamps = np.minimum(np.maximum(batch.t_ns, 0), LATEST_NS)
    return Rows(columns[batch.index], stamps, batch.received_ns, value, quality)


def empty_grid(signals: int) -> ProcessGrid:
    """No tick of S signals."""
    none = np.empty((0, signals))
    return ProcessGrid(
        t_ns=np.empty(0, np.int64),
        value=none,
        observed=none.astype(np.bool_),
        age_s=none,
        quality=none.astype(np.uint8),
        coverage=none,
    )


def hold(
    ticks: Ints,
    signals: Sequence[Signal],
    rows: Rows,
    due: Ints,
    beats: Heartbeats,
    beats_due: Ints,
    held: Held,
    step_s: float,
) -> tuple[ProcessGrid, Ints]:
    """Zero-order hold of rows that become known at tick ``due`` [N], and how many rows [S] repeat a stamp.

    ``beats_due`` is the same for heartbeats. ``held`` is brought up to date. Of rows with equal stamps
    the last to arrive counts, since values and qualities change under one stamp where stamps are coarse or stand still;
    a row older than what is known changes nothing.
    """
    at, order, repeated = _newest(rows.column, due, rows.t_ns, held.t_ns, len(ticks))
    beat_at, beat_order, _ = _newest(beats.column, beats_due, beats.t_ns, held.heartbeat_ns, len(ticks))
    stamp = np.concatenate([held.t_ns, rows.t_ns])[order][at]
    value = np.concatenate([held.value, rows.value])[order][at]
    quality = np.concatenate([held.quality, rows.quality])[order][at]
    beat = np.concatenate([held.heartbeat_ns, beats.t_ns])[beat_order][beat_at]
    last = (a[-1].copy() for a in (stamp, value, quality, beat))
    held.t_ns, held.value, held.quality, held.heartbeat_ns = last
    age_s = (ticks[:, None] - np.maximum(stamp, beat)) / NS_PER_S
    age_s[stamp == UNSEEN_NS] = np.inf
    stale_s = np.array([s.stale_after_s for s in signals])
    period_s = np.array([max(s.period_s, step_s) for s in signals])
    observed = (quality != Quality.BAD) & (age_s <= stale_s)
    usable = _last_usable(value, observed, held.usable)
    held.usable = usable[-1].copy()
    grid = ProcessGrid(
        t_ns=ticks,
        value=usable,
        observed=observed,
        age_s=age_s,
        quality=quality,
        coverage=(age_s < period_s).astype(np.float64),
    )
    return grid, repeated


def _last_usable(value: Floats, observed: Bools, start: Floats) -> Floats:
    """At each tick the last value [T, S] that was observed; ``start`` [S] before the first."""
    rows = np.arange(1, len(value) + 1)[:, None]
    last = np.maximum.accumulate(np.where(observed, rows, 0), axis=0)
    return np.take_along_axis(np.concatenate([start[None], value]), last, 0)


def _newest(column: Ints, due: Ints, t_ns: Ints, held_ns: Ints, ticks: int) -> tuple[Ints, Ints, Ints]:
    """For each tick and column the place of the newest row known by then, places being those of ``order``.

    Returns places [T, S], ``order`` over held rows followed by new ones, and repeated stamps by column [S].
    """
    signals = len(held_ns)
    if not len(column):
        everyone = np.arange(signals)
        return np.broadcast_to(everyone, (ticks, signals)), everyone, np.zeros(signals, np.int64)
    column = np.concatenate([np.arange(signals), column])
    due = np.concatenate([np.full(signals, -1), due])
    t_ns = np.concatenate([held_ns, t_ns])
    order = np.lexsort((t_ns, due, column))
    column, due, t_ns = column[order], due[order], t_ns[order]
    again = (np.diff(column) == 0) & (np.diff(due) == 0) & (np.diff(t_ns) == 0)
    rank = np.unique(t_ns, return_inverse=True)[1] + column * (len(t_ns) + 1)
    newest = rank == np.maximum.accumulate(rank)
    known = column[newest] * (ticks + 1) + due[newest] + 1
    asked = np.arange(signals)[None, :] * (ticks + 1) + np.arange(1, ticks + 1)[:, None]
    places = np.flatnonzero(newest)[np.searchsorted(known, asked, side="right") - 1]
    return places, order, np.bincount(column[1:][again], minlength=signals)
