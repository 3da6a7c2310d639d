"""A series of PCD and PLY files played as a LiDAR; Open3D reads them in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from connectors.base import SourceEnded, Tally
from connectors.child import Child, ChildEnded
from connectors.lidar.config import LidarConfig
from connectors.lidar.crop import Crop
from connectors.settings import utc_ns
from fusion.clock import CLOCK
from fusion.errors import SourceError
from fusion.plant import Signal
from fusion.records import NS_PER_S, Item, Quality, Sample

FILE_S = 50.0
"""What one file may take, the start of a reader included."""
UNITS_NS = {10: NS_PER_S, 13: 1_000_000, 16: 1_000, 19: 1}


def name_ns(file: str) -> int | None:
    """The time in a file's name: the last run of 10, 13, 16 or 19 digits is s, ms, us or ns since 1970."""
    runs = [run for run in re.findall(r"\d+", Path(file).stem) if len(run) in UNITS_NS]
    return int(runs[-1]) * UNITS_NS[len(runs[-1])] if runs else None


@dataclass(slots=True)
class Series:
    """How far a series has been played: a new connection goes on where the last one was lost."""

    place: int = 0


class CloudPlayer:
    """Plays the files once, in sorted order; one that cannot be read is counted, named and passed over."""

    def __init__(self, config: LidarConfig, signal: Signal, crop: Crop, tally: Tally, series: Series) -> None:
        self._config = config
        self._signal = signal
        self._crop = crop
        self._tally = tally
        self._series = series
        self._files: list[str] = []
        self._reader: Child | None = None
        self._last_ns = 0
        self._due_s = 0.0
        self._empty = False

    @property
    def message(self) -> str:
        """Whether the last cloud was empty."""
        return "empty cloud" if self._empty else ""

    async def open(self) -> None:
        """Find the files and start the reader, which takes seconds."""
        self._files = self._config.files()
        if not self._files:
            raise SourceError(f"no file matches {', '.join(self._config.paths)}")
        await self._running_reader()
        self._due_s = time.monotonic()

    async def _running_reader(self) -> Child:
        if self._reader is None:
            self._reader = Child("connectors.lidar.read_clouds")
            await self._reader.start()
            await self._reader.message()
        return self._reader

    async def read(self) -> list[Item]:
        """The next cloud."""
        place = self._series.place
        if place >= len(self._files):
            self._series.place = 0
            raise SourceEnded(f"end of {len(self._files)} point-cloud files")
        self._series.place += 1
        points = await self._points(self._files[place])
        await self._pace()
        return [] if points is None else [self._sample(self._files[place], place, points)]

    async def _points(self, file: str) -> Any:
        """The points of a file [P, 4]; None, counted and named, where it cannot be read."""
        try:
            async with asyncio.timeout(FILE_S):
                reader = await self._running_reader()
                await reader.send(json.dumps(file).encode() + b"\n")
                header, payload = await reader.message()
        except (ChildEnded, TimeoutError) as end:
            await self.close()
            header, payload = (
                {"kind": "", "text": f"the reader {end}" if str(end) else f"not read in {FILE_S:g} s"},
                b"",
            )
        if header["kind"] == "cloud":
            return np.frombuffer(payload, np.float32).reshape(header["shape"])
        self._tally.lost["unreadable file"] += 1
        self._tally.note("unreadable file", f"{Path(file).name}: {header['text']}")
        return None

    async def _pace(self) -> None:
        if self._config.realtime:
            self._due_s += self._signal.period_s
            await asyncio.sleep(max(self._due_s - time.monotonic(), 0.0))

    def _sample(self, file: str, place: int, points: Any) -> Sample:
        cloud = self._crop.cloud(points)
        cloud[:, 3] *= self._config.intensity_scale
        self._empty = not len(cloud)
        t_ns = self._t_ns(file, place)
        if t_ns <= self._last_ns:
            self._tally.note("stamp not after the one before", Path(file).name)
        self._last_ns = t_ns
        return Sample(
            signal=self._signal.name,
            t_ns=t_ns,
            received_ns=CLOCK.now_ns(),
            value=cloud,
            quality=Quality.UNCERTAIN if self._empty else Quality.GOOD,
            clock="file:lidar",
        )

    def _t_ns(self, file: str, place: int) -> int:
        if self._config.timestamps == "start":
            start_ns = utc_ns("lidar.start_time", self._config.start_time) or 0
            return start_ns + round(place * self._signal.period_s * NS_PER_S)
        if self._config.timestamps == "name":
            named = name_ns(file)
            if named is None:
                raise SourceError(f"{file}: no time in its name; expected 10, 13, 16 or 19 digits")
            return named
        return Path(file).stat().st_mtime_ns

    async def close(self) -> None:
        """End the reader."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
