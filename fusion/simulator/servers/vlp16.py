"""Point clouds as the data packets of a spinning LiDAR with 16 beams (VLP-16), sent over UDP.

A packet holds 12 blocks of 2 firings of 16 channels: azimuth in 0.01 degree, distance in 2 mm, intensity in one byte,
and the time past the hour in microseconds. Source: VLP-16 User Manual, sections 9.2 to 9.4.

Clouds are in the frame in which decoders deliver them: x along azimuth zero, y to the left, z up; azimuth grows
clockwise seen from above. The channels of a firing fire one after another while the head turns (``SKEW_DEG``), from a
ring about the axis (``RING_M``); both shift where a point can lie.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fusion.records import NS_PER_S

BEAMS, FIRINGS = 16, 360
ELEVATION_DEG = np.array([-15, 1, -13, 3, -11, 5, -9, 7, -7, 9, -5, 11, -3, 13, -1, 15], dtype=np.float64)
STEP_DEG = 360.0 / FIRINGS
FIRING_US, CHANNEL_US = 55.296, 2.304
SKEW_DEG = np.round(np.arange(BEAMS) * CHANNEL_US / FIRING_US * STEP_DEG, 2)
RING_M = 0.04191
QUANTUM_M = 0.002
PACKET_BYTES = 1206
_BLOCKS, _FIRINGS_PER_BLOCK = 12, 2
PACKETS = FIRINGS // (_BLOCKS * _FIRINGS_PER_BLOCK)
_FLAG, _STRONGEST_VLP16 = 0xEEFF, 0x2237
_HOUR_US = 3_600_000_000
_TIE_DEG = 0.02
_UPWARDS = np.argsort(ELEVATION_DEG)
_LOWEST_DEG, _BEAM_DEG = -15.0, 2.0
_CHANNEL = np.dtype([("distance", "<u2"), ("intensity", "u1")])
_BLOCK = np.dtype([("flag", "<u2"), ("azimuth", "<u2"), ("channels", _CHANNEL, (_FIRINGS_PER_BLOCK, BEAMS))])
_PACKET = np.dtype([("blocks", _BLOCK, _BLOCKS), ("time_us", "<u4"), ("factory", "<u2")])


def packets(cloud: NDArray[np.float32], end_ns: int, period_s: float) -> list[tuple[int, bytes]]:
    """One turn of the head [P, 4] that ended at ``end_ns`` [UTC ns], as pairs of time and packet.

    What the cloud lacks is sent as distance zero; of two points in one direction the nearer is sent.
    """
    distance, intensity = firings(cloud)
    shape = (PACKETS, _BLOCKS, _FIRINGS_PER_BLOCK, BEAMS)
    data = np.zeros(PACKETS, _PACKET)
    blocks = data["blocks"]
    blocks["flag"] = _FLAG
    azimuth = np.arange(PACKETS * _BLOCKS) * _FIRINGS_PER_BLOCK * STEP_DEG
    blocks["azimuth"] = np.round(azimuth * 100).astype(np.uint16).reshape(PACKETS, _BLOCKS)
    blocks["channels"]["distance"] = distance.reshape(shape)
    blocks["channels"]["intensity"] = intensity.reshape(shape)
    t_ns = [end_ns - round((PACKETS - i) * period_s / PACKETS * NS_PER_S) for i in range(PACKETS)]
    data["time_us"] = [t // 1000 % _HOUR_US for t in t_ns]
    data["factory"] = _STRONGEST_VLP16
    return [(t, packet.tobytes()) for t, packet in zip(t_ns, data, strict=True)]


def firings(cloud: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Distance in quanta and intensity by firing and channel [FIRINGS, BEAMS]; zero where nothing returned."""
    distance = np.zeros((FIRINGS, BEAMS), np.uint16)
    intensity = np.zeros((FIRINGS, BEAMS), np.uint8)
    x, y, z = cloud[:, :3].astype(np.float64).T
    across = np.hypot(x, y)
    elevation = np.degrees(np.arctan2(z, across - RING_M))
    beam = _UPWARDS[np.clip(np.round((elevation - _LOWEST_DEG) / _BEAM_DEG), 0, BEAMS - 1).astype(np.int64)]
    azimuth = np.degrees(np.arctan2(-y, x)) - SKEW_DEG[beam] + _TIE_DEG
    firing = np.round(azimuth / STEP_DEG).astype(np.int64) % FIRINGS
    quanta = np.round(across / np.cos(np.radians(ELEVATION_DEG[beam])) / QUANTUM_M)
    order = np.argsort(-quanta, kind="stable")
    cell = (firing[order], beam[order])
    distance[cell] = np.clip(quanta[order], 0, 0xFFFF)
    intensity[cell] = np.clip(np.round(cloud[order, 3]), 0, 255)
    return distance, intensity


class PacketSender:
    """Sends packets to one address, and never waits for anybody to take them."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send one packet; where the network has no room it is lost, as it is on the wire."""
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self._socket.sendto(data, self._address)

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
