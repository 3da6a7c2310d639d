"""A supervised source of one LiDAR signal."""

from __future__ import annotations

from dataclasses import replace

from connectors.base import Driver, Source, Tally
from connectors.lidar.config import LidarConfig
from connectors.lidar.crop import Crop
from connectors.lidar.files import CloudPlayer, Series
from connectors.settings import signal_of
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Signal

IMPORT_S = 60.0
"""What the first file may take: its reader has to be loaded."""


def source(config: LidarConfig, plant: Plant, name: str = "lidar") -> Source:
    """A source of one LiDAR signal.

    Raises:
        ConfigError: a signal that the plant does not have, or one of another shape.
    """
    signal = signal_of(plant, "lidar.signal", config.signal, Modality.LIDAR)
    if len(signal.shape) != 2 or signal.shape[1] != 4:
        raise ConfigError(f"lidar.signal: {signal.name!r} has shape {signal.shape}; expected (points, 4)")
    return _player(config, signal, name) if config.paths else _listener(config, signal, name)


def _listener(config: LidarConfig, signal: Signal, name: str) -> Source:
    from connectors.lidar.velodyne import VelodyneListener

    tally = Tally()
    crop = Crop(signal.shape[0], config.region, config.voxel_m)

    def connect() -> Driver:
        return VelodyneListener(config, signal.name, crop, tally)

    return Source(name, [signal], connect, config.supervision, tally=tally)


def _player(config: LidarConfig, signal: Signal, name: str) -> Source:
    tally = Tally()
    crop = Crop(signal.shape[0], config.region, config.voxel_m)

    series = Series()

    def connect() -> Driver:
        return CloudPlayer(config, signal, crop, tally, series)

    patience_s = max(config.supervision.open_timeout_s, IMPORT_S)
    silence_s = max(config.supervision.stale_after_s, 3 * signal.period_s, IMPORT_S)
    waits = config.supervision.overflow if config.realtime else "wait"
    supervision = replace(config.supervision, open_timeout_s=patience_s, stale_after_s=silence_s, overflow=waits)
    return Source(name, [signal], connect, supervision, tally=tally)
