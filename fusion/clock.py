"""One time axis: UTC nanoseconds that never jump, made once for a process and handed to whoever asks for the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fusion.records import NS_PER_S

STEP_NS = 2 * NS_PER_S


class Clock:
    """UTC of the system's clock when this one was made, carried on by the monotonic clock.

    A step of the system's clock moves no stamp, closes no tick and lets no advice expire; ``stepped_s`` tells of it.
    ``offset_ns`` is UTC less the monotonic clock: between processes of one ``boot`` it differs by such steps alone.
    """

    def __init__(
        self,
        system_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        boot: str = "",
    ) -> None:
        self._system_ns, self._monotonic_ns = system_ns, monotonic_ns
        self.offset_ns = system_ns() - monotonic_ns()
        self.boot = boot

    def now_ns(self) -> int:
        """UTC nanoseconds now: the axis of every ``received_ns``."""
        return self.utc_ns(self._monotonic_ns())

    def utc_ns(self, monotonic_ns: int) -> int:
        """UTC nanoseconds of a reading of the monotonic clock, which all processes of a machine share."""
        return monotonic_ns + self.offset_ns

    def stepped_s(self) -> float:
        """How far the system's clock has gone ahead of this one since [s]."""
        return self._ahead_ns() / NS_PER_S

    def step_ns(self) -> int:
        """The same in nanoseconds where it is a step, and not the patient correction of a clock that drifts; else 0."""
        return ahead_ns if abs(ahead_ns := self._ahead_ns()) > STEP_NS else 0

    def moved_ns(self, boot: object, offset_ns: object) -> int:
        """What times of an earlier process of this ``boot`` are moved by, to be on our axis; 0 where that is none."""
        if not self.boot or boot != self.boot or not isinstance(offset_ns, int):
            return 0
        by_ns = self.offset_ns - offset_ns
        return by_ns if abs(by_ns) > STEP_NS else 0

    def _ahead_ns(self) -> int:
        return self._system_ns() - self.now_ns()


def boot_id() -> str:
    """What names the time since the machine was started; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


CLOCK = Clock(boot=boot_id())
"""That of this process."""


def iso_time(t_ns: int) -> str:
    """UTC nanoseconds as ISO 8601 with milliseconds."""
    when = datetime.fromtimestamp(t_ns // NS_PER_S, UTC).replace(microsecond=t_ns % NS_PER_S // 1000)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
