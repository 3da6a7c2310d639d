"""The bounded buffer between a source and the daemon, and the meter of its rate; every drop is counted by reason."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from enum import StrEnum

from fusion.records import Columns, Item, Sample

ITEM_BYTES = 256
RATE_WINDOW_S = 10.0


class Overflow(StrEnum):
    """What a full buffer does: forget the oldest, refuse the newest, or make the source wait (files only)."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    WAIT = "wait"


def count(item: Item) -> int:
    """Values in an item: one for a medium, the rows of a batch (none in a bare heartbeat)."""
    return 1 if isinstance(item, Sample) else len(item)


def past(item: Item) -> bool:
    """Whether an item tells of a gap that is over."""
    return isinstance(item, Columns) and item.backfilled


def weight(item: Item) -> int:
    """Memory an item holds [bytes], with an allowance for the record itself."""
    if isinstance(item, Sample):
        return item.value.nbytes + ITEM_BYTES
    return len(item) * 29 + ITEM_BYTES


class Buffer:
    """Items in arrival order, at most ``max_values`` values and ``max_bytes`` bytes.

    ``pushed == drained + sum(dropped.values()) + len(buffer)`` always holds, all of them in values.
    """

    def __init__(self, max_values: int, max_bytes: int, overflow: Overflow = Overflow.DROP_OLDEST) -> None:
        self._items: deque[Item] = deque()
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._values = 0
        self._bytes = 0
        self.pushed = 0
        self.drained = 0
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        """Values waiting."""
        return self._values

    @property
    def items(self) -> int:
        """Items waiting, heartbeats included."""
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether a source that waits should wait."""
        return self._values >= self._max_values or self._bytes >= self._max_bytes

    def push(self, item: Item) -> None:
        """Take one item; where it does not fit, something is dropped and counted."""
        self.pushed += count(item)
        if self._overflow is Overflow.DROP_NEWEST and not self._fits(item):
            self.dropped["buffer_full"] += count(item)
            return
        if self._overflow is Overflow.DROP_OLDEST:
            item = self._newest_rows(item)
            while self._items and not self._fits(item):
                self.dropped["buffer_full"] += count(self._pop())
        self._items.append(item)
        self._values += count(item)
        self._bytes += weight(item)

    def drain(self) -> list[Item]:
        """Everything waiting, oldest first."""
        items = list(self._items)
        self._items.clear()
        self.drained += self._values
        self._values = self._bytes = 0
        return items

    def _fits(self, item: Item) -> bool:
        return self._values + count(item) <= self._max_values and self._bytes + weight(item) <= self._max_bytes

    def _pop(self) -> Item:
        item = self._items.popleft()
        self._values -= count(item)
        self._bytes -= weight(item)
        return item

    def _newest_rows(self, item: Item) -> Item:
        """A batch larger than the whole buffer keeps only its last rows."""
        if isinstance(item, Sample) or len(item) <= self._max_values:
            return item
        self.dropped["buffer_full"] += len(item) - self._max_values
        return rows(item, slice(len(item) - self._max_values, None))


def rows(columns: Columns, which: slice) -> Columns:
    """Some rows of a batch, under the same names."""
    return dataclasses.replace(
        columns,
        index=columns.index[which],
        t_ns=columns.t_ns[which],
        received_ns=columns.received_ns[which],
        value=columns.value[which],
        quality=columns.quality[which],
    )


class RateMeter:
    """Values per second over the last ten seconds, or since the first value where that is shorter."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int]] = deque()
        self._first_s: float | None = None

    def add(self, values: int, now_s: float) -> None:
        """Count values that arrived at ``now_s`` (monotonic)."""
        if self._first_s is None:
            self._first_s = now_s
        second = int(now_s)
        if self._buckets and self._buckets[-1][0] == second:
            values += self._buckets.pop()[1]
        self._buckets.append((second, values))
        self._forget(now_s)

    def rate_hz(self, now_s: float) -> float:
        """The rate as of ``now_s`` (monotonic)."""
        self._forget(now_s)
        if self._first_s is None:
            return 0.0
        window_s = min(RATE_WINDOW_S, max(now_s - self._first_s, 1.0))
        return sum(values for _, values in self._buckets) / window_s

    def _forget(self, now_s: float) -> None:
        while self._buckets and self._buckets[0][0] < now_s - RATE_WINDOW_S:
            self._buckets.popleft()
