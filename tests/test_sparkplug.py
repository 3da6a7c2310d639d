"""Sparkplug B over a real broker: births, aliases, deaths, gaps and the request for a new birth."""

import asyncio
import queue
import time

import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from connectors.base import Source, Tally
from connectors.kinds import source_of
from connectors.mqtt.config import MqttConfig, SparkplugConfig
from connectors.mqtt.sparkplug import EdgeNode, Tag
from connectors.mqtt.sparkplug_payload import Payload, decode, value_of
from fusion.errors import ConfigError
from fusion.health import SourceState
from fusion.timeline.timeline import Timeline
from tests.contract.peers import PLANT, MqttPeer, collect, supervision, until, values
from tests.test_connectors_mqtt import mosquitto

NOW_MS = 1_800_000_000_000
INT8, INT32, INT64, DOUBLE, BOOLEAN = 1, 3, 4, 10, 11


def payload(*metrics: dict[str, object], seq: int | None = None, at_ms: int | None = None) -> bytes:
    message = Payload(timestamp=at_ms or time.time_ns() // 1_000_000)
    if seq is not None:
        message.seq = seq
    for metric in metrics:
        quality = metric.pop("quality", None)
        entry = message.metrics.add(timestamp=message.timestamp, **metric)
        if quality is not None:
            entry.properties.keys.append("Quality")
            entry.properties.values.add(type=INT32, int_value=quality)
    return message.SerializeToString()


class Edge:
    """An edge node with a device ``PLC`` that announces TT101 as alias 7, and answers the request for a birth."""

    def __init__(self, port: int, number: int = 0) -> None:
        self.seq, self.number, self.asked, self.value = 0, number, queue.Queue(), 81.5
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.will_set("spBv1.0/G/NDEATH/E", self.death(), qos=1)
        self.client.on_message = lambda _c, _d, message: self.asked.put(decode(message.payload))
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("spBv1.0/G/NCMD/E", 1)
        self.client.loop_start()

    def death(self) -> bytes:
        return payload({"name": "bdSeq", "datatype": INT64, "long_value": self.number})

    def send(self, kind: str, *metrics: dict[str, object], device: str = "") -> None:
        topic = f"spBv1.0/G/{kind}/E" + (f"/{device}" if device else "")
        self.client.publish(topic, payload(*metrics, seq=self.seq), qos=1).wait_for_publish(5)
        self.seq = (self.seq + 1) % 256

    def announce(self) -> None:
        self.seq = 0
        level = {"name": "Level", "alias": 3, "datatype": INT8, "int_value": 0xFD}
        self.send("NBIRTH", {"name": "bdSeq", "datatype": INT64, "long_value": self.number}, level)
        self.send(
            "DBIRTH", {"name": "Line 1/TT101", "alias": 7, "datatype": DOUBLE, "double_value": self.value}, device="PLC"
        )

    def tell(self, value: float, **more: object) -> None:
        self.value = value
        self.send("DDATA", {"alias": 7, "double_value": value, **more}, device="PLC")

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def build(port: int) -> Source:
    device = SparkplugConfig(group="G", node="E", device="PLC", metrics={"TT101": "Line 1/TT101"})
    node = SparkplugConfig(group="G", node="E", metrics={"LT101": "Level"})
    return source_of(MqttConfig(port=port, sparkplug=[device, node], supervision=supervision()), PLANT)


@mosquitto
def test_births_data_deaths_and_what_is_current(tmp_path):
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        edge = await asyncio.to_thread(Edge, peer.port)
        await asyncio.sleep(0.1)
        source, timeline = build(peer.port), Timeline(PLANT)
        await source.start()
        try:
            asked = await asyncio.to_thread(edge.asked.get, True, 5)
            assert asked.metrics[0].name == "Node Control/Rebirth"
            assert asked.metrics[0].boolean_value is True
            await until(lambda: "G/E: not born" in source.health().message)

            await asyncio.to_thread(edge.announce)
            items = await collect(source, lambda items: len(values(items)) >= 2)
            assert values(items) == [("LT101", -3.0, 2), ("TT101", 81.5, 2)]
            await until(lambda: source.health().message == "")
            beats = await collect(source, lambda found: [i for i in found if i.heartbeat_ns is not None])
            assert {name for item in beats for name in item.signals} == {"TT101", "LT101"}

            await asyncio.to_thread(edge.tell, 82.5)
            told = await collect(source, values)
            assert (values(told), told[0].clock) == ([("TT101", 82.5, 2)], f"mqtt:127.0.0.1:{peer.port}")
            await asyncio.to_thread(edge.tell, 0.0, quality=0)
            np.testing.assert_equal(values(await collect(source, values)), [("TT101", np.nan, 0)])
            await asyncio.to_thread(edge.tell, 83.5, quality=192)
            items += await collect(source, values)

            await asyncio.to_thread(edge.send, "DDEATH", device="PLC")
            dead = await collect(source, values)
            np.testing.assert_equal(values(dead), [("TT101", np.nan, 0)])
            assert "G/E: not among the births: TT101" in source.health().message
            for item in items + dead:
                timeline.push(item)
            assert not timeline.advance(time.time_ns() + 3_000_000_000)[-1].observed_S[0], (
                "the last value is not current"
            )

            await asyncio.to_thread(edge.announce)
            assert ("TT101", 83.5, 2) in values(await collect(source, lambda items: len(values(items)) >= 3))
            edge.client._sock.close()  # the broker publishes the will
            found = values(await collect(source, lambda items: len(values(items)) >= 2))
            np.testing.assert_equal(sorted(found), [("LT101", np.nan, 0), ("TT101", np.nan, 0)])
            assert "G/E: not born" in source.health().message
            assert (source.state, source.epoch) == (SourceState.LIVE, 1)
        finally:
            edge.stop()
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


class Asked(list):
    """What was published to the node."""

    def __call__(self, topic: str, data: bytes) -> None:
        self.append((topic, decode(data).metrics[0].name))


def node() -> tuple[EdgeNode, Asked, Tally, Tag]:
    tag = Tag("TT101", 0, "PLC", "T")
    config = SparkplugConfig(group="G", node="E", device="PLC", metrics={"TT101": "T"})
    edge = EdgeNode(config, [tag], "mqtt:b", tally := Tally(), asked := Asked())
    return edge, asked, tally, tag


def feed(edge: EdgeNode, kind: str, data: bytes, device: str = "PLC") -> list[tuple[int, float, int]]:
    """Stamps [ms after NOW], values and qualities of what a message brings."""
    now_ns = (NOW_MS + 60_000) * 1_000_000
    rows = edge.rows(kind, "" if kind.startswith("N") else device, data, now_ns)
    return [(t_ns // 1_000_000 - NOW_MS, value, quality) for _, (_, t_ns, _, value, quality) in rows]


def born(edge: EdgeNode, value: float = 1.0, number: int = 5) -> None:
    feed(edge, "NBIRTH", payload({"name": "bdSeq", "long_value": number}, seq=0, at_ms=NOW_MS))
    metric = {"name": "T", "alias": 7, "datatype": DOUBLE, "double_value": value}
    assert feed(edge, "DBIRTH", payload(metric, seq=1, at_ms=NOW_MS)) == [(0, value, 2)]


def test_a_gap_in_the_sequence_and_data_before_a_birth_ask_for_a_new_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connectors.mqtt.sparkplug.ASK_AGAIN_S", 0.0)
    edge, asked, tally, _ = node()
    assert feed(edge, "DDATA", payload({"alias": 7, "double_value": 1.0}, seq=9)) == []
    assert asked == [("spBv1.0/G/NCMD/E", "Node Control/Rebirth")]
    born(edge)
    assert feed(edge, "DDATA", payload({"alias": 7, "double_value": 2.0}, seq=2, at_ms=NOW_MS + 5)) == [(5, 2.0, 2)]
    assert len(asked) == 1
    assert feed(edge, "DDATA", payload({"alias": 7, "double_value": 3.0}, seq=4, at_ms=NOW_MS + 9)) == [(9, 3.0, 2)]
    assert (len(asked), tally.noted["gap in the sequence"]) == (2, 1)
    assert feed(edge, "DDATA", payload({"alias": 8, "double_value": 3.0}, seq=5)) == []
    assert (len(asked), "metric that no birth named 1 (G/E 8)" in tally.text()) == (3, True)
    assert feed(edge, "DDATA", b"\xff" * 9) == []
    assert tally.noted["payload that is no Sparkplug"] == 1


def test_a_late_will_of_an_earlier_life_kills_nobody_and_a_birth_outlives_the_stamp_of_a_death():
    edge, _, _, tag = node()
    born(edge)
    assert feed(edge, "NDEATH", payload({"name": "bdSeq", "long_value": 4})) == []
    assert edge.alive == ["TT101"]
    feed(edge, "DDATA", payload({"alias": 7, "double_value": 2.0}, seq=2, at_ms=NOW_MS + 500))
    np.testing.assert_equal(feed(edge, "NDEATH", payload({"name": "bdSeq", "long_value": 5})), [(500, np.nan, 0)])
    assert edge.alive == []
    feed(edge, "NBIRTH", payload({"name": "bdSeq", "long_value": 6}, seq=0, at_ms=NOW_MS))
    metric = {"name": "T", "alias": 7, "datatype": DOUBLE, "double_value": 2.0}
    assert feed(edge, "DBIRTH", payload(metric, seq=1, at_ms=NOW_MS)) == [(500, 2.0, 2)], "not older than its death"
    assert tag.alive


@pytest.mark.parametrize(
    ("metric", "datatype", "expected"),
    [
        ({"int_value": 0xFFFFFFFF}, INT32, -1.0),
        ({"int_value": 0xFF}, INT8, -1.0),
        ({"int_value": 0xFFFFFFFF}, INT8, -1.0),
        ({"long_value": 2**64 - 5}, INT64, -5.0),
        ({"long_value": 2**64 - 5}, 8, float(2**64 - 5)),
        ({"boolean_value": True}, BOOLEAN, 1.0),
        ({"float_value": 1.5}, 9, 1.5),
        ({"string_value": "12.5"}, 12, 12.5),
        ({"string_value": "ON"}, 12, None),
        ({"double_value": float("nan")}, DOUBLE, None),
        ({"double_value": 1.0, "is_null": True}, DOUBLE, None),
        ({}, DOUBLE, None),
    ],
)
def test_values_by_their_type(metric: dict[str, object], datatype: int, expected: float | None):
    assert value_of(Payload().metrics.add(**metric), datatype) == expected


def test_a_payload_as_the_specification_writes_it():
    """Field numbers by hand: timestamp 1, metrics 2 (name 1, alias 2, datatype 4, double 13), seq 3."""
    metric = b"\x0a\x01T\x10\x07\x20\x0a\x69" + np.float64(81.5).tobytes()
    read = decode(b"\x08\x05\x12" + bytes([len(metric)]) + metric + b"\x18\x02")
    assert (read.timestamp, read.seq, read.metrics[0].name, read.metrics[0].alias) == (5, 2, "T", 7)
    assert value_of(read.metrics[0], read.metrics[0].datatype) == 81.5


def test_configuration_errors_name_the_key():
    with pytest.raises(ConfigError, match="mqtt.sparkplug.node"):
        SparkplugConfig(group="G", node="E/x")
    with pytest.raises(ConfigError, match="no process signal"):
        source_of(MqttConfig(sparkplug=[SparkplugConfig(group="G", node="E", signals=["XX"])]), PLANT)
