"""A Velodyne LiDAR over UDP: packets into scans, the sensor's hour into UTC."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import numpy as np
import velodyne_decoder  # type: ignore[import-untyped]

from connectors.base import ARRIVAL_CLOCK, Tally
from connectors.inbox import Inbox
from connectors.lidar.config import LidarConfig
from connectors.lidar.crop import Crop
from connectors.lidar.turns import Turns
from fusion.clock import CLOCK
from fusion.errors import SourceError
from fusion.records import NS_PER_S, Item, Quality, Sample

POSITION_PACKET = velodyne_decoder.TELEMETRY_PACKET_SIZE
HOUR_NS = 3600 * NS_PER_S
SCANS_WAITING = 100
BLOCK_FLAG = b"\xff\xee"
SENDER_GONE_NS = NS_PER_S


def from_hour(device_ns: int, arrived_ns: int) -> int:
    """UTC of a stamp that counts from the top of some hour, taken closest to its arrival."""
    offset_ns = (device_ns - arrived_ns) % HOUR_NS
    return arrived_ns + (offset_ns - HOUR_NS if offset_ns > HOUR_NS // 2 else offset_ns)


class VelodyneListener(asyncio.DatagramProtocol):
    """Listens on one port; a scan is delivered with the first packet of the next turn of the head."""

    def __init__(self, config: LidarConfig, signal: str, crop: Crop, tally: Tally) -> None:
        self._config = config
        self._signal = signal
        self._crop = crop
        self._tally = tally
        self._tolerance_ns = round(config.clock_tolerance_s * NS_PER_S)
        self._clock = f"lidar:{config.host}:{config.port}"
        self._inbox: Inbox[Sample] = Inbox(SCANS_WAITING)
        self._lost_counted = 0
        self._transport: asyncio.BaseTransport | None = None
        self._off_s: float | None = None
        self._empty = False
        self._heard = asyncio.Event()
        model = velodyne_decoder.Model.__members__[config.model]
        self._decoder = velodyne_decoder.ScanDecoder(velodyne_decoder.Config(model=model))
        self._foreign = f"packet of no {config.model}"
        self._turns: Turns[Any] = Turns(tally)
        self._sender = config.sender
        self._heard_ns = 0
        self._device_ns = -1

    @property
    def message(self) -> str:
        """A sensor that sees nothing, or whose clock cannot be believed or stands still."""
        clock = f"sensor clock is off by {self._off_s:.1f} s, arrival times are used" if self._off_s is not None else ""
        return "; ".join(part for part in (clock, "empty cloud" if self._empty else "") if part)

    async def open(self) -> None:
        """Bind the port, with room for a moment's packets, and wait for the first one."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._config.socket_bytes)
            listener.bind((self._config.host, self._config.port))
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise SourceError(f"udp {self._config.host}:{self._config.port}: {error.strerror}") from error
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listener)
        await self._heard.wait()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """One packet; what is none is counted."""
        if len(data) != velodyne_decoder.PACKET_SIZE:
            self._tally.lost["packet of wrong size"] += len(data) != POSITION_PACKET
            return
        self._heard.set()
        if not data.startswith(BLOCK_FLAG):
            self._tally.lost[self._foreign] += 1
            return
        received_ns = CLOCK.now_ns()
        if not self._from_our_sensor(addr[0], received_ns):
            self._tally.note("packet of another sender", addr[0])
            return
        packet = velodyne_decoder.VelodynePacket(received_ns / NS_PER_S, data)
        turn = self._turns.take(data, packet, received_ns)
        if turn:
            self._deliver(turn, received_ns)

    def _from_our_sensor(self, sender: str, received_ns: int) -> bool:
        """Whether a packet is from the configured sensor, or the first that was heard while that goes on sending."""
        if not self._config.sender and received_ns - self._heard_ns > SENDER_GONE_NS:
            self._sender = sender
        if sender != self._sender:
            return False
        self._heard_ns = received_ns
        return True

    def _deliver(self, turn: list[Any], received_ns: int) -> None:
        """The head has come round: decode the packets of its turn, but for those that are of another model."""
        decoded = self._decoded(turn)
        if decoded is None:
            whole = [packet for packet in turn if self._decoded([packet]) is not None]
            self._tally.lost[self._foreign] += len(turn) - len(whole)
            decoded = self._decoded(whole) if whole else None
        if decoded is not None:
            stamp, points = decoded
            self._inbox.put(self._sample(round(stamp.device * NS_PER_S), np.asarray(points)[:, :4], received_ns))

    def _decoded(self, packets: list[Any]) -> tuple[Any, Any] | None:
        try:
            return self._decoder.decode(packets)  # type: ignore[no-any-return]
        except (RuntimeError, ValueError):
            return None

    def _sample(self, device_ns: int, points: Any, received_ns: int) -> Sample:
        cloud = self._crop.cloud(points)
        cloud[:, 3] *= self._config.intensity_scale
        self._empty = not len(cloud)
        t_ns = from_hour(device_ns, received_ns)
        believed = abs(t_ns - received_ns) <= self._tolerance_ns and device_ns != self._device_ns
        self._device_ns = device_ns
        self._off_s = None if believed else (t_ns - received_ns) / NS_PER_S
        return Sample(
            signal=self._signal,
            t_ns=t_ns if believed else received_ns,
            received_ns=received_ns,
            value=cloud,
            quality=Quality.UNCERTAIN if self._empty else Quality.GOOD,
            clock=self._clock if believed else ARRIVAL_CLOCK,
        )

    def error_received(self, exc: Exception) -> None:
        """The socket reports an error."""
        self._inbox.fail(SourceError(f"udp {self._config.host}:{self._config.port}: {exc}"))

    async def read(self) -> list[Item]:
        """The scans that were completed."""
        scans = await self._inbox.take()
        lost, self._lost_counted = self._inbox.dropped - self._lost_counted, self._inbox.dropped
        if lost:
            self._tally.lost["inbox full"] += lost
        return [*scans]

    async def close(self) -> None:
        """Release the port."""
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)  # the transport closes its socket on the next turn of the loop
