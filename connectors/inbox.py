"""The inbox of a driver: where callbacks on any thread leave what the next ``read`` returns."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Where the callbacks of a driver, on any thread, leave things for its ``read``.

    At most ``limit`` things wait; the oldest are dropped and counted in ``dropped``. A failure is raised by the take
    that finds nothing else.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._things: deque[T] = deque(maxlen=limit)
        self._error: BaseException | None = None
        self._woken = False
        self.dropped = 0

    def put(self, *things: T) -> None:
        """Leave things; none at all is a sign of life."""
        limit = self._things.maxlen or 0
        self.dropped += max(len(self._things) + len(things) - limit, 0)
        self._things.extend(things)
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Say that the connection is lost."""
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        """Wake the loop, once until it has looked: each time costs more than what is left here."""
        if not self._woken and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._ready.set)

    async def take(self, timeout_s: float | None = None) -> list[T]:
        """Wait for something and return all there is; nothing is a sign of life.

        Raises:
            TimeoutError: nothing came within ``timeout_s``.
        """
        async with asyncio.timeout(timeout_s):
            await self._ready.wait()
        self._ready.clear()
        self._woken = False
        things = self.rest()
        if not things and self._error is not None:
            raise self._error
        if self._error is not None:
            self._ready.set()
        return things

    def rest(self) -> list[T]:
        """Everything there is now, without waiting."""
        return [self._things.popleft() for _ in range(len(self._things))]
