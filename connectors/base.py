"""One contract for all sources: a supervisor that connects, watches, gives up and starts afresh.

A protocol supplies a ``Driver``: one connection, opened once, read until it fails, closed once. The ``Source`` around
it makes a fresh driver for every connection epoch, so that nothing a library remembers survives a loss.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from connectors.buffer import Buffer, Overflow, RateMeter, count, past
from connectors.settings import Supervision
from fusion.clock import CLOCK
from fusion.errors import SourceError, SourceRefused
from fusion.health import SourceHealth, SourceState
from fusion.plant import Signal
from fusion.records import Gap, Item

log = logging.getLogger(__name__)

ARRIVAL_CLOCK = "arrival"
MAX_GAPS = 1000
TAGS_NAMED = 5

T = TypeVar("T")


class SourceSilent(SourceError):
    """A peer that is connected but has shown no sign of life for longer than it should; the source is STALE."""


class SourceEnded(Exception):
    """No failure: a file or recording was delivered completely; the message says what ended."""


class Driver(Protocol):
    """One connection of one protocol; a new object for every epoch."""

    @property
    def message(self) -> str:
        """What the operator should know of a connection that works: failed tags, bad values; empty if nothing."""

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            SourceRefused: the peer answered and said no.
            SourceError: the peer cannot be reached.
        """

    async def read(self) -> list[Item]:
        """Wait for the next sign of life and return what came with it, possibly nothing.

        Raises:
            SourceError: the connection is lost.
            SourceEnded: a file or recording has ended.
        """

    async def close(self) -> None:
        """Let go of everything; also called when ``open`` failed or was cancelled."""


@dataclass(slots=True)
class Tally:
    """What a source counts across its connections: values lost before the buffer, and oddities of those delivered."""

    lost: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    _tags: dict[str, deque[str]] = field(default_factory=dict)

    def note(self, what: str, tag: str) -> None:
        """Count an oddity of a tag, and remember the tag among the newest."""
        self.noted[what] += 1
        tags = self._tags.setdefault(what, deque(maxlen=TAGS_NAMED))
        if tag not in tags:
            tags.append(tag)

    def text(self) -> str:
        """The oddities for people, over now or not: ``since the start: bad value 3 (TT101, FT101), clock 1``."""
        counted = ", ".join(f"{name} {number}{self._names(name)}" for name, number in sorted(self.noted.items()))
        return f"since the start: {counted}" if counted else ""

    def _names(self, what: str) -> str:
        return f" ({', '.join(tuple(self._tags[what]))})" if what in self._tags else ""


class Backoff:
    """Waits between attempts: doubling, jittered so that many sources do not knock together."""

    def __init__(self, supervision: Supervision, rng: random.Random) -> None:
        self._supervision = supervision
        self._rng = rng
        self._next_s = supervision.backoff_min_s

    def reset(self) -> None:
        """Start over: the last connection worked."""
        self._next_s = self._supervision.backoff_min_s

    def next_s(self) -> float:
        """The next wait [s]."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._supervision.backoff_max_s)
        return wait_s * self._rng.uniform(0.5, 1.0)


async def bounded(work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Run a driver's work in its own task for at most ``timeout_s``.

    Unlike ``asyncio.wait_for`` this does not wait for a task that ignores its cancellation: it is left to die alone.

    Raises:
        TimeoutError: the time is over.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget_outcome)
        del task  # else its error holds this frame, and this frame the error: a driver would outlive its connection


def _reason(error: Exception) -> str:
    """What an error says, with its name where that is all or where we did not foresee it; never nothing."""
    name, text = type(error).__name__, str(error)
    return (text if isinstance(error, SourceError | OSError) else f"{name}: {text}") if text else name


def _forget_outcome(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


class Source:
    """A supervised stream of items: the only face of a connector that the daemon knows.

    ``wake`` is set while items wait. ``connect`` makes the driver of one epoch. ``tally`` is shared with the drivers.
    ``resume`` takes what an earlier process has known last.
    """

    def __init__(
        self,
        name: str,
        signals: Sequence[Signal],
        connect: Callable[[], Driver],
        supervision: Supervision,
        *,
        tally: Tally | None = None,
        resume: Callable[[Mapping[str, int], int], None] | None = None,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        seed: int | None = None,
    ) -> None:
        self.name = name
        self.signals = tuple(signal.name for signal in signals)
        self.wake = asyncio.Event()
        self.epoch = 0
        self._connect = connect
        self._supervision = supervision
        self._tally = tally or Tally()
        self._resume = resume
        self._sleep = sleep
        self._backoff = Backoff(supervision, random.Random(seed))
        self._buffer = Buffer(supervision.buffer_values, supervision.buffer_bytes, Overflow(supervision.overflow))
        self._expected_hz = sum(1 / signal.period_s for signal in signals)
        self._rate = RateMeter()
        self._space = asyncio.Event()
        self._gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self._state = SourceState.DOWN
        self._message = "not started"
        self._driver: Driver | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._alive_ns = CLOCK.now_ns()
        self._item_s: float | None = None
        self._lost: str | None = None
        self._ended = False

    @property
    def state(self) -> SourceState:
        """Where the connection stands."""
        return self._state

    @property
    def finished(self) -> bool:
        """Whether a file or recording has ended and everything was drained."""
        return self._ended and not self._buffer.items

    def resume(self, newest: Mapping[str, int], heard_ns: int) -> None:
        """Hear what an earlier process has recorded last: the time stamp of each tag, and when it ended [UTC ns].

        Called before ``start``; a source whose server keeps a history asks for what has come since.
        """
        own = {tag: t_ns for tag, t_ns in newest.items() if tag in self.signals}
        if self._resume is not None and own:
            self._resume(own, heard_ns)

    async def start(self) -> None:
        """Begin connecting in the background; a source that runs already is left alone."""
        if self._task is None or self._task.done():
            self._state, self._message, self._ended = SourceState.CONNECTING, "", False
            self._alive_ns = CLOCK.now_ns()
            self._task = asyncio.create_task(self._run(), name=f"source {self.name}")

    async def stop(self) -> None:
        """Disconnect within a bounded time; twice is fine. What is buffered can still be drained."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task}, timeout=self._supervision.close_timeout_s + 0.5)
        if self._closing is not None:
            await asyncio.wait({self._closing}, timeout=self._supervision.close_timeout_s)
            self._closing.cancel()
        if not self._ended:
            self._state, self._message = SourceState.DOWN, "stopped"

    def drain(self) -> list[Item]:
        """Everything received since the last call, oldest first."""
        self.wake.clear()
        self._space.set()
        return self._buffer.drain()

    def gaps(self) -> list[Gap]:
        """The gaps that ended since the last call."""
        gaps = list(self._gaps)
        self._gaps.clear()
        return gaps

    def health(self, now_s: float | None = None) -> SourceHealth:
        """The source as the operator should see it; ``now_s`` is monotonic and defaults to now.

        ``received`` equals what was drained, dropped by any reason and is buffered, in values.
        """
        now_s = time.monotonic() if now_s is None else now_s
        return SourceHealth(
            name=self.name,
            state=self._state,
            alive=self._state is SourceState.LIVE,
            rate_hz=self._rate.rate_hz(now_s),
            expected_hz=self._expected_hz,
            age_s=None if self._item_s is None else max(now_s - self._item_s, 0.0),
            received=self._buffer.pushed + self._tally.lost.total(),
            dropped=dict(self._buffer.dropped + self._tally.lost),
            epoch=self.epoch,
            message=self._text(),
        )

    def _text(self) -> str:
        live = self._driver.message if self._driver is not None and self._state is SourceState.LIVE else ""
        return "; ".join(part for part in (self._message, live, self._tally.text()) if part)

    async def _run(self) -> None:
        while True:
            try:
                await self._connection()
            except SourceEnded as end:
                self._ended = True
                self._state, self._message = SourceState.DOWN, str(end)
                self.wake.set()
                return
            except SourceRefused as refusal:
                self._give_up(SourceState.REFUSED, str(refusal))
                await self._sleep(self._supervision.refused_retry_s)
            except SourceSilent as silence:
                self._give_up(SourceState.STALE, str(silence))
                await self._sleep(self._backoff.next_s())
            except Exception as error:  # the one place: whatever a driver does, the source comes back
                self._give_up(SourceState.DOWN, _reason(error))
                log.debug("source %s: driver failed", self.name, exc_info=error)
                await self._sleep(self._backoff.next_s())

    async def _connection(self) -> None:
        """One epoch, from the first knock to the loss."""
        self.epoch += 1
        driver = self._connect()
        try:
            await self._open(driver)
            self._driver = driver
            self._back()
            while True:
                self._take(await self._read(driver))
                await self._wait_for_space()
        finally:
            self._driver = None
            await self._goodbye(driver)

    async def _goodbye(self, driver: Driver) -> None:
        """Close a driver in a bounded time, even if we are stopped meanwhile; nothing it says matters any more."""
        self._closing = asyncio.ensure_future(driver.close())
        self._closing.add_done_callback(_forget_outcome)
        await asyncio.wait({self._closing}, timeout=self._supervision.close_timeout_s)
        self._closing.cancel()

    async def _open(self, driver: Driver) -> None:
        try:
            await bounded(driver.open(), self._supervision.open_timeout_s)
        except TimeoutError:
            raise SourceError(f"no connection within {self._supervision.open_timeout_s:g} s") from None

    async def _read(self, driver: Driver) -> list[Item]:
        try:
            return await bounded(driver.read(), self._supervision.stale_after_s)
        except TimeoutError:
            raise SourceSilent(f"silent for {self._supervision.stale_after_s:g} s") from None

    def _take(self, items: list[Item]) -> None:
        now_s = time.monotonic()
        self._back()
        self._backoff.reset()
        for item in items:
            self._buffer.push(item)
        fresh = [item for item in items if not past(item)]
        if fresh:
            self._rate.add(sum(count(item) for item in fresh), now_s)
            self._item_s = now_s
        if items:
            self.wake.set()

    async def _wait_for_space(self) -> None:
        while self._supervision.overflow == Overflow.WAIT and self._buffer.full:
            self._space.clear()
            await self._space.wait()

    def _back(self) -> None:
        """A sign of life: the source is live, and a gap ends here. Only a read proves that the connection holds."""
        now_ns = CLOCK.now_ns()
        if self._lost is not None:
            self._gaps.append(Gap(source=self.name, t_from_ns=self._alive_ns, t_to_ns=now_ns, reason=self._lost))
            log.info("source %s is back after %.1f s", self.name, (now_ns - self._alive_ns) / 1e9)
            self._lost = None
        self._alive_ns = now_ns
        self._state, self._message = SourceState.LIVE, ""

    def _give_up(self, state: SourceState, reason: str) -> None:
        self._state, self._message = state, reason
        if self._lost is None:
            self._lost = reason
            log.warning("source %s is %s: %s", self.name, state, reason)
