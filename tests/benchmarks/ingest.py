"""CPU time of an item that arrives, through our sources and through bare client libraries.

MQTT, Sparkplug B, OPC UA, and pictures of a 720p camera. Every reader is a process of its own on the same server and
the same stream, in rounds that alternate, and the cheapest round of each counts: a neighbour on the machine slows one
round, not the ratio. The processes that a reader starts count with it. Needs mosquitto; aiomqtt is measured where it is
installed.
Run: python -m tests.benchmarks.ingest [--json OUT] [--rounds 2] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np
import paho.mqtt.client as paho
import psutil
from asyncua import Client, Server, ua
from paho.mqtt.enums import CallbackAPIVersion

from connectors.base import Source
from connectors.buffer import count
from connectors.media import source as media
from connectors.media.config import VideoConfig
from connectors.mqtt import source as mqtt
from connectors.mqtt.config import MqttConfig, SparkplugConfig, TopicConfig
from connectors.mqtt.sparkplug_payload import Payload
from connectors.opcua import source as opcua
from connectors.opcua.config import OpcUaConfig
from fusion.plant import Modality, Plant, Signal
from tests.contract.peers import write_video
from tests.mosquitto import Mosquitto
from tests.wire_examples import free_port, listening, until

TAGS = tuple(f"T{i:04}" for i in range(1000))
SHOWN = (180, 320)
CAMERA = Signal(name="camera", modality=Modality.VIDEO, shape=SHOWN, period_s=0.04)
PLANT = Plant(name="ingest", signals=(*(Signal(name=tag, unit="Cel") for tag in TAGS), CAMERA))
URI = "urn:ingest"
ITEMS, PICTURES, PICTURE_HZ = 10_000, 400, 25
BURST, BURST_S = 40, 0.01
METRICS = 100
DEADLINE_S = 90.0
DOUBLE, INT64 = 10, 4
CONTEXT = multiprocessing.get_context("spawn")
logging.getLogger("asyncua").setLevel(logging.ERROR)


class Meter:
    """CPU time from the first of the ``items`` that count to the last; ``skip`` come before those."""

    def __init__(self, skip: int, items: int) -> None:
        self._skip, self._items, self._begun = skip, items, 0.0
        self.seen, self.cpu_us, self.done = 0, 0.0, False

    def see(self, items: int) -> None:
        """Items have arrived."""
        self.seen += items
        if not self._begun and self.seen >= self._skip:
            self._skip, self._begun = self.seen, cpu_s()
        if self._begun and self.seen >= self._skip + self._items - BURST and not self.done:
            self.done = True
            self.cpu_us = 1e6 * (cpu_s() - self._begun) / (self.seen - self._skip)


def cpu_s() -> float:
    """CPU time of this process and those that it started [s]."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(one.user + one.system for one in times)


def bare_mqtt(meter: Meter, port: int, qos: int) -> None:
    """The library's own loop, and every payload decoded."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    taken: list[tuple[float, int]] = []

    def received(_client, _data, message) -> None:
        payload = json.loads(message.payload)
        taken.append((payload["value"], payload["t"]))
        meter.see(1)
        if meter.done:
            client.disconnect()

    client.on_connect = lambda *_: client.subscribe("line/#", qos)
    client.on_message = received
    client.connect("127.0.0.1", port)
    client.loop_forever()


def aiomqtt(meter: Meter, port: int, qos: int) -> None:
    """The client of asyncio that wraps the same library."""
    from aiomqtt import Client as AsyncClient

    async def read() -> None:
        taken: list[tuple[float, int]] = []
        async with AsyncClient("127.0.0.1", port) as client:
            await client.subscribe("line/#", qos)
            async for message in client.messages:
                payload = json.loads(message.payload)
                taken.append((payload["value"], payload["t"]))
                meter.see(1)
                if meter.done:
                    return

    asyncio.run(read())


def our_mqtt(meter: Meter, port: int, qos: int) -> None:
    """The source of the daemon, drained as the daemon does."""
    topic = TopicConfig(topic="line/{signal}", signals=list(TAGS), time_path="t", time_unit="ms")
    asyncio.run(_drained(mqtt.source(MqttConfig(port=port, qos=qos, topics=[topic]), PLANT), meter))


def bare_sparkplug(meter: Meter, port: int, _qos: int) -> None:
    """The library's own loop, every payload parsed and each metric's alias and value taken."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    taken: list[tuple[int, float]] = []

    def received(_client, _data, message) -> None:
        metrics = Payload.FromString(message.payload).metrics
        taken.extend((metric.alias, metric.double_value) for metric in metrics)
        meter.see(len(metrics))
        if meter.done:
            client.disconnect()

    client.on_connect = lambda *_: client.subscribe("spBv1.0/G/NDATA/E", 0)
    client.on_message = received
    client.connect("127.0.0.1", port)
    client.loop_forever()


def our_sparkplug(meter: Meter, port: int, _qos: int) -> None:
    """The source of the daemon, which follows births, sequence and aliases."""
    node = SparkplugConfig(group="G", node="E", signals=list(TAGS[:METRICS]))
    asyncio.run(_drained(mqtt.source(MqttConfig(port=port, sparkplug=[node]), PLANT), meter))


def bare_video(meter: Meter, file: str, _qos: int) -> None:
    """The library decodes, and makes each picture grey and small."""
    with av.open(file) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            assert frame.reformat(SHOWN[1], SHOWN[0], "gray").to_ndarray().shape == SHOWN
            meter.see(1)


def our_video(meter: Meter, file: str, _qos: int) -> None:
    """The source of the daemon, with its process that decodes and notices frozen and damaged pictures."""
    config = VideoConfig(url=file, signal="camera", realtime=False)
    asyncio.run(_drained(media.video_source(config, PLANT), meter))


def bare_opcua(meter: Meter, port: int, _qos: int) -> None:
    """A subscription whose handler takes value, status and time of each change."""
    taken: list[tuple[float, datetime]] = []
    enough = asyncio.Event()

    class Handler:
        def datachange_notification(self, _node, value, data) -> None:
            said = data.monitored_item.Value
            assert said.StatusCode.is_good()
            taken.append((value, said.SourceTimestamp))
            meter.see(1)
            if meter.done:
                enough.set()

    async def read() -> None:
        async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
            index = await client.get_namespace_index(URI)
            subscription = await client.create_subscription(250, Handler())
            await subscription.subscribe_data_change([client.get_node(ua.NodeId(tag, index)) for tag in TAGS])
            await enough.wait()

    asyncio.run(read())


def our_opcua(meter: Meter, port: int, _qos: int) -> None:
    """The source of the daemon, drained as the daemon does."""
    config = OpcUaConfig(url=f"opc.tcp://127.0.0.1:{port}", namespace_uri=URI, signals=list(TAGS), insecure=True)
    asyncio.run(_drained(opcua.source(config, PLANT), meter))


async def _drained(source: Source, meter: Meter) -> None:
    await source.start()
    while not meter.done:
        await asyncio.sleep(0.05)
        meter.see(sum(count(item) for item in source.drain()))
    await source.stop()


def _read(answer, reader: Callable[[Meter, int, int], None], skip: int, items: int, port: int, qos: int) -> None:
    meter = Meter(skip, items)
    reader(meter, port, qos)
    answer.send(meter.cpu_us)


def measured(reader, skip: int, items: int, port, qos: int, feed: Callable[[], None]):
    """CPU time [us] an item of a reader in a fresh process, which ``feed`` serves until it has enough."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_read, args=(theirs, reader, skip, items, port, qos))
    process.start()
    theirs.close()
    deadline = time.monotonic() + DEADLINE_S
    try:
        while not ours.poll():
            assert time.monotonic() < deadline, f"{reader.__name__} has not seen {items} items in {DEADLINE_S:g} s"
            feed()
        return ours.recv()
    finally:
        process.terminate()
        process.join()


@contextmanager
def flowing_mqtt(qos: int):
    """A broker, and what publishes a burst."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(Path(folder), ("allow_anonymous true", "max_queued_messages 0"))
        publisher = paho.Client(CallbackAPIVersion.VERSION2)
        publisher.max_inflight_messages_set(1000)
        publisher.connect("127.0.0.1", broker.port)
        publisher.loop_start()
        sent = 0

        def feed() -> None:
            nonlocal sent
            for _ in range(BURST):
                payload = f'{{"value": {sent / 7:.4f}, "t": {time.time_ns() // 1_000_000}}}'
                publisher.publish(f"line/{TAGS[sent % len(TAGS)]}", payload, qos)
                sent += 1
            time.sleep(BURST_S)

        try:
            yield broker.port, feed
        finally:
            publisher.disconnect()
            publisher.loop_stop()
            broker.stop()


def serve_opcua(port: int) -> None:
    """A server whose every tag changes each half second."""

    async def serve() -> None:
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(URI)
        nodes = [ua.NodeId(tag, index) for tag in TAGS]
        for node, tag in zip(nodes, TAGS, strict=True):
            await server.nodes.objects.add_variable(node, tag, 0.0)
        async with server:
            for turn in range(10_000):
                now = datetime.now(UTC)
                for i, node in enumerate(nodes):
                    await server.write_attribute_value(node, ua.DataValue(float(turn + i), SourceTimestamp=now))
                await asyncio.sleep(0.5)

    asyncio.run(serve())


@contextmanager
def flowing_opcua(_qos: int):
    """A server in a process of its own: it feeds itself."""
    port = free_port()
    server = CONTEXT.Process(target=serve_opcua, args=(port,))
    server.start()
    until(lambda: listening(port), "the server listens", 20)
    try:
        yield port, lambda: time.sleep(0.05)
    finally:
        server.terminate()
        server.join()


class Edge:
    """A Sparkplug B edge node that announces itself where it is asked to, and sends its metrics by alias."""

    def __init__(self, port: int) -> None:
        self._sequence, self._turn = 0, 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda *_: self._announce()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("spBv1.0/G/NCMD/E", 1)
        self._client.loop_start()
        self._announce()

    def _announce(self) -> None:
        self._sequence = 0
        birth = Payload(timestamp=time.time_ns() // 1_000_000)
        birth.metrics.add(name="bdSeq", datatype=INT64, long_value=0)
        for alias, tag in enumerate(TAGS[:METRICS]):
            birth.metrics.add(name=tag, alias=alias, datatype=DOUBLE, double_value=0.0)
        self._send("NBIRTH", birth)

    def _send(self, kind: str, message) -> None:
        message.seq, self._sequence = self._sequence, (self._sequence + 1) % 256
        self._client.publish(f"spBv1.0/G/{kind}/E", message.SerializeToString(), 1)

    def tell(self) -> None:
        """All metrics once."""
        data = Payload(timestamp=time.time_ns() // 1_000_000)
        self._turn += 1
        for alias in range(METRICS):
            data.metrics.add(alias=alias, timestamp=data.timestamp, double_value=self._turn + alias / 7)
        self._send("NDATA", data)
        time.sleep(BURST_S)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def flowing_sparkplug(_qos: int):
    """A broker and an edge node."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(Path(folder))
        edge = Edge(broker.port)
        try:
            yield broker.port, edge.tell
        finally:
            edge.close()
            broker.stop()


@contextmanager
def flowing_video(_qos: int):
    """A file of H.264 at 720p, of a texture that moves."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(40, 200, (90, 160)), np.ones((8, 8))).astype(np.uint8)
    noise = rng.integers(0, 12, coarse.shape).astype(np.uint8)
    pictures = [np.roll(coarse, 3 * number, 1) + np.roll(noise, 5 * number, 0) for number in range(2 * PICTURES)]
    with tempfile.TemporaryDirectory() as folder:
        file = write_video(Path(folder) / "camera.mp4", pictures, PICTURE_HZ)
        yield str(file), lambda: time.sleep(0.05)


AIOMQTT = {"aiomqtt": aiomqtt} if importlib.util.find_spec("aiomqtt") else {}
CASES = {
    "MQTT QoS 0": (flowing_mqtt, 0, 500, ITEMS, {"bare": bare_mqtt, **AIOMQTT, "ours": our_mqtt}),
    "MQTT QoS 1": (flowing_mqtt, 1, 500, ITEMS, {"bare": bare_mqtt, **AIOMQTT, "ours": our_mqtt}),
    "Sparkplug B, metrics": (flowing_sparkplug, 0, 500, ITEMS, {"bare": bare_sparkplug, "ours": our_sparkplug}),
    "OPC UA, 1000 items": (flowing_opcua, 0, 2 * len(TAGS), ITEMS, {"bare": bare_opcua, "ours": our_opcua}),
    "720p pictures": (flowing_video, 0, 50, PICTURES, {"bare": bare_video, "ours": our_video}),
}


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    report = {}
    print(f"{'CPU time an item [us]':24}{'bare':>9}{'aiomqtt':>9}{'ours':>9}{'ratio':>7}{'ours a core and s':>20}")
    for name in asked.only:
        flowing, qos, skip, items, readers = CASES[name]
        with flowing(qos) as (port, feed):
            rounds = [
                {label: measured(reader, skip, items, port, qos, feed) for label, reader in readers.items()}
                for _ in range(asked.rounds)
            ]
        cost = {label: min(found[label] for found in rounds) for label in readers}
        report[name] = cost | {"ratio": cost["ours"] / cost["bare"]}
        shown = "".join(
            f"{cost[label]:9.1f}" if label in cost else f"{'-':>9}" for label in ("bare", "aiomqtt", "ours")
        )
        print(f"{name:24}{shown}{report[name]['ratio']:7.2f}{1e6 / cost['ours']:20.0f}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
