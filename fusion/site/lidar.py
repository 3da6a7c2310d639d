"""What a LiDAR sends: packets of a Velodyne on a UDP port, points in a scan, and scans in a second."""

from __future__ import annotations

import asyncio
import time

from connectors.base import ARRIVAL_CLOCK, Tally, bounded
from connectors.lidar.config import LidarConfig
from connectors.lidar.crop import Crop
from connectors.lidar.velodyne import VelodyneListener
from fusion.errors import SourceError
from fusion.plant import Modality, Signal
from fusion.records import Sample
from fusion.site.found import Found, FoundSignal

MOST_POINTS = 400_000
LONGEST_LOOK_S = 5.0
ROOM = 1.1
NAME = "lidar"


async def discover(config: LidarConfig, seconds: float) -> Found:
    """The scans that arrive at a port.

    Raises:
        SourceError: the port is taken, or nothing came.
    """
    tally = Tally()
    listener = VelodyneListener(config, NAME, Crop(MOST_POINTS, [], 0.0), tally)
    scans: list[Sample] = []
    try:
        await bounded(listener.open(), seconds)
        deadline = time.monotonic() + min(seconds, LONGEST_LOOK_S)
        while (left_s := deadline - time.monotonic()) > 0:
            scans += [item for item in await asyncio.wait_for(listener.read(), left_s) if isinstance(item, Sample)]
    except TimeoutError:
        pass
    finally:
        await listener.close()
    if not scans:
        lost = "; ".join(f"{count} times {reason}" for reason, count in tally.lost.items())
        raise SourceError(
            f"udp {config.host}:{config.port}: no scan of a {config.model} in {seconds:g} s. {lost}".strip()
        )
    url = f"lidar://{config.host}:{config.port}"
    return Found(url=url, connector="lidar", media=[_signal(config, scans)])


def _signal(config: LidarConfig, scans: list[Sample]) -> FoundSignal:
    points = max(len(scan.value) for scan in scans)
    span_s = (scans[-1].received_ns - scans[0].received_ns) / 1e9
    rate_hz = (len(scans) - 1) / span_s if span_s > 0 else 0.0
    period_s = float(f"{1.0 / rate_hz:.2g}") if rate_hz else 0.1
    doubts = ["pose: where is it? x, y, z [m], roll, pitch, yaw [rad] in the plant's frame"]
    if any(scan.clock == ARRIVAL_CLOCK for scan in scans):
        doubts.append("its clock cannot be believed: it is stamped by its arrival")
    signal = Signal(
        name=NAME,
        modality=Modality.LIDAR,
        shape=(round(ROOM * points), 4),
        period_s=period_s,
        stale_after_s=max(3.0, 5 * period_s),
        description=f"{config.model}, {points} points in a scan, {rate_hz:.3g} scans/s",
    )
    return FoundSignal(signal=signal, why="room for the largest scan seen", doubts=tuple(doubts))
