import asyncio
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

from connectors.base import ARRIVAL_CLOCK, Source, Tally
from connectors.kinds import source_of
from connectors.mqtt.config import MqttConfig, TopicConfig
from connectors.mqtt.payload import Extractor, Reading, document_of
from fusion.errors import ConfigError
from fusion.records import SourceState
from tests.contract.peers import PLANT, MqttPeer, collect, free_port, supervision, until, values

NOW_NS = 1_800_000_000_000_000_000
HUGE = b"9" * 400
mosquitto = pytest.mark.skipif(not Path(MqttPeer.EXECUTABLE).exists(), reason="mosquitto is not installed")

TOPICS = [
    TopicConfig(topic="plant/{signal}", signals=["TT101", "LT101"], time_path="t_ns", quality_path="quality"),
    TopicConfig(topic="plain/FT101", signal="FT101", format="plain"),
]


def build(number: int, **options: object) -> Source:
    settings = {"port": number, "topics": TOPICS, "supervision": supervision()}
    return source_of(MqttConfig(**{**settings, **options}), PLANT)


@mosquitto
def test_numbers_garbage_and_retained_values(tmp_path):
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        await peer.publish("plain/FT101", "7.5", retain=True)
        source = build(peer.port, max_payload_bytes=200)
        await source.start()
        try:
            first = await collect(source, values)
            assert values(first) == [("FT101", 7.5, 1)], "a retained value without a time may be old"
            assert first[0].clock == ARRIVAL_CLOCK
            t_ns = time.time_ns()
            await peer.publish("plant/TT101", json.dumps({"value": 80.5, "t_ns": t_ns, "quality": "good"}))
            (item,) = await collect(source, values)
            assert (values([item]), item.t_ns.tolist()) == ([("TT101", 80.5, 2)], [t_ns])
            assert item.clock == f"mqtt:127.0.0.1:{peer.port}"

            garbage = ["", "{", "[]", "null", '{"value": "x"}', b"\xff\xfe", '{"value": NaN}', "[" * 150]
            for payload in garbage:
                await peer.publish("plant/LT101", payload)
            await peer.publish("plant/LT101", "9" * 1000)
            found = values(await collect(source, lambda items: len(values(items)) >= len(garbage)))
            assert all(name == "LT101" and np.isnan(value) and quality == 0 for name, value, quality in found)
            health = source.health()
            assert health.state is SourceState.LIVE
            assert f"payload without a number {len(garbage)}" in health.message
            assert health.dropped == {"payload too large": 1}
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


@mosquitto
def test_a_wrong_password_is_refused_and_a_decoder_that_raises_costs_only_the_connection(tmp_path, monkeypatch):
    original, failures = Extractor.readings, [ZeroDivisionError("in decode")]

    def readings(self, *arguments):
        if failures:
            raise failures.pop()
        return original(self, *arguments)

    monkeypatch.setattr(Extractor, "readings", readings)

    async def scenario() -> None:
        peer = MqttPeer(tmp_path, {"fusion": "right"})
        await peer.start()
        wrong = build(peer.port, username="fusion", password="wrong")
        right = build(peer.port, username="fusion", password="right")
        outside = build(peer.port, username="fusion", password="right")
        try:
            await wrong.start()
            await until(lambda: wrong.state is SourceState.REFUSED)
            assert "Not authorized" in wrong.health().message
            await right.start()
            await until(lambda: right.state is SourceState.LIVE)
            publisher = outside_client(peer.port)
            publisher.publish("plain/FT101", "1", qos=1).wait_for_publish(5)
            await until(lambda: right.health().message == "ZeroDivisionError: in decode")
            await until(lambda: right.state is SourceState.LIVE and right.epoch == 2)
            publisher.publish("plain/FT101", "2", qos=1).wait_for_publish(5)
            assert values(await collect(right, values)) == [("FT101", 2.0, 2)]
            publisher.disconnect()
            publisher.loop_stop()
        finally:
            for source in (wrong, right, outside):
                await source.stop()
            await peer.stop()

    asyncio.run(scenario())


def outside_client(port: int):
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("fusion", "right")
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


class OldBroker:
    """A broker that knows only 3.1.1: it hangs up on anything else."""

    def __init__(self, suback: bytes = b"\x00\x00\x00") -> None:
        self.port, self.seen, self._suback, self._server = free_port(), [], suback, None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader, writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, size = await reader.readexactly(2)
                body = await reader.readexactly(size)
                if kind >> 4 == 1:
                    self.seen.append(body[6])
                    if body[6] != 4:
                        break
                    writer.write(b"\x20\x02\x00\x00")
                elif kind >> 4 == 8:
                    writer.write(b"\x90" + bytes([2 + len(self._suback)]) + body[:2] + self._suback)
        writer.close()

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


def test_auto_falls_back_to_the_older_protocol():
    async def scenario() -> None:
        broker = OldBroker()
        await broker.start()
        source, strict = build(broker.port), build(broker.port, protocol="5")
        try:
            await source.start()
            await until(lambda: source.state is SourceState.LIVE)
            assert broker.seen == [5, 4]
            await strict.start()
            await until(lambda: strict.epoch >= 2)
            assert set(broker.seen[2:]) == {5}
        finally:
            await source.stop()
            await strict.stop()
            await broker.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("suback", "state"), [(b"\x80\x80\x80", SourceState.REFUSED), (b"\x00\x80\x00", SourceState.LIVE)]
)
def test_denied_subscriptions_are_named(suback: bytes, state: SourceState):
    async def scenario() -> None:
        broker = OldBroker(suback)
        await broker.start()
        source = build(broker.port, protocol="3.1.1")
        try:
            await source.start()
            await until(lambda: source.state is state)
            assert "plant/LT101" in source.health().message
        finally:
            await source.stop()
            await broker.stop()

    asyncio.run(scenario())


def test_a_broker_without_messages_is_stale_where_that_was_asked_for():
    async def scenario() -> None:
        broker = OldBroker()
        await broker.start()
        source = build(broker.port, protocol="3.1.1", silence_s=0.5)
        try:
            await source.start()
            await until(lambda: source.state is SourceState.STALE)
            assert "no message" in source.health().message
        finally:
            await source.stop()
            await broker.stop()

    asyncio.run(scenario())


def read(payload: bytes, **options: object) -> tuple[list[Reading], Tally]:
    """What one topic's settings take out of a payload."""
    tally = Tally()
    extractor = Extractor(TopicConfig(topic="t", signal="TT101", **options), "TT101", 0, tally)
    return [*extractor.readings(document_of(payload, extractor.plain), NOW_NS, False)], tally


@pytest.mark.parametrize(
    ("payload", "options", "value", "quality", "t_ns"),
    [
        (b"1.5", {"format": "plain"}, 1.5, 2, None),
        (b" true\n", {"format": "plain"}, 1.0, 2, None),
        (b"nan", {"format": "plain"}, np.nan, 0, None),
        (b"1e999", {"format": "plain"}, np.nan, 0, None),
        (b'{"value": 3}', {}, 3.0, 2, None),
        (b'{"value": false}', {}, 0.0, 2, None),
        (b'{"d": [{"v": 4}]}', {"value_path": "d.0.v"}, 4.0, 2, None),
        (b'{"d": [{"v": 4}]}', {"value_path": "d.7.v"}, np.nan, 0, None),
        (b"5", {"value_path": ""}, 5.0, 2, None),
        (b'{"value": 3, "t": 1800000000000}', {"time_path": "t", "time_unit": "ms"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": 1800000000.5}', {"time_path": "t", "time_unit": "s"}, 3.0, 2, NOW_NS + 500_000_000),
        (b'{"value": 3, "t": "2027-01-15T08:00:00Z"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": "2027-01-15T09:00:00+01:00"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": "soon"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, None),
        (b'{"value": 3, "t": 12}', {"time_path": "t"}, 3.0, 2, None),
        (b'{"value": 3, "t": 1e305}', {"time_path": "t", "time_unit": "s"}, 3.0, 2, None),
        (b'{"value": 3, "t": %s}' % HUGE, {"time_path": "t", "time_unit": "s"}, 3.0, 2, None),
        (b'{"value": %s}' % HUGE, {}, np.nan, 0, None),
        (b'{"value": -%s}' % HUGE, {}, np.nan, 0, None),
        (HUGE, {"format": "plain"}, np.nan, 0, None),
        (b'{"value": 3, "q": %s}' % HUGE, {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3, "q": "BAD"}', {"quality_path": "q"}, 3.0, 0, None),
        (b'{"value": 3, "q": "uncertain"}', {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3, "q": true}', {"quality_path": "q"}, 3.0, 2, None),
        (b'{"value": 3, "q": 2150891520}', {"quality_path": "q"}, 3.0, 0, None),
        (b'{"value": 3, "q": [1]}', {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3}', {"quality_path": "q"}, 3.0, 1, None),
        (b'{"value": 3}', {"quality_path": "q", "quality_missing": "good"}, 3.0, 2, None),
        (b'{"value": 3, "q": 0}', {"quality_path": "q"}, 3.0, 2, None),
        (b'{"value": 3, "q": 0}', {"quality_path": "q", "quality_code": "opcda"}, 3.0, 0, None),
        (b'{"value": 3, "q": 64}', {"quality_path": "q", "quality_code": "opcda"}, 3.0, 1, None),
        (b'{"value": 3, "q": 216}', {"quality_path": "q", "quality_code": "opcda"}, 3.0, 2, None),
        (b'{"value": 3, "q": 1}', {"quality_path": "q", "quality_code": "profibus"}, 3.0, 1, None),
        (b'{"value": 3, "q": 3}', {"quality_path": "q", "quality_code": "profibus"}, 3.0, 2, None),
        (b'{"value": 3, "q": 192}', {"quality_path": "q", "quality_code": "profibus"}, 3.0, 1, None),
        (b'{"value": %s}' % (HUGE * 20), {}, np.nan, 0, None),
        (b'{"value": 1, "t": %s}' % (HUGE * 20), {"time_path": "t"}, np.nan, 0, None),
        (b'{"value": 3, "t": "9999-12-31T23:59:59-14:00"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, None),
        (b'{"value": 3, "t": "0001-01-01T00:00:00+14:00"}', {"time_path": "t", "time_unit": "iso"}, 3.0, 2, None),
        (b'{"value": 3, "t": "1800000000000"}', {"time_path": "t", "time_unit": "ms"}, 3.0, 2, NOW_NS),
        (b'{"value": 3, "t": -1}', {"time_path": "t"}, 3.0, 2, None),
        (b'{"value": 3, "t": [[[]]]}', {"time_path": "t"}, 3.0, 2, None),
        (b'{"value": 1e999}', {}, np.nan, 0, None),
        (b'{"value": "1e999"}', {}, np.nan, 0, None),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, {}, np.nan, 0, None),
        (b"[" * 50_000 + b"]" * 50_000, {}, np.nan, 0, None),
        (b'{"value": "317.3988"}', {}, 317.3988, 2, None),
        (b'{"value": " -1.5e-3 "}', {}, -0.0015, 2, None),
        (b'"12.5"', {"format": "plain"}, 12.5, 2, None),
        (b"12,5", {"format": "plain"}, np.nan, 0, None),
        (b"12,5", {"format": "plain", "decimal": ","}, 12.5, 2, None),
        (b"1.234,5", {"format": "plain", "decimal": ","}, np.nan, 0, None),
        (b"1,234.5", {"format": "plain"}, np.nan, 0, None),
        (b"1_000", {"format": "plain"}, np.nan, 0, None),
        (b'{"value": "1_000"}', {}, np.nan, 0, None),
        (b"0x1F", {"format": "plain"}, np.nan, 0, None),
        ("١٢".encode(), {"format": "plain"}, np.nan, 0, None),
        (b"12.5 m3/h", {"format": "plain"}, np.nan, 0, None),
        (b'{"value": "ON"}', {}, np.nan, 0, None),
        (b'{"value": "ON"}', {"states": {"ON": 1, "OFF": 0}}, 1.0, 2, None),
        (b"OFF", {"format": "plain", "states": {"ON": 1, "OFF": 0}}, 0.0, 2, None),
        (b'{"value": "FAULT"}', {"states": {"ON": 1, "OFF": 0}}, np.nan, 0, None),
        (b'\xef\xbb\xbf{"value": 3.1}', {}, 3.1, 2, None),
        (b'{"32.7.0": 229.9, "1.7.0": 840}', {"value_path": '"1.7.0"'}, 840.0, 2, None),
        (b'{"32.7.0": 229.9, "1.7.0": 840}', {"value_path": "1.7.0"}, 840.0, 2, None),
        (b'{"d": {"particles_2.5um": 5}}', {"value_path": 'd."particles_2.5um"'}, 5.0, 2, None),
        (b'{"d": {"a": {"b": 5}}}', {"value_path": 'd."a.b"'}, np.nan, 0, None),
    ],
)
def test_payloads(payload: bytes, options: dict[str, str], value: float, quality: int, t_ns: int | None):
    (reading,), tally = read(payload, **options)
    np.testing.assert_equal((reading.value, reading.quality, reading.t_ns), (value, quality, t_ns))
    assert tally.noted["payload without a number"] == np.isnan(value)
    assert tally.noted["no usable time stamp"] == ("time_path" in options and t_ns is None)
    assert not tally.noted or "(TT101)" in tally.text()


KEPWARE = b"""{"timestamp": 1800000000900, "values": [
  {"id": "Channel1.Device1.PT101", "v": 3.1, "q": true, "t": 1800000000100},
  {"id": "Channel1.Device1.TT101", "v": 81.5, "q": true, "t": 1800000000200},
  {"id": "Channel1.Device1.TT101", "v": 82.5, "q": false, "t": 1800000000300}]}"""
IGNITION = b"""{"topic": {"namespace": "spBv1.0", "edgeNodeDescriptor": "G1/E1", "type": "DDATA"},
  "payload": {"timestamp": 1800000000900, "seq": 2, "metrics": [
  {"name": "Line 1/TT101", "timestamp": 1800000000200, "dataType": "Double", "value": 81.5},
  {"name": "Line 1/PT101", "timestamp": 1800000000100, "dataType": "Double", "value": 3.1,
   "properties": {"Quality": {"type": "Int32", "value": 0}}}]}}"""
SIEMENS = b"""{"seq": 4711, "vals": [
  {"id": "102", "qc": 0, "ts": "2027-01-15T08:00:00.100Z", "val": 3.1},
  {"id": "101", "qc": 3, "ts": "2027-01-15T08:00:00.200Z", "val": "81.5"}]}"""
METRIC = "payload.metrics[name=Line 1/{}]"


@pytest.mark.parametrize(
    ("payload", "options", "expected"),
    [
        (
            KEPWARE,
            {
                "value_path": "values[id=Channel1.Device1.TT101].v",
                "time_path": "values[id=Channel1.Device1.TT101].t",
                "quality_path": "values[id=Channel1.Device1.TT101].q",
                "time_unit": "ms",
            },
            [(81.5, 2, NOW_NS + 200_000_000), (82.5, 0, NOW_NS + 300_000_000)],
        ),
        (
            KEPWARE,
            {"value_path": 'values[id="Channel1.Device1.PT101"].v', "time_path": "timestamp", "time_unit": "ms"},
            [(3.1, 2, NOW_NS + 900_000_000)],
        ),
        (KEPWARE, {"value_path": "values[id=Channel1.Device1.LT101].v"}, []),
        *(
            (
                IGNITION,
                {
                    "value_path": f"{METRIC.format(tag)}.value",
                    "time_path": f"{METRIC.format(tag)}.timestamp",
                    "quality_path": f"{METRIC.format(tag)}.properties.Quality.value",
                    "quality_code": "opcda",
                    "quality_missing": "good",
                    "time_unit": "ms",
                },
                expected,
            )
            for tag, expected in (
                ("TT101", [(81.5, 2, NOW_NS + 200_000_000)]),
                ("PT101", [(3.1, 0, NOW_NS + 100_000_000)]),
            )
        ),
        *(
            (
                SIEMENS,
                {
                    "value_path": f"vals[id={tag}].val",
                    "time_path": f"vals[id={tag}].ts",
                    "quality_path": f"vals[id={tag}].qc",
                    "quality_code": "profibus",
                    "time_unit": "iso",
                },
                expected,
            )
            for tag, expected in ((101, [(81.5, 2, NOW_NS + 200_000_000)]), (102, [(3.1, 0, NOW_NS + 100_000_000)]))
        ),
        (b'{"values": {"id": "TT101", "v": 1}}', {"value_path": "values[id=TT101].v"}, [(np.nan, 0, None)]),
        (b'{"values": [{"id": "TT101"}]}', {"value_path": "values[id=TT101].v"}, [(np.nan, 0, None)]),
    ],
)
def test_lists_of_named_values_are_read_by_name_wherever_the_element_stands(payload: bytes, options, expected):
    """The payloads of Kepware's IoT Gateway, Cirrus Link's Cloud Injector (Ignition) and Siemens Industrial Edge."""
    readings, _ = read(payload, **options)
    np.testing.assert_equal([tuple(reading) for reading in readings], expected)


@mosquitto
def test_many_tags_of_one_message_and_a_shared_subscription(tmp_path):
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        listed = {"value_path": "values[id=Device1.{signal}].v", "time_path": "values[id=Device1.{signal}].t"}
        shared = TopicConfig(topic="$share/fusion/gateway", signals=["TT101", "LT101"], time_unit="ms", **listed)
        source = build(peer.port, topics=[shared, TopicConfig(topic="plain/FT101", signal="FT101", format="plain")])
        await source.start()
        try:
            await until(lambda: source.state is SourceState.LIVE)
            now_ms = time.time_ns() // 1_000_000
            told = [{"id": f"Device1.{name}", "v": v, "t": now_ms} for name, v in (("LT101", 2.5), ("TT101", 81.5))]
            await peer.publish("gateway", json.dumps({"values": told}))
            await peer.publish("plain/FT101", "7")
            found = values(await collect(source, lambda items: len(values(items)) >= 3))
            assert sorted(found) == [("FT101", 7.0, 2), ("LT101", 2.5, 2), ("TT101", 81.5, 2)]
            for value in (82.5, 83.5):
                again = [{"id": "Device1.TT101", "v": value, "t": now_ms}]
                await peer.publish("gateway", json.dumps({"values": again}))
            await collect(source, lambda items: len(values(items)) >= 2)
            assert "changed under one time stamp 2 (TT101)" in source.health().message
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


@mosquitto
def test_a_retained_absurdity_costs_no_connection(tmp_path):
    async def scenario() -> None:
        peer = MqttPeer(tmp_path)
        await peer.start()
        for payload in (b'{"value": %s}' % (HUGE * 20), b"[" * 20_000, b'{"value": 1, "t_ns": 1e308}'):
            await peer.publish("plant/TT101", payload, retain=True)
            source = build(peer.port)
            await source.start()
            try:
                ((name, value, quality),) = values(await collect(source, values))
                assert (name, quality) == ("TT101", 0) or value == 1.0
                await peer.publish("plain/FT101", "2")
                assert values(await collect(source, values)) == [("FT101", 2.0, 2)]
                assert (source.state, source.epoch) == (SourceState.LIVE, 1)
                assert "(TT101)" in source.health().message
            finally:
                await source.stop()
        await peer.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"protocol": "3"}, "3.1.1"),
        ({"port": 0}, "port"),
        ({"qos": 3}, "qos"),
        ({"topics": []}, "no topics"),
        ({"tls": True, "tls_ca": "/nonexistent"}, "must exist"),
        ({"tls_key": "k"}, "tls_certificate"),
        ({"topics": [TopicConfig(topic="a", signal="XX")]}, "no process signal"),
        ({"topics": [TopicConfig(topic="a", signal="TT101"), TopicConfig(topic="b", signal="TT101")]}, "twice"),
    ],
)
def test_configuration_errors_name_the_key(options: dict[str, object], key: str):
    with pytest.raises(ConfigError, match=key):
        build(1883, **options)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"topic": "a/+", "signal": "TT101"}, "wildcards"),
        ({"topic": "a/{signal}", "signal": "TT101"}, "give signal"),
        ({"topic": "a"}, "give signal"),
        ({"topic": "a", "signal": "TT101", "format": "xml"}, "json, plain"),
        ({"topic": "a", "signal": "TT101", "time_unit": "min"}, "iso"),
        ({"topic": "a", "signal": "TT101", "decimal": ";"}, "decimal"),
        ({"topic": "a", "signal": "TT101", "states": {"True": 1}}, "in quotes"),
        ({"topic": "a", "signal": "TT101", "quality_code": "x"}, "opcda"),
        ({"topic": "a", "signal": "TT101", "value_path": 'a."b'}, "in quotes"),
        ({"topic": "a", "signal": "TT101", "time_path": "a[0]"}, "mqtt.topics.a.time_path"),
        ({"topic": "$share/group/", "signal": "TT101"}, "not accepted"),
    ],
)
def test_topic_errors_name_the_key(options: dict[str, str], key: str):
    with pytest.raises(ConfigError, match=key):
        TopicConfig(**options)
