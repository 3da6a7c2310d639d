"""A series of PCD and PLY files played as a LiDAR; Open3D reads them on a thread of its own."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.base import SourceEnded, Tally
from connectors.lidar.config import LidarConfig
from connectors.lidar.crop import Crop
from connectors.settings import utc_ns
from fusion.clock import CLOCK
from fusion.errors import SourceError
from fusion.plant import Signal
from fusion.records import NS_PER_S, Item, Quality, Sample

UNITS_NS = {10: NS_PER_S, 13: 1_000_000, 16: 1_000, 19: 1}


def name_ns(file: str) -> int | None:
    """The time in a file's name: the last run of 10, 13, 16 or 19 digits is s, ms, us or ns since 1970."""
    runs = [run for run in re.findall(r"\d+", Path(file).stem) if len(run) in UNITS_NS]
    return int(runs[-1]) * UNITS_NS[len(runs[-1])] if runs else None


def read_cloud(file: str) -> NDArray[np.float32] | None:
    """Points [P, 4] of a file; intensities are zero where it has none. None where it is no readable cloud."""
    import open3d

    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.t.io.read_point_cloud(Path(file))
    if "positions" not in cloud.point:
        return None
    xyz = cloud.point["positions"].numpy().astype(np.float32)
    intensity = np.zeros((len(xyz), 1), np.float32)
    if "intensity" in cloud.point:
        intensity = cloud.point["intensity"].numpy().reshape(-1, 1).astype(np.float32)
    return np.hstack([xyz, intensity])


class CloudPlayer:
    """Plays the files once, in sorted order."""

    def __init__(self, config: LidarConfig, signal: Signal, crop: Crop, tally: Tally) -> None:
        self._config = config
        self._signal = signal
        self._crop = crop
        self._tally = tally
        self._files: list[str] = []
        self._place = 0
        self._due_s = 0.0
        self._empty = False

    @property
    def message(self) -> str:
        """Whether the last cloud was empty."""
        return "empty cloud" if self._empty else ""

    async def open(self) -> None:
        """Find the files and load Open3D, which takes seconds."""
        self._files = self._config.files()
        if not self._files:
            raise SourceError(f"no file matches {', '.join(self._config.paths)}")
        await asyncio.to_thread(__import__, "open3d")
        self._due_s = time.monotonic()

    async def read(self) -> list[Item]:
        """The next cloud; a file that cannot be read is counted and passed over."""
        if self._place == len(self._files):
            raise SourceEnded(f"end of {len(self._files)} point-cloud files")
        file, place = self._files[self._place], self._place
        self._place += 1
        points = await asyncio.to_thread(read_cloud, file)
        await self._pace()
        if points is None:
            self._tally.lost["unreadable file"] += 1
            return []
        return [self._sample(file, place, points)]

    async def _pace(self) -> None:
        if self._config.realtime:
            self._due_s += self._signal.period_s
            await asyncio.sleep(max(self._due_s - time.monotonic(), 0.0))

    def _sample(self, file: str, place: int, points: Any) -> Sample:
        cloud = self._crop.cloud(points)
        cloud[:, 3] *= self._config.intensity_scale
        self._empty = not len(cloud)
        return Sample(
            signal=self._signal.name,
            t_ns=self._t_ns(file, place),
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
        """Nothing is held open between two files."""
