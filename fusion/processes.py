"""Processes of ours that one command starts, watches and stops: the demo and a site that is up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fusion.errors import FusionError

log = logging.getLogger(__name__)

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 3.0


@dataclass(slots=True)
class Child:
    """One process of ours; it dies with its parent, never sees the terminal's Ctrl-C, and has a time [s] to stop."""

    name: str
    process: asyncio.subprocess.Process
    log_file: Path
    patience_s: float

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], logs: Path, patience_s: float = STOP_DEADLINE_S) -> Child:
        """Start `fusion ARGUMENTS` with its output added to a log file."""
        log_file = logs / f"{name}.log"
        with _opened(log_file) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fusion.cli",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, log_file, patience_s)

    async def listening(self, port: int | None, stop: asyncio.Event) -> None:
        """Wait until the process accepts connections on ``port``."""
        deadline = time.monotonic() + START_DEADLINE_S
        while port is not None and not stop.is_set() and not accepts("127.0.0.1", port):
            if self.process.returncode is not None:
                raise FusionError(f"the {self.name} process did not start: {self.last_word}; its log: {self.log_file}")
            if time.monotonic() > deadline:
                raise FusionError(f"the {self.name} process does not listen on port {port}; its log: {self.log_file}")
            await asyncio.sleep(0.1)

    @property
    def last_word(self) -> str:
        """The last line of its log."""
        lines = self.log_file.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "no word"

    async def stop(self) -> None:
        """Ask, wait, and force only what does not listen."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self.process.wait(), self.patience_s)
            except TimeoutError:
                log.warning("%s did not stop within %.0f s and is killed", self.name, self.patience_s)
                self.process.kill()
                await self.process.wait()


async def stop_in_order(children: Sequence[Child]) -> None:
    """Stop one after the other."""
    for child in children:
        await child.stop()


async def until_stopped(children: Sequence[Child], stop: asyncio.Event) -> None:
    """Wait until asked to stop.

    Raises:
        FusionError: one has ended by itself.
    """
    ended = {asyncio.create_task(child.process.wait()): child for child in children}
    done, pending = await asyncio.wait((*ended, asyncio.create_task(stop.wait())), return_when="FIRST_COMPLETED")
    for task in pending:
        task.cancel()
    for child in (ended[task] for task in done if task in ended):
        raise FusionError(f"the {child.name} process ended by itself: {child.last_word}; its log: {child.log_file}")


def free_from(port: int, kind: int = socket.SOCK_STREAM) -> int:
    """The first loopback port from one on that nobody has."""
    for candidate in range(port, port + 50):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise FusionError(f"no free port between {port} and {port + 49}")


def accepts(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return True
    return False


def _opened(log_file: Path) -> IO[bytes]:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return log_file.open("ab")


def _die_with_parent() -> None:
    """Linux: the kernel sends SIGTERM to the child when its parent is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
