"""When what the simulated plant has said leaves it: plant time on the wall clock, and items in due order."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.records import NS_PER_S, Columns, Item, Sample
from fusion.simulator.servers.vlp16 import packets

log = logging.getLogger(__name__)

TOLERANCE_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Process values that leave together: tag, value, time [UTC ns], quality."""

    rows: tuple[tuple[str, float, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A picture or a chunk of sound for the stream of a signal."""

    signal: str
    value: NDArray[np.generic]
    t_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A datagram of the LiDAR."""

    data: bytes


Event = Values | Media | Packet
Due = tuple[int, Event]


class Pace:
    """Where plant time lies on the wall clock; where the machine is too slow, the rest moves to later."""

    def __init__(self, plant_ns: int, wall_ns: int, speed: float) -> None:
        self._plant_ns, self._wall_ns, self._speed = plant_ns, wall_ns, speed
        self.behind_ns = 0

    def wall_ns(self, plant_ns: int) -> int:
        """The wall-clock time of a moment of the plant."""
        return self._wall_ns + round((plant_ns - self._plant_ns) / self._speed)

    def settle(self, plant_ns: int, now_ns: int) -> None:
        """Let ``plant_ns`` be now, if it should have been noticeably earlier: late items must not leave in a burst."""
        late_ns = now_ns - self.wall_ns(plant_ns)
        if late_ns <= TOLERANCE_S * NS_PER_S:
            return
        if not self.behind_ns:
            log.warning("this machine is too slow for the simulated plant: its time is stretched")
        self.behind_ns += late_ns
        self._wall_ns += late_ns


def due_events(items: Iterable[Item], plant: Plant, pace: Pace) -> Iterator[Due]:
    """When each item leaves, which is when it was to arrive; stamps are carried to the wall clock."""
    for item in items:
        if isinstance(item, Columns):
            yield from _due_values(item, pace)
        elif plant.by_name[item.signal].modality is Modality.LIDAR:
            yield from _due_packets(item, plant.by_name[item.signal].period_s, pace)
        else:
            media = Media(signal=item.signal, value=item.value, t_ns=pace.wall_ns(item.t_ns))
            yield pace.wall_ns(item.received_ns), media


def _due_values(item: Columns, pace: Pace) -> Iterator[Due]:
    for received_ns in np.unique(item.received_ns):
        rows = np.flatnonzero(item.received_ns == received_ns)
        values = tuple(
            (item.signals[item.index[i]], float(item.value[i]), pace.wall_ns(int(item.t_ns[i])), int(item.quality[i]))
            for i in rows
        )
        yield pace.wall_ns(int(received_ns)), Values(rows=values)


def _due_packets(item: Sample, period_s: float, pace: Pace) -> Iterator[Due]:
    """Packets leave while the head turns, as late as the scan as a whole was."""
    end_ns = pace.wall_ns(item.t_ns)
    late_ns = pace.wall_ns(item.received_ns) - end_ns
    for t_ns, data in packets(item.value.astype(np.float32, copy=False), end_ns, period_s):
        yield t_ns + late_ns, Packet(data=data)


class Outflow:
    """Events in the order in which they are due."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._heap: list[tuple[int, int, Event]] = []
        self._order = itertools.count()
        self._news = asyncio.Event()

    def add(self, events: Iterable[Due]) -> None:
        """Take in what is to leave."""
        for due_ns, event in events:
            heapq.heappush(self._heap, (due_ns, next(self._order), event))
        self._news.set()

    async def next(self) -> Event:
        """The next event, once its time has come."""
        while True:
            self._news.clear()
            wait_s = (self._heap[0][0] - self._now_ns()) / NS_PER_S if self._heap else None
            if wait_s is not None and wait_s <= 0:
                return heapq.heappop(self._heap)[2]
            try:
                await asyncio.wait_for(self._news.wait(), wait_s)
            except TimeoutError:
                continue
