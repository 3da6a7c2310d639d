"""A child process in which native code may crash, hang or run out of memory: a lost answer, not a lost daemon."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

from connectors.pipe import SIZES

PIPE_BYTES = 4 * 1024 * 1024
ROOT = str(Path(__file__).resolve().parents[1])
PYTHONPATH = os.pathsep.join(part for part in (ROOT, os.environ.get("PYTHONPATH")) if part)


class ChildEnded(Exception):
    """The process is gone; ``code`` is its exit status, negative the signal that ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ended with code {code}")
        self.code = code


class Child:
    """A module run as a process of its own, which takes lines and answers with messages, and ends with its input."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._starting: asyncio.Future[Process] | None = None
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The process; 0 where none runs."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it; a start that is cut off is still collected by ``close``."""
        self._starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=PIPE_BYTES,
                env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
            )
        )
        self._process = await asyncio.shield(self._starting)

    async def send(self, line: bytes) -> None:
        """Give it a line.

        Raises:
            ChildEnded: it is gone.
        """
        assert self._process is not None  # noqa: S101 - started before
        assert self._process.stdin is not None  # noqa: S101 - asked for at the start
        try:
            self._process.stdin.write(line)
            await self._process.stdin.drain()
        except ConnectionError:
            raise ChildEnded(await self._process.wait()) from None

    async def message(self) -> tuple[dict[str, Any], bytes]:
        """Its next message: header and payload.

        Raises:
            ChildEnded: it is gone.
        """
        assert self._process is not None  # noqa: S101 - started before
        assert self._process.stdout is not None  # noqa: S101 - asked for at the start
        try:
            sizes = SIZES.unpack(await self._process.stdout.readexactly(SIZES.size))
            header = json.loads(await self._process.stdout.readexactly(sizes[0]))
            return header, await self._process.stdout.readexactly(sizes[1])
        except asyncio.IncompleteReadError:
            raise ChildEnded(await self._process.wait()) from None

    async def close(self) -> None:
        """Kill it and collect what it leaves."""
        if self._starting is None:
            return
        process = await self._starting
        assert process.stdin is not None  # noqa: S101 - asked for at the start
        assert process.stdout is not None  # noqa: S101
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        while not process.stdout.at_eof():
            try:
                await process.stdout.read(PIPE_BYTES)
            except RuntimeError:  # a read that was cut off has not let go yet
                await asyncio.sleep(0)
        await process.wait()
