"""How a process that runs for long ends: by a signal, or because one of its threads has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Iterator

from fusion.errors import FusionError

log = logging.getLogger(__name__)


def ignore_hangup() -> None:
    """Let SIGHUP end neither us nor our children."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` on SIGINT and SIGTERM; a second SIGINT interrupts at once. Earlier handlers come back."""
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        log.info("stopping")
        stop.set()

    caught = (signal.SIGINT, signal.SIGTERM)
    for number in caught:
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def dead_thread() -> Iterator[asyncio.Future[None]]:
    """A future that fails as soon as any thread of this process dies of an exception."""
    loop, previous = asyncio.get_running_loop(), threading.excepthook
    dead: asyncio.Future[None] = loop.create_future()

    def fail(name: str, error: BaseException | None) -> None:
        if not dead.done():
            dead.set_exception(FusionError(f"thread {name} has died: {error!r}"))

    def hook(found: threading.ExceptHookArgs) -> None:
        previous(found)
        name = "" if found.thread is None else found.thread.name
        loop.call_soon_threadsafe(fail, name, found.exc_value)

    threading.excepthook = hook
    try:
        yield dead
    finally:
        threading.excepthook = previous
        dead.cancel()
