"""LiDAR: Velodyne packets over UDP, or a series of PCD and PLY files."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from pathlib import Path

from connectors.settings import Supervision, choose, take_beside, utc_ns
from fusion.errors import ConfigError

MODELS = ("VLP16", "PuckLite", "PuckHiRes", "HDL32E", "VLP32A", "VLP32B", "VLP32C", "VLS128", "AlphaPrime")
STAMPS = ("mtime", "name", "start")


@dataclass(kw_only=True, slots=True)
class LidarConfig:
    """One LiDAR that carries ``signal``: packets on the network, or the files in ``paths`` where there are any.

    Packets of a Velodyne ``model`` arrive at ``host:port``, from the address ``sender`` or, without it, the first that
    is heard; their time counts from the top of the hour, and is believed
    while it is within ``clock_tolerance_s`` of arrival. ``paths`` are names or patterns, played in sorted order, one
    cloud each ``signal`` period in ``realtime`` or as fast as they are taken; a cloud is of the file's modification
    time (mtime), of the digits in its name (name: s, ms, us or ns since 1970), or of ``start_time`` plus its place in
    the series (start). ``region`` (lower and upper corner, six numbers [m]) and ``voxel_m`` thin the clouds;
    intensities are multiplied by ``intensity_scale``.
    """

    signal: str
    host: str = "127.0.0.1"
    port: int = 2368
    model: str = "VLP16"
    sender: str = ""
    clock_tolerance_s: float = 2.0
    socket_bytes: int = 2 * 1024 * 1024
    paths: list[str] = field(default_factory=list)
    timestamps: str = "mtime"
    start_time: str | None = None
    realtime: bool = True
    region: list[float] = field(default_factory=list)
    voxel_m: float = 0.0
    intensity_scale: float = 1.0
    supervision: Supervision = field(default_factory=Supervision)

    def __post_init__(self) -> None:
        """Reject what no LiDAR can be read with."""
        choose("lidar.model", self.model, MODELS)
        choose("lidar.timestamps", self.timestamps, STAMPS)
        if not 0 <= self.port < 65536:
            raise ConfigError(f"lidar.port: {self.port} is not accepted; expected 0..65535")
        low, high = self.region[:3], self.region[3:]
        if self.region and (len(self.region) != 6 or any(a >= b for a, b in zip(low, high, strict=False))):
            raise ConfigError("lidar.region: expected x, y, z of the lower corner, then of the upper [m]")
        if self.voxel_m < 0 or self.clock_tolerance_s <= 0:
            raise ConfigError("lidar: voxel_m must not be negative, clock_tolerance_s must be positive")
        if self.paths and (self.timestamps == "start") != (self.start_time is not None):
            raise ConfigError("lidar.start_time: give it exactly where timestamps is start")
        utc_ns("lidar.start_time", self.start_time)

    def beside(self, folder: Path) -> None:
        """Take relative names and patterns from a folder."""
        take_beside(self, Path(glob.escape(str(folder))), "paths")

    def files(self) -> list[str]:
        """The files that the paths and patterns mean now."""
        return [file for path in self.paths for file in sorted(glob.glob(path))]  # noqa: PTH207 - takes whole paths
