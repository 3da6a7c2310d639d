"""CPU time of an item that arrives, through our sources and through the bare client library, over MQTT and OPC UA.

Every reader is a process of its own on the same server and the same stream, in rounds that alternate, and the cheapest
round of each counts: a neighbour on the machine slows one round, not the ratio. Needs mosquitto.
Run: python -m tests.benchmarks.ingest [--json OUT] [--rounds 2]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
from asyncua import Client, Server, ua
from paho.mqtt.enums import CallbackAPIVersion

from connectors.base import Source
from connectors.buffer import count
from connectors.mqtt import source as mqtt
from connectors.mqtt.config import MqttConfig, TopicConfig
from connectors.opcua import source as opcua
from connectors.opcua.config import OpcUaConfig
from fusion.plant import Plant, Signal
from tests.mosquitto import Mosquitto
from tests.wire_examples import free_port, listening, until

TAGS = tuple(f"T{i:04}" for i in range(1000))
PLANT = Plant(name="ingest", signals=tuple(Signal(name=tag, unit="Cel") for tag in TAGS))
URI = "urn:ingest"
ITEMS = 10_000
BURST, BURST_S = 40, 0.01
DEADLINE_S = 30.0
CONTEXT = multiprocessing.get_context("spawn")
logging.getLogger("asyncua").setLevel(logging.ERROR)


class Meter:
    """CPU time from the first of the items that count to the last; ``skip`` come before those."""

    def __init__(self, skip: int) -> None:
        self._skip, self._begun = skip, 0.0
        self.seen, self.cpu_us, self.done = 0, 0.0, False

    def see(self, items: int) -> None:
        """Items have arrived."""
        self.seen += items
        if not self._begun and self.seen >= self._skip:
            self._skip, self._begun = self.seen, time.process_time()
        if self.seen >= self._skip + ITEMS - BURST and not self.done:
            self.done = True
            self.cpu_us = 1e6 * (time.process_time() - self._begun) / (self.seen - self._skip)


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


def our_mqtt(meter: Meter, port: int, qos: int) -> None:
    """The source of the daemon, drained as the daemon does."""
    topic = TopicConfig(topic="line/{signal}", signals=list(TAGS), time_path="t", time_unit="ms")
    asyncio.run(_drained(mqtt.source(MqttConfig(port=port, qos=qos, topics=[topic]), PLANT), meter))


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


def _read(answer, reader: Callable[[Meter, int, int], None], skip: int, port: int, qos: int) -> None:
    meter = Meter(skip)
    reader(meter, port, qos)
    answer.send(meter.cpu_us)


def measured(reader: Callable[[Meter, int, int], None], skip: int, port: int, qos: int, feed: Callable[[], None]):
    """CPU time [us] an item of a reader in a fresh process, which ``feed`` serves until it has enough."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_read, args=(theirs, reader, skip, port, qos))
    process.start()
    theirs.close()
    deadline = time.monotonic() + DEADLINE_S
    try:
        while not ours.poll():
            assert time.monotonic() < deadline, f"{reader.__name__} has not seen {ITEMS} items in {DEADLINE_S:g} s"
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


CASES = (
    ("MQTT QoS 0", flowing_mqtt, 0, 500, bare_mqtt, our_mqtt),
    ("MQTT QoS 1", flowing_mqtt, 1, 500, bare_mqtt, our_mqtt),
    ("OPC UA, 1000 items", flowing_opcua, 0, 2 * len(TAGS), bare_opcua, our_opcua),
)


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    report = {}
    print(f"{'CPU time an item [us]':24}{'bare':>8}{'ours':>8}{'ratio':>8}")
    for name, flowing, qos, skip, *readers in CASES:
        with flowing(qos) as (port, feed):
            rounds = [[measured(reader, skip, port, qos, feed) for reader in readers] for _ in range(asked.rounds)]
        bare, ours = (min(costs) for costs in zip(*rounds, strict=True))
        report[name] = {"bare_us": bare, "ours_us": ours, "ratio": bare / ours}
        print(f"{name:24}{bare:8.1f}{ours:8.1f}{bare / ours:8.2f}")
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
