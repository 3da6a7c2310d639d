"""The simulated plant in real time, behind the servers of a real one: OPC UA, MQTT, RTSP and LiDAR packets."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from fusion.clock import CLOCK
from fusion.errors import ConfigError
from fusion.mqtt.broker import Broker
from fusion.plant import Modality, Plant, Role
from fusion.records import NS_PER_S, Item
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.schedule import Due, Media, Outflow, Pace, Packet, due_events
from fusion.simulator.servers.broker import LocalBroker
from fusion.simulator.servers.mqtt_tags import MqttTags
from fusion.simulator.servers.opcua_server import OpcUaServer
from fusion.simulator.servers.rtsp import RtspServer
from fusion.simulator.servers.vlp16 import PacketSender

log = logging.getLogger(__name__)

STEP_S = 1.0
AS_JSON = ("FT102", "PT102", "IT104", "SC102", "DT201", "FV201", "FT103", "LT201")
AS_PLAIN = ("LT001", "TT103")


class Simulated(Protocol):
    """What a plant must do to be served."""

    @property
    def t_ns(self) -> int:
        """Plant time now [UTC ns]."""

    def advance(self, seconds: float = 1.0) -> list[Item]:
        """Advance; everything the sensors sent meanwhile."""

    def inject(self, name: str, severity: float = 1.0, ramp_s: float = 0.0) -> None:
        """Start a fault now."""

    def clear(self, name: str | None = None) -> None:
        """End one fault, or all."""

    def set(self, signal: str, value: float) -> None:
        """Move a manipulated signal."""

    def active(self) -> dict[str, float]:
        """Present faults with their severity."""


@dataclass(kw_only=True, slots=True)
class LiveConfig:
    """Where the plant is served. Ports of servers may be 0: a free one is taken and written back here.

    The LiDAR sends to ``lidar_port``. Tags in ``as_json`` and ``as_plain`` are published by MQTT, all others are on
    the OPC UA server. Without a ``broker`` that runs already, one is started on ``mqtt_port``. ``speed`` is plant
    seconds per second; items are computed ``lead_s`` before their second begins.
    """

    host: str = "127.0.0.1"
    opcua_port: int = 4840
    mqtt_port: int = 1883
    rtsp_port: int = 8554
    lidar_port: int = 2368
    broker: Broker | None = None
    as_json: tuple[str, ...] = AS_JSON
    as_plain: tuple[str, ...] = AS_PLAIN
    opcua_users: dict[str, str] = field(default_factory=dict, repr=False)
    rtsp_login: tuple[str, str] | None = field(default=None, repr=False)
    speed: float = 1.0
    lead_s: float = 0.4

    def __post_init__(self) -> None:
        """Reject ports and speeds that cannot be."""
        for name in ("opcua_port", "mqtt_port", "rtsp_port", "lidar_port"):
            if not 0 <= getattr(self, name) < 65536:
                raise ConfigError(f"{name}: {getattr(self, name)} is not accepted; expected 0..65535")
        if self.lidar_port == 0:
            raise ConfigError("lidar_port: names somebody else's port: 0 is not accepted")
        if not self.speed > 0 or not 0 <= self.lead_s <= STEP_S:
            raise ConfigError(f"speed must be positive and lead_s in 0..{STEP_S:g}")


async def serve(
    simulation: Simulated, plant: Plant, config: LiveConfig, stop: asyncio.Event, ready: asyncio.Event | None = None
) -> None:
    """Run the plant until ``stop`` is set; ``ready`` is set once all servers listen.

    Raises:
        ConfigError: where a port is taken.
        FusionError: where a broker cannot be started or reached.
    """
    async with AsyncExitStack() as stack:
        orders = Orders(plant)
        live = await _open(stack, simulation, plant, config, orders)
        log.info(
            "plant %s: opc ua %d, mqtt %d, rtsp %d", plant.name, config.opcua_port, config.mqtt_port, config.rtsp_port
        )
        tasks = {asyncio.create_task(coroutine) for coroutine in (live.produce(), live.emit(), stop.wait())}
        if ready is not None:
            ready.set()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _open(
    stack: AsyncExitStack, simulation: Simulated, plant: Plant, config: LiveConfig, orders: Orders
) -> LivePlant:
    """Start every server; what was started is stopped in reverse order."""
    user, password = config.rtsp_login or ("", None)
    media = plant.of(Modality.VIDEO, Modality.AUDIO)
    rtsp = await stack.enter_async_context(
        RtspServer(config.host, config.rtsp_port, media, username=user, password=password)
    )
    tags = MqttTags(
        plant.name,
        config.broker or await _local_broker(stack, config),
        as_json=config.as_json,
        as_plain=config.as_plain,
        order=orders.take,
    )
    await stack.enter_async_context(tags)
    published = {*config.as_json, *config.as_plain}
    served = [s for s in plant.of(Modality.PROCESS) if s.name not in published]
    opcua = await stack.enter_async_context(
        OpcUaServer(plant, served, config.host, config.opcua_port, written=orders.move, users=config.opcua_users)
    )
    config.opcua_port, config.rtsp_port = opcua.port, rtsp.port
    sender = stack.enter_context(PacketSender(config.host, config.lidar_port))
    worker = stack.enter_context(ThreadPoolExecutor(1, "plant"))
    return LivePlant(simulation, plant, config, orders, worker, PlantServers(opcua, rtsp, tags, sender))


async def _local_broker(stack: AsyncExitStack, config: LiveConfig) -> Broker:
    server = await stack.enter_async_context(LocalBroker(config.host, config.mqtt_port))
    config.mqtt_port = server.port
    return Broker(host=config.host, port=server.port, protocol="auto" if server.speaks_v5 else "3.1.1")


@dataclass(frozen=True, slots=True)
class PlantServers:
    """The servers that the plant speaks through."""

    opcua: OpcUaServer
    rtsp: RtspServer
    tags: MqttTags
    lidar: PacketSender


class Orders:
    """What clients want of the plant, until its next second is computed; ``said`` is what became of the last one."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._waiting: deque[Callable[[Simulated], None]] = deque()
        self.said = ""

    def move(self, tag: str, value: float) -> None:
        """Move a manipulated signal, within its limits as a control system would."""
        signal = self._plant.by_name.get(tag)
        if signal is None or signal.role is not Role.MANIPULATED:
            raise ConfigError(
                f"signal {tag!r} cannot be set; accepted: {', '.join(s.name for s in self._plant.actions)}"
            )
        bounded = min(max(value, _limit(signal.low, -math.inf)), _limit(signal.high, math.inf))
        self._waiting.append(lambda simulation: simulation.set(tag, bounded))

    def take(self, payload: bytes) -> None:
        """An order as JSON; one that makes no sense is refused and said so."""
        try:
            self._read(json.loads(payload))
        except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._refuse(error)

    def carry_out(self, simulation: Simulated) -> None:
        """Hand everything that waits to the simulation."""
        while self._waiting:
            try:
                self._waiting.popleft()(simulation)
                self.said = ""
            except ConfigError as error:
                self._refuse(error)

    def _read(self, order: dict[str, Any]) -> None:
        match order["op"]:
            case "fault":
                name, severity, ramp_s = (
                    str(order["name"]),
                    _number(order, "severity", 1.0),
                    _number(order, "ramp_s", 0.0),
                )
                self._waiting.append(lambda simulation: simulation.inject(name, severity, ramp_s))
            case "clear":
                which = None if order.get("name") is None else str(order["name"])
                self._waiting.append(lambda simulation: simulation.clear(which))
            case "set":
                self.move(str(order["signal"]), _number(order, "value", math.nan))
            case other:
                raise ConfigError(f"op {other!r} is not known; accepted: fault, clear, set")

    def _refuse(self, error: Exception) -> None:
        self.said = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        log.warning("an order was refused: %s", self.said)


def _limit(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _number(order: dict[str, Any], key: str, default: float) -> float:
    number = float(order.get(key, default))
    if not math.isfinite(number):
        raise ConfigError(f"{key}: {order.get(key)!r} is not accepted; expected a finite number")
    return number


class LivePlant:
    """Computes each second a little before it begins, in a worker thread, and lets every item leave at its own time."""

    def __init__(
        self,
        simulation: Simulated,
        plant: Plant,
        config: LiveConfig,
        orders: Orders,
        worker: ThreadPoolExecutor,
        outlets: PlantServers,
    ) -> None:
        self._simulation, self._plant, self._config = simulation, plant, config
        self._orders, self._worker, self._out = orders, worker, outlets
        self._now_ns = CLOCK.now_ns
        self._outflow = Outflow(self._now_ns)
        self._published = {*config.as_json, *config.as_plain}
        self._pace: Pace | None = None
        self._cost_ns = 0

    async def produce(self) -> None:
        """Compute second after second."""
        loop = asyncio.get_running_loop()
        lead_ns = round(self._config.lead_s * NS_PER_S)
        self._pace = Pace(self._simulation.t_ns, self._now_ns() + lead_ns, self._config.speed)
        while True:
            begins_ns = self._pace.wall_ns(self._simulation.t_ns)
            ahead_ns = max(round(self._config.lead_s / self._config.speed * NS_PER_S), self._cost_ns * 5 // 4)
            await asyncio.sleep(max(begins_ns - ahead_ns - self._now_ns(), 0) / NS_PER_S)
            events, active = await loop.run_in_executor(self._worker, self._compute, self._pace)
            self._outflow.add(events)
            self._say(active)

    def _compute(self, pace: Pace) -> tuple[list[Due], dict[str, float]]:
        """One plant second, in the worker thread: orders first, then what leaves and when."""
        begun_ns = self._now_ns()
        self._orders.carry_out(self._simulation)
        from_ns = self._simulation.t_ns
        items = self._simulation.advance(STEP_S)
        pace.settle(from_ns, self._now_ns())
        events = list(due_events(items, self._plant, pace))
        self._cost_ns = self._now_ns() - begun_ns
        return events, self._simulation.active()

    async def emit(self) -> None:
        """Let everything leave when it is due."""
        while True:
            match await self._outflow.next():
                case Packet(data=data):
                    self._out.lidar.send(data)
                case Media(signal=signal, value=value, t_ns=t_ns):
                    self._out.rtsp.push(signal, value, t_ns)
                case values:
                    for row in values.rows:
                        if row[0] in self._published:
                            self._out.tags.publish(*row)
                        else:
                            await self._out.opcua.write(*row)

    def _say(self, active: dict[str, float]) -> None:
        status = {
            "state": "running",
            "running": True,
            "faults": list(FAULTS),
            "active": [{"name": name, "severity": severity} for name, severity in active.items()],
            "behind_s": (self._pace.behind_ns if self._pace else 0) / NS_PER_S,
            "message": self._orders.said,
            "t_ns": self._now_ns(),
        }
        self._out.tags.status(status)
