"""One time axis: UTC nanoseconds that never jump, made once for a process and handed to whoever asks for the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from fusion.records import NS_PER_S


class Clock:
    """UTC of the system's clock when this one was made, carried on by the monotonic clock.

    A step of the system's clock moves no stamp, closes no tick and lets no advice expire; ``stepped_s`` tells of it.
    """

    def __init__(
        self, system_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._system_ns, self._monotonic_ns = system_ns, monotonic_ns
        self._offset_ns = system_ns() - monotonic_ns()

    def now_ns(self) -> int:
        """UTC nanoseconds now: the axis of every ``received_ns``."""
        return self.utc_ns(self._monotonic_ns())

    def utc_ns(self, monotonic_ns: int) -> int:
        """UTC nanoseconds of a reading of the monotonic clock, which all processes of a machine share."""
        return monotonic_ns + self._offset_ns

    def stepped_s(self) -> float:
        """How far the system's clock has gone ahead of this one since [s]."""
        return (self._system_ns() - self.now_ns()) / NS_PER_S


CLOCK = Clock()
"""That of this process."""


def iso_time(t_ns: int) -> str:
    """UTC nanoseconds as ISO 8601 with milliseconds."""
    when = datetime.fromtimestamp(t_ns // NS_PER_S, UTC).replace(microsecond=t_ns % NS_PER_S // 1000)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
