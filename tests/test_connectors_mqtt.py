import asyncio
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

from connectors.base import ARRIVAL_CLOCK, Source
from connectors.kinds import source_of
from connectors.mqtt.config import MqttConfig, TopicConfig
from connectors.mqtt.payload import Extractor
from fusion.errors import ConfigError
from fusion.health import SourceState
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
        ({"tls": True, "tls_ca": "/nonexistent"}, "tls_ca: .*cannot be read"),
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
