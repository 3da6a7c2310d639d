"""The parent's side of a decoder process: a driver that starts it, reads its arrays and ends it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from connectors.base import ARRIVAL_CLOCK, SourceEnded, SourceSilent, Tally
from connectors.child import Child, ChildEnded
from connectors.media.pipe import Job
from fusion.clock import CLOCK
from fusion.errors import SourceError, SourceRefused
from fusion.records import Item, Quality, Sample

STALLED_S = 3.0
STALLED_INTERVALS = 5
"""A live stream has stalled after so long, or so many of its mean intervals where that is longer."""


class DecoderProcess:
    """One decoder process, started for one connection and killed with it.

    ``clock`` names the camera's own clock or the file; ``where`` is the address without credentials.
    """

    def __init__(self, signal: str, job: Job, clock: str, where: str, tally: Tally) -> None:
        self._signal = signal
        self._job = job
        self._clocks = {"device": clock, "file": clock, "arrival": ARRIVAL_CLOCK}
        self._where = where
        self._tally = tally
        self._child = Child("connectors.media.decode")
        self._conditions: list[str] = []
        self._first_s: float | None = None
        self._messages = 0
        self._counted: dict[str, int] = {}

    @property
    def pid(self) -> int:
        """The process that decodes; 0 where none runs."""
        return self._child.pid

    @property
    def message(self) -> str:
        """What is wrong with the picture or the sound: frozen, black, silent."""
        return ", ".join(self._conditions)

    async def open(self) -> None:
        """Start the process and wait until it has opened the stream."""
        await self._child.start()
        await self._child.send(self._job.line())
        await self._message()

    async def read(self) -> list[Item]:
        """The next picture or chunk.

        Raises:
            SourceSilent: a stream that has flowed stands still.
        """
        header, payload = await self._in_time()
        if header["kind"] != "data":
            return []
        self._count(header)
        value = np.frombuffer(payload, np.dtype(header["dtype"])).reshape(header["shape"])
        return [
            Sample(
                signal=self._signal,
                t_ns=header["t_ns"],
                received_ns=CLOCK.utc_ns(header["mono_ns"]),
                value=value,
                quality=Quality(header["quality"]),
                clock=self._clocks[header["clock"]],
            )
        ]

    async def _in_time(self) -> tuple[dict[str, Any], bytes]:
        """The next message, judged by the rate at which a live stream has come so far."""
        limit_s = None
        if self._first_s is not None and self._job.live and self._messages > STALLED_INTERVALS:
            mean_s = (time.monotonic() - self._first_s) / self._messages
            limit_s = max(STALLED_S, STALLED_INTERVALS * max(mean_s, self._job.period_s))
        try:
            async with asyncio.timeout(limit_s):
                message = await self._message()
        except TimeoutError:
            raise SourceSilent(f"{self._where}: connected, but nothing for {limit_s:.1f} s") from None
        self._first_s = self._first_s or time.monotonic()
        self._messages += 1
        return message

    def _count(self, header: dict[str, Any]) -> None:
        """Add what the process counted since its last message to what the source counts."""
        self._conditions = header["conditions"]
        for name, number in {**header["noted"], "decoder queue": header["lost"]}.items():
            new = number - self._counted.get(name, 0)
            self._counted[name] = number
            if new:
                (self._tally.lost if name == "decoder queue" else self._tally.noted)[name] += new

    async def _message(self) -> tuple[dict[str, Any], bytes]:
        try:
            header, payload = await self._child.message()
        except ChildEnded as end:
            raise SourceError(f"{self._where}: the decoder process {end}") from None
        self._raise_for(header)
        return header, payload

    def _raise_for(self, header: dict[str, Any]) -> None:
        if header["kind"] == "error":
            kind = SourceRefused if header["refused"] else SourceError
            raise kind(f"{self._where}: {header['text']}")
        if header["kind"] == "end":
            if self._job.live:
                raise SourceError(f"{self._where}: the server ended the stream")
            raise SourceEnded(f"end of {self._where}")

    async def close(self) -> None:
        """Kill the process and collect what it leaves."""
        await self._child.close()
