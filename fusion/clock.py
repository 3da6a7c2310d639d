"""Clocks: UTC nanoseconds that never jump."""

from __future__ import annotations

import time
from collections.abc import Callable


class WallClock:
    """UTC from the system clock at start, carried on by the monotonic clock so that it never jumps."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """UTC nanoseconds."""
        return time.monotonic_ns() + self._offset_ns


_UTC_OFFSET_NS = time.time_ns() - time.monotonic_ns()


def arrival_ns(monotonic_ns: int | None = None) -> int:
    """UTC nanoseconds of the local monotonic clock: the axis of every ``received_ns``; it never jumps."""
    return (time.monotonic_ns() if monotonic_ns is None else monotonic_ns) + _UTC_OFFSET_NS


def utc_clock() -> Callable[[], int]:
    """UTC nanoseconds that never jump: the system's clock now, carried on by the monotonic one."""
    base_ns = time.time_ns() - time.monotonic_ns()
    return lambda: base_ns + time.monotonic_ns()
