import asyncio
import contextlib
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import velodyne_decoder
from asyncua import Client, ua

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Role, Signal
from fusion.records import NS_PER_S, Quality
from fusion.simulator.servers import broker as broker_module
from fusion.simulator.servers import vlp16
from fusion.simulator.servers.broker import LocalBroker, find_mosquitto
from fusion.simulator.servers.opcua_server import OpcUaServer

PLANT = Plant(
    name="tiny",
    signals=(
        Signal(name="TT1", unit="Cel", low=0.0, high=120.0, description="slaker temperature"),
        Signal(name="TIC1.SP", unit="Cel", low=74.0, high=90.0, role=Role.MANIPULATED),
    ),
)
T_NS = 1_800_000_000_123_456_000
needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")


# -- VLP-16


def room(rng, low_m=1.0, high_m=20.0):
    """A cloud where the device can see points: every firing and channel, at random distances."""
    elevation = np.radians(vlp16.ELEVATION_DEG)
    azimuth = np.radians(np.arange(vlp16.FIRINGS)[:, None] * vlp16.STEP_DEG + vlp16.SKEW_DEG)
    across = rng.uniform(low_m, high_m, azimuth.shape) * np.cos(elevation)
    up = (across - vlp16.RING_M) * np.tan(elevation)
    intensity = rng.integers(1, 256, azimuth.shape)
    return np.stack([across * np.cos(azimuth), -across * np.sin(azimuth), up, intensity], -1).astype(np.float32)


def decoded(clouds, end_ns, period_s=0.2):
    decoder = velodyne_decoder.StreamDecoder(velodyne_decoder.Config(model=velodyne_decoder.Model.VLP16))
    found = []
    for number, cloud in enumerate(clouds):
        for t_ns, packet in vlp16.packets(cloud, end_ns + round(number * period_s * NS_PER_S), period_s):
            assert len(packet) == vlp16.PACKET_BYTES
            scan = decoder.decode(t_ns / NS_PER_S, packet)
            found += [] if scan is None else [scan]
    return found


def test_clouds_come_back_from_an_independent_decoder():
    cloud = room(np.random.default_rng(1))
    scans = decoded([cloud.reshape(-1, 4)] * 3, T_NS)
    assert len(scans) == 2
    points = np.asarray(scans[1][1])
    order = {(round(float(p[5])), round(float(p[6]))): p for p in points}
    rings = np.argsort(np.argsort(vlp16.ELEVATION_DEG))
    first = round((math.degrees(math.atan2(-points[0, 1], points[0, 0])) % 360) / vlp16.STEP_DEG)
    for firing in range(0, vlp16.FIRINGS, 7):
        for channel in range(vlp16.BEAMS):
            back = order[(firing - first) % vlp16.FIRINGS, rings[channel]]
            sent = cloud[firing, channel]
            assert np.linalg.norm(back[:3] - sent[:3]) < 0.005
            assert back[3] == sent[3]


def test_scan_ends_when_the_cloud_did():
    scans = decoded([room(np.random.default_rng(1)).reshape(-1, 4)] * 3, T_NS)
    for number, (stamp, _) in enumerate(scans):
        assert stamp.device == pytest.approx(
            (T_NS + number * 200_000_000) / NS_PER_S % 3600 + T_NS // NS_PER_S // 3600 * 3600, abs=1e-3
        )


def test_what_did_not_return_is_absent():
    cloud = room(np.random.default_rng(2)).reshape(-1, 4)
    scans = decoded([cloud[::5]] * 3, T_NS)
    assert len(np.asarray(scans[1][1])) == len(cloud[::5])
    assert not vlp16.firings(np.empty((0, 4), np.float32))[0].any()


def test_nearer_of_two_points_in_one_direction_is_sent():
    near, far = (room(np.random.default_rng(3), r, r + 0.001).reshape(-1, 4) for r in (3.0, 9.0))
    for both in (np.vstack([near, far]), np.vstack([far, near])):
        assert (vlp16.firings(both)[0] == vlp16.firings(near)[0]).all()


def test_cloud_on_a_grid_of_its_own_moves_by_less_than_a_firing():
    azimuth = np.radians(np.arange(360.0))[:, None]
    elevation = np.radians(vlp16.ELEVATION_DEG)
    x, y = 8 * np.cos(elevation) * np.sin(azimuth), 8 * np.cos(elevation) * np.cos(azimuth)
    z = np.broadcast_to(8 * np.sin(elevation), x.shape)
    cloud = np.stack([x, y, z, np.full(x.shape, 50.0)], -1).reshape(-1, 4).astype(np.float32)
    distance, _ = vlp16.firings(cloud)
    assert (distance > 0).all()
    assert np.abs(distance * vlp16.QUANTUM_M - 8).max() < 0.01


# -- MQTT broker


def published(port, version, *login):
    command = ["mosquitto_pub", "-p", str(port), "-V", version, "-t", "x", "-m", "1", *login]
    return subprocess.run(command, capture_output=True, timeout=10).returncode == 0


@needs_mosquitto
def test_mosquitto_serves_both_versions_and_leaves_nothing_behind():
    async def scenario():
        async with LocalBroker() as broker:
            assert broker.speaks_v5
            spoken = [await asyncio.to_thread(published, broker.port, v) for v in ("5", "311")]
            with pytest.raises(ConfigError, match=f"mqtt_port: 127.0.0.1:{broker.port} cannot be used"):
                await LocalBroker(port=broker.port).__aenter__()
            process = broker._process
        return spoken, process.returncode is not None, broker.port

    spoken, ended, port = asyncio.run(scenario())
    assert spoken == [True, True]
    assert ended
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


@needs_mosquitto
def test_mosquitto_asks_for_the_password():
    async def scenario():
        async with LocalBroker(passwords={"plant": "pw"}) as broker:
            logins = ((), ("-u", "plant", "-P", "no"), ("-u", "plant", "-P", "pw"))
            return [await asyncio.to_thread(published, broker.port, "5", *login) for login in logins]

    assert asyncio.run(scenario()) == [False, False, True]


@needs_mosquitto
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_mosquitto_ends_with_a_process_that_is_killed(tmp_path):
    program = (
        "import asyncio, os, signal\n"
        "from fusion.simulator.servers.broker import LocalBroker\n"
        "async def main():\n"
        "    async with LocalBroker() as broker:\n"
        "        print(broker.port, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    root, where = Path(__file__).parents[1], {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20, cwd=root, env=where)
    port, deadline = int(killed.stdout), time.monotonic() + 5
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < deadline:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            time.sleep(0.02)
        raise AssertionError("mosquitto is still there")


def test_embedded_broker_stands_in(monkeypatch, caplog):
    from paho.mqtt.client import Client, MQTTv311
    from paho.mqtt.enums import CallbackAPIVersion

    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    with pytest.raises(ConfigError, match="passwords need mosquitto"):
        LocalBroker(passwords={"a": "b"})

    def round_trip(port):
        client, got = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311), []
        client.on_connect = lambda c, *_: c.subscribe("a/#")
        client.on_subscribe = lambda c, *_: c.publish("a/b", "1")
        client.on_message = lambda _c, _u, message: got.append((message.topic, message.payload))
        client.connect("127.0.0.1", port)
        deadline = time.monotonic() + 10
        while not got and time.monotonic() < deadline:
            client.loop(0.1)
        client.disconnect()
        client.loop(0.1)
        return got

    async def scenario():
        async with LocalBroker() as broker:
            assert not broker.speaks_v5
            return await asyncio.to_thread(round_trip, broker.port)

    assert asyncio.run(scenario()) == [("a/b", b"1")]
    assert "3.1.1 only" in caplog.text


# -- OPC UA


def tags(server, client_index):
    return {name: ua.NodeId(name, client_index) for name in ("TT1", "TIC1.SP")}


def test_opcua_serves_values_with_time_and_status_and_takes_setpoints():
    written = []

    async def scenario():
        signals = PLANT.of(Modality.PROCESS)
        async with OpcUaServer(PLANT, signals, written=lambda tag, value: written.append((tag, value))) as server:
            with pytest.raises(ConfigError, match=f"opcua_port: 127.0.0.1:{server.port} cannot be used"):
                await OpcUaServer(PLANT, signals, port=server.port).__aenter__()
            async with Client(server.url) as client:
                nodes = tags(server, await client.get_namespace_index("urn:fusion:tiny"))
                temperature, setpoint = (client.get_node(node) for node in nodes.values())
                found = [await temperature.read_data_value(raise_on_bad_status=False)]
                for quality in (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.GOOD):
                    await server.write("TT1", 81.5, T_NS, quality)
                    found.append(await temperature.read_data_value(raise_on_bad_status=False))
                await server.write("TIC1.SP", 82.0, T_NS)
                await setpoint.write_value(85.0)
                await setpoint.write_value(float("nan"))
                with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                    await temperature.write_value(1.0)
                names = [(await child.read_browse_name()).Name for child in await temperature.get_properties()]
                return found, names

    found, names = asyncio.run(scenario())
    assert [value.StatusCode.value >> 30 for value in found] == [2, 0, 1, 2, 0]
    assert found[1].Value.Value == 81.5
    assert found[1].SourceTimestamp == datetime.fromtimestamp(T_NS // NS_PER_S, UTC).replace(microsecond=123456)
    assert names == ["EngineeringUnits", "EURange"]
    assert written == [("TIC1.SP", 85.0)]


def test_opcua_asks_for_the_password():
    async def scenario():
        async with OpcUaServer(PLANT, PLANT.of(Modality.PROCESS), users={"op": "right"}) as server:
            said = []
            for password in ("right", "wrong"):
                client = Client(server.url)
                client.set_user("op")
                client.set_password(password)
                try:
                    async with client:
                        said.append("in")
                except ua.UaError as error:
                    said.append(type(error).__name__)
            return said

    assert asyncio.run(scenario()) == ["in", "BadUserAccessDenied"]
