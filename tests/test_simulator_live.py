import asyncio
import collections
import contextlib
import json
import logging
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import velodyne_decoder
from asyncua import Client, ua
from paho.mqtt.client import Client as MqttClient
from paho.mqtt.client import MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from fusion.errors import ConfigError, FusionError
from fusion.mqtt.broker import Broker
from fusion.plant import Modality, Plant, Role, Signal
from fusion.plant_file import load_plant
from fusion.records import NS_PER_S, Columns, Quality, Sample
from fusion.simulator.live import LiveConfig, Orders, serve
from fusion.simulator.scenario import Scenario
from fusion.simulator.schedule import Media, Outflow, Pace, Packet, Values, due_events
from fusion.simulator.servers.broker import LocalBroker, find_mosquitto
from fusion.simulator.servers.mqtt_tags import MqttTags, json_payload
from fusion.simulator.servers.vlp16 import PACKETS
from fusion.simulator.simulation import Simulation

PLANT = Plant(
    name="tiny",
    signals=(
        Signal(name="TT1", unit="Cel"),
        Signal(name="FT1", unit="L/s"),
        Signal(name="LT1"),
        Signal(name="TIC1.SP", low=74.0, high=90.0, role=Role.MANIPULATED),
        Signal(name="camera", modality=Modality.VIDEO, shape=(32, 32), period_s=0.5),
        Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
        Signal(name="lidar", modality=Modality.LIDAR, shape=(5760, 4), period_s=0.2),
    ),
)
T_NS = 1_700_000_000 * NS_PER_S
TAGS = ("TT1", "FT1", "LT1", "TIC1.SP")


class FakePlant:
    """Counts its seconds into every tag; one picture, chunk and cloud in each; ``cost_s`` to compute one."""

    def __init__(self, cost_s=0.0, broken_after=None):
        self.t_ns = T_NS
        self.setpoint = 80.0
        self.faults = {}
        self.cost_s, self.broken_after = cost_s, broken_after
        self.threads = set()

    def advance(self, seconds=1.0):
        self.threads.add(threading.get_ident())
        time.sleep(self.cost_s)
        self.t_ns += round(seconds * NS_PER_S)
        count = (self.t_ns - T_NS) / NS_PER_S
        if self.broken_after is not None and count > self.broken_after:
            raise RuntimeError("the plant broke")
        angles = np.linspace(0, 2 * np.pi, 500, endpoint=False)
        cloud = np.stack([5 * np.cos(angles), 5 * np.sin(angles), np.zeros(500), np.full(500, 9.0)], 1)
        stamps = {"t_ns": self.t_ns, "received_ns": self.t_ns}
        return [
            columns((count, count, count, self.setpoint), self.t_ns),
            Sample(signal="camera", value=np.full((32, 32), 99, np.uint8), **stamps),
            Sample(signal="microphone", value=np.zeros(1600, np.float32), **stamps),
            Sample(signal="lidar", value=cloud, **stamps),
        ]

    def inject(self, name, severity=1.0, ramp_s=0.0):
        if name != "leak":
            raise ConfigError(f"fault {name!r} is not known; accepted: leak")
        self.faults[name] = severity

    def clear(self, name=None):
        self.faults = {k: v for k, v in self.faults.items() if name not in (None, k)}

    def set(self, signal, value):
        self.setpoint = value

    def active(self):
        return dict(self.faults)


def columns(values, t_ns, received_ns=None, quality=Quality.GOOD):
    n = len(values)
    return Columns(
        signals=TAGS,
        index=np.arange(n, dtype=np.int32),
        t_ns=np.broadcast_to(t_ns, n),
        received_ns=np.broadcast_to(t_ns if received_ns is None else received_ns, n),
        value=np.array(values, float),
        quality=np.full(n, quality, np.uint8),
    )


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# -- when things leave


def test_plant_time_is_carried_to_the_wall_clock():
    pace = Pace(T_NS, 5 * NS_PER_S, speed=2.0)
    assert pace.wall_ns(T_NS + 3 * NS_PER_S) == 6_500_000_000


def test_slow_machine_stretches_plant_time_and_says_so_once(caplog):
    pace = Pace(T_NS, 0, speed=1.0)
    pace.settle(T_NS, NS_PER_S // 10)
    assert (pace.behind_ns, caplog.text) == (0, "")
    for second in range(3):
        now_ns = pace.wall_ns(T_NS + second * NS_PER_S) + NS_PER_S
        pace.settle(T_NS + second * NS_PER_S, now_ns)
        assert pace.wall_ns(T_NS + second * NS_PER_S) == now_ns
    assert pace.behind_ns == 3 * NS_PER_S
    assert caplog.text.count("too slow") == 1


def test_items_leave_when_they_were_to_arrive_and_carry_source_time():
    pace = Pace(T_NS, 0, speed=1.0)
    late = np.array([10, 10, 20, 10]) * 1_000_000
    values = columns((1, 2, 3, 4), T_NS, received_ns=T_NS + late)
    picture = Sample(signal="camera", t_ns=T_NS, received_ns=T_NS + 7, value=np.zeros((32, 32), np.uint8))
    events = list(due_events([values, picture], PLANT, pace))
    assert [due for due, _ in events] == [10_000_000, 20_000_000, 7]
    assert [row[0] for row in events[0][1].rows] == ["TT1", "FT1", "TIC1.SP"]
    assert events[1][1] == Values(rows=(("LT1", 3.0, 0, 2),))
    assert isinstance(events[2][1], Media)
    assert events[2][1].t_ns == 0


def test_packets_leave_while_the_head_turns():
    cloud = Sample(signal="lidar", t_ns=T_NS, received_ns=T_NS + 9, value=np.ones((1, 4)))
    events = list(due_events([cloud], PLANT, Pace(T_NS, 10 * NS_PER_S, speed=1.0)))
    dues = [due for due, _ in events]
    assert all(isinstance(event, Packet) for _, event in events)
    assert dues[0] == 10 * NS_PER_S - 200_000_000 + 9
    assert set(np.diff(dues)) <= {13_333_333, 13_333_334}


def test_simulated_line_is_served_completely():
    plant = load_plant(Path(__file__).parents[1] / "configs" / "plant" / "lime.yaml")
    line = Simulation(Scenario(warmup_s=5.0), plant)
    items = [item for _ in range(2) for item in line.advance()]
    events = [event for _, event in due_events(items, plant, Pace(line.t_ns, 0, speed=1.0))]
    counts = collections.Counter(event.signal if isinstance(event, Media) else type(event) for event in events)
    assert counts["camera"] == counts["microphone"] == 20
    assert counts[Packet] == 2 * 5 * PACKETS
    tags = {row[0] for event in events if isinstance(event, Values) for row in event.rows}
    assert tags == {signal.name for signal in plant.of(Modality.PROCESS)}
    assert {*LiveConfig().as_json, *LiveConfig().as_plain} <= tags


def test_outflow_keeps_due_order_and_wakes_for_earlier_news():
    async def scenario():
        now = [0]
        outflow = Outflow(lambda: now[0])
        outflow.add([(3600 * NS_PER_S, Packet(data=b"far"))])
        waiting = asyncio.create_task(outflow.next())
        await asyncio.sleep(0)
        outflow.add([(0, Packet(data=b"b")), (-1, Packet(data=b"a")), (0, Packet(data=b"c"))])
        found = [(await waiting).data, (await outflow.next()).data, (await outflow.next()).data]
        now[0] = 3600 * NS_PER_S
        return [*found, (await outflow.next()).data]

    assert asyncio.run(scenario()) == [b"a", b"b", b"c", b"far"]


# -- orders


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"no json", "Expecting value"),
        (b"[1]", "list"),
        (b"{}", "op"),
        (b'{"op":"dance"}', "accepted: fault, clear, set"),
        (b'{"op":"fault"}', "name"),
        (b'{"op":"fault","name":"storm"}', "accepted: leak"),
        (b'{"op":"fault","name":"leak","severity":"x"}', "could not convert"),
        (b'{"op":"set","signal":"TT1","value":1}', "accepted: TIC1.SP"),
        (b'{"op":"set","signal":"TIC1.SP"}', "finite number"),
    ],
)
def test_senseless_order_is_refused_and_said_so(payload, said, caplog):
    orders, plant = Orders(PLANT), FakePlant()
    orders.take(payload)
    orders.carry_out(plant)
    assert said in orders.said
    assert "refused" in caplog.text
    assert (plant.faults, plant.setpoint) == ({}, 80.0)


def test_orders_reach_the_plant_and_stay_within_limits():
    orders, plant = Orders(PLANT), FakePlant()
    orders.take(b'{"op":"fault","name":"leak","severity":0.5,"ramp_s":3}')
    orders.take(b'{"op":"set","signal":"TIC1.SP","value":200}')
    orders.carry_out(plant)
    assert (plant.faults, plant.setpoint, orders.said) == ({"leak": 0.5}, 90.0, "")
    orders.take(b'{"op":"clear"}')
    orders.carry_out(plant)
    assert plant.faults == {}


# -- configuration and payloads


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"opcua_port": 70000}, "opcua_port: 70000"),
        ({"lidar_port": 0}, "0 is not accepted"),
        ({"speed": 0.0}, "speed must be positive"),
    ],
)
def test_impossible_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        LiveConfig(**settings)


def test_json_payload_says_value_time_and_quality():
    assert json.loads(json_payload(1.5, T_NS, Quality.UNCERTAIN)) == {
        "value": 1.5,
        "t_ns": T_NS,
        "quality": "uncertain",
    }
    assert json.loads(json_payload(float("nan"), T_NS, Quality.BAD))["value"] is None


def test_missing_broker_is_named():
    port = free_port(socket.SOCK_STREAM)

    async def scenario():
        async with MqttTags("tiny", Broker(port=port), as_json=(), as_plain=(), order=lambda _: None):
            pass

    with pytest.raises(FusionError, match=f"broker 127.0.0.1:{port} cannot be reached"):
        asyncio.run(scenario())


# -- the whole plant


def config(**more):
    ports = {"opcua_port": 0, "mqtt_port": 0, "rtsp_port": 0, "lidar_port": free_port()}
    return LiveConfig(**{**ports, "as_json": ("FT1",), "as_plain": ("LT1",), **more})


@contextlib.asynccontextmanager
async def running(plant, settings):
    """The plant behind its servers; stopping takes less than three seconds and leaves no task behind."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(plant, PLANT, settings, stop, ready))
    waiter = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiter}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    try:
        yield task
    finally:
        stop.set()
        begun = time.monotonic()
        await task
        assert time.monotonic() - begun < 3
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("plant")]


class Ear:
    """Everything the broker delivers."""

    def __init__(self, port):
        self.heard = []
        self._client = MqttClient(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_message = lambda _c, _u, message: self.heard.append((message.topic, message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def order(self, **body):
        self._client.publish("simulator/tiny/command", json.dumps(body), 1)

    def on(self, topic):
        return [payload for name, payload in self.heard if name == topic]

    def status(self):
        return json.loads((self.on("simulator/tiny/status") or [b"{}"])[-1])

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


async def until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)
    return found


def test_plant_speaks_through_every_server_and_obeys(caplog):
    plant, settings = FakePlant(), config(speed=4.0)
    caplog.set_level(logging.WARNING, "fusion")

    async def scenario():
        async with running(plant, settings):
            ear = Ear(settings.mqtt_port)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lidar:
                lidar.bind(("127.0.0.1", settings.lidar_port))
                lidar.setblocking(False)
                await through_mqtt(ear, plant)
                await through_opcua(settings.opcua_port, plant)
                decoder = velodyne_decoder.StreamDecoder(velodyne_decoder.Config(model=velodyne_decoder.Model.VLP16))
                packets = [await asyncio.get_running_loop().sock_recv(lidar, 2000) for _ in range(20)]
                scans = [found for p in packets if (found := decoder.decode(time.time(), p)) is not None]
                assert len(np.asarray(scans[0][1])) > 300
            assert plant.threads
            assert threading.get_ident() not in plant.threads
        assert await until(lambda: ear.status().get("state") == "offline")
        ear.close()

    asyncio.run(scenario())
    assert not [record for record in caplog.records if record.name.startswith("fusion")]


async def through_mqtt(ear, plant):
    body = json.loads((await until(lambda: ear.on("plant/tiny/FT1")))[-1])
    assert body["quality"] == "good"
    assert abs(body["t_ns"] - time.time_ns()) < NS_PER_S // 2
    assert float((await until(lambda: ear.on("plant/tiny/LT1")))[-1]) >= 1
    assert not ear.on("plant/tiny/TT1")
    ear.order(op="fault", name="leak", severity=0.25)
    await until(lambda: ear.status().get("active") == [{"name": "leak", "severity": 0.25}])
    assert ear.status()["running"] is True
    ear.order(op="clear", name="leak")
    await until(lambda: not ear.status()["active"])


async def through_opcua(port, plant):
    async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
        index = await client.get_namespace_index("urn:fusion:tiny")
        value = await client.get_node(ua.NodeId("TT1", index)).read_data_value()
        assert abs(value.SourceTimestamp.timestamp() - time.time()) < 0.6
        await client.get_node(ua.NodeId("TIC1.SP", index)).write_value(85.0)
        await until(lambda: plant.setpoint == 85.0)


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_plant_uses_a_broker_that_runs_already():
    async def scenario():
        async with LocalBroker() as server, running(FakePlant(), config(broker=Broker(port=server.port))):
            ear = Ear(server.port)
            await until(lambda: ear.on("plant/tiny/FT1"))
            ear.close()

    asyncio.run(scenario())


def test_slow_plant_stays_near_wall_time_without_bursts(caplog):
    plant, settings = FakePlant(cost_s=0.5), config(speed=4.0)

    async def scenario():
        async with running(plant, settings):
            ear, arrivals = Ear(settings.mqtt_port), []
            await until(lambda: len(ear.on("plant/tiny/FT1")) >= 4)
            arrivals = [json.loads(payload)["t_ns"] for payload in ear.on("plant/tiny/FT1")]
            behind_s = ear.status()["behind_s"]
            ear.close()
            return arrivals, time.time_ns(), behind_s

    stamps, now_ns, behind_s = asyncio.run(scenario())
    assert abs(now_ns - stamps[-1]) < NS_PER_S
    assert min(np.diff(stamps)) > NS_PER_S // 4
    assert behind_s > 0.2
    assert caplog.text.count("too slow") == 1


def test_plant_that_breaks_takes_its_servers_down():
    settings = config(speed=10.0)

    async def scenario():
        await asyncio.wait_for(serve(FakePlant(broken_after=1), PLANT, settings, asyncio.Event()), 20)

    with pytest.raises(RuntimeError, match="the plant broke"):
        asyncio.run(scenario())
    for port in (settings.mqtt_port, settings.opcua_port, settings.rtsp_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)


def test_taken_port_is_named_before_anything_runs():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plant = FakePlant()
        with pytest.raises(ConfigError, match=f"rtsp_port: 127.0.0.1:{port}"):
            asyncio.run(serve(plant, PLANT, config(rtsp_port=port), asyncio.Event()))
    assert plant.t_ns == T_NS
