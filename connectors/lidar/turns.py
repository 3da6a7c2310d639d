"""Packets of a spinning sensor into whole turns of its head, whatever else arrives and in whatever order."""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

from connectors.base import Tally

T = TypeVar("T")

TURN = 36_000  # hundredths of a degree
FASTEST = 0.9  # of them in a microsecond: 25 turns a second
SLACK = 1_000
WINDOW_US = 200_000
HOUR_US = 3_600_000_000
SILENCE_NS = 1_000_000_000
STRAYS = 50
MAX_PACKETS = 8000
FIRST_BLOCK = struct.Struct("<HH")
STAMP = struct.Struct("<I")
STAMP_AT = 1200


class Turns(Generic[T]):
    """Gathers what belongs to one sensor until its head has come round.

    A packet fits where its azimuth lies within what the head can turn in the time between its stamp and the newest
    one. Packets that fit are put in order by their stamps; one that came twice, too late, or fits nowhere is counted.
    After many in a row that fit nowhere, or a silence, the sensor has started anew.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._packets: dict[tuple[int, int], T] = {}
        self._front: tuple[int, int] | None = None
        self._start_us = 0
        self._turned = 0
        self._strays = 0
        self._arrived_ns = 0

    def take(self, data: bytes, packet: T, arrived_ns: int) -> list[T]:
        """Take a packet and what is to be kept of it; returns those of the turn before, where it begins a new one."""
        _, azimuth = FIRST_BLOCK.unpack_from(data)
        (us,) = STAMP.unpack_from(data, STAMP_AT)
        if self._front is None or arrived_ns - self._arrived_ns > SILENCE_NS:
            return self._begin(azimuth, us, packet, arrived_ns)
        later_us = _between(self._front[0], us)
        step = ((azimuth - self._front[1]) * (1 if later_us >= 0 else -1)) % TURN
        if abs(later_us) > WINDOW_US or step > abs(later_us) * FASTEST + SLACK:
            return self._stray(azimuth, us, packet, arrived_ns)
        self._strays, self._arrived_ns = 0, arrived_ns
        finished: list[T] = []
        if later_us >= 0:
            self._turned += step
            self._front = us, azimuth
            if self._turned >= TURN or len(self._packets) >= MAX_PACKETS:
                finished = self._finish(us)
        elif _between(self._start_us, us) < 0:
            self._tally.lost["packet too late for its turn"] += 1
            return []
        if self._packets.setdefault((us, azimuth), packet) is not packet:
            self._tally.lost["packet doubled"] += 1
        return finished

    def _finish(self, us: int) -> list[T]:
        keys = sorted(self._packets, key=lambda key: _between(self._start_us, key[0]))
        finished = [self._packets[key] for key in keys]
        self._packets, self._start_us, self._turned = {}, us, self._turned % TURN
        return finished

    def _stray(self, azimuth: int, us: int, packet: T, arrived_ns: int) -> list[T]:
        self._strays += 1
        if self._strays >= STRAYS:
            return self._begin(azimuth, us, packet, arrived_ns)
        self._tally.lost["packet of no turn"] += 1
        return []

    def _begin(self, azimuth: int, us: int, packet: T, arrived_ns: int) -> list[T]:
        if self._packets:
            self._tally.lost["packet of a torn turn"] += len(self._packets)
        self._packets = {(us, azimuth): packet}
        self._front, self._start_us, self._turned = (us, azimuth), us, 0
        self._strays, self._arrived_ns = 0, arrived_ns
        return []


def _between(first_us: int, second_us: int) -> int:
    """Time from one stamp of the hour to another, the shorter way round."""
    return (second_us - first_us + HOUR_US // 2) % HOUR_US - HOUR_US // 2
