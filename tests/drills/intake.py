"""Drills of the way in: hostile messages, floods, and decoders that are killed."""

import asyncio
import contextlib
import json
import os
import random
import signal
import time

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from asyncua import ua
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.base import Tally
from connectors.kinds import source_of
from connectors.lidar.config import LidarConfig
from connectors.media.config import VideoConfig
from connectors.mqtt.config import MqttConfig, TopicConfig
from connectors.mqtt.payload import Extractor
from connectors.opcua.notifications import NotificationReader
from fusion.dashboard.board import Board
from fusion.errors import FusionError
from fusion.health import SourceState
from fusion.publish import orders
from fusion.timeline.timeline import Timeline
from tests.contract.peers import PLANT, LidarPeer, MqttPeer, RtspPeer, collect, supervision, until, values
from tests.drills.rig import Memory, Options, Outcome

EXAMPLES = 500
VALUE = {"value": 1.5, "t_ns": 1_800_000_000_000_000_000, "quality": "good"}
ABSURD = [
    b"",
    b"\x00" * 64,
    b"\xff\xfe{",
    b"[" * 100_000,
    b'{"value":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"value": 1e999}',
    b'{"value": -1e400, "t_ns": 1}',
    b'{"value": NaN}',
    b'{"value": ' + b"9" * 5_000 + b"}",
    b'{"value": 1, "t_ns": ' + b"9" * 30 + b"}",
    b'{"value": 1, "t_ns": "2026-13-99"}',
    b'{"value": 1, "quality": {"a": []}}',
    b'{"value": {"value": 1}}',
    b'{"value": "\\ud800"}',
    b'{"value": true, "t_ns": -1}',
    b"9" * 5_000,
    b"1e5000",
    b"1_000",
    b"x" * 300_000,
]
WRECK = settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEAR = st.fixed_dictionaries({}, optional=dict.fromkeys(("value", "t_ns", "quality", "id", "order", "schema"), JSON))
PAYLOADS = st.binary(max_size=300) | JSON.map(_json := lambda v: json.dumps(v).encode()) | NEAR.map(_json)


def _survives(strategy, take):
    """How many examples went in, and the first that raised what nobody catches."""
    seen = [0]

    @WRECK
    @given(strategy)
    def feed(example):
        seen[0] += 1
        take(example)

    try:
        feed()
    except Exception as error:  # noqa: BLE001 - what it is, is the finding
        return {"examples": seen[0], "raised": repr(error)[:300]}
    return {"examples": seen[0], "raised": ""}


def hostile_decoders(options: Options, folder):
    """Anything at all, and what looks nearly right, into every decoder of messages; found by hypothesis."""
    now_ns = time.time_ns()
    structured = TopicConfig(topic="t", signal="TT101", time_path="t_ns", quality_path="quality")
    iso = TopicConfig(topic="t", signal="TT101", time_path="t_ns", time_unit="iso")
    plain = TopicConfig(topic="t", signal="TT101", format="plain")
    readers = {f"mqtt {c.format} {c.time_unit}": Extractor(c, 0, Tally()) for c in (structured, iso, plain)}
    board, reader = Board(None, 900.0), NotificationReader(("TT101",), "h", Tally())

    def said(decode):
        def take(payload):
            with contextlib.suppress(FusionError):  # the refusal that callers count
                decode(payload)

        return take

    counts = {n: _survives(PAYLOADS, lambda p, x=x: x.reading(p, now_ns, False)) for n, x in readers.items()}
    counts["alarm order"] = _survives(PAYLOADS, said(orders.decode_order))
    counts["answer"] = _survives(PAYLOADS, said(orders.decode_answer))
    counts["page"] = _survives(PAYLOADS, lambda p: board.take("fusion/kiln/v1/anomaly", p))
    counts["page, simulator"] = _survives(PAYLOADS, lambda p: board.take("simulator/kiln/status", p))
    counts["opcua"] = _survives(_variants(), lambda v: reader.columns(_notified(v, reader.handle("TT101"))))
    for payload in ABSURD:
        for extractor in readers.values():
            extractor.reading(payload, now_ns, False)
    bad = {name: found["raised"] for name, found in counts.items() if found["raised"]}
    total = sum(found["examples"] for found in counts.values())
    said_lost = f"{len(bad)} of {len(counts)} decoders, in {total} messages" + (f": {bad}" if bad else "")
    return Outcome(passed=not bad, lost=said_lost, parameters={"examples_each": EXAMPLES}, counts=counts)


def _variants():
    scalars = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text(max_size=20)
    return st.tuples(scalars | st.binary(max_size=20) | st.lists(st.floats(), max_size=3), st.integers(0, 2**32 - 1))


def _notified(given_value, handle):
    value, status = given_value
    try:
        variant = ua.Variant(value)
    except (ua.UaError, ValueError, TypeError):
        variant = ua.Variant(None)
    data = ua.DataValue(variant, ua.StatusCode(status))
    item = ua.MonitoredItemNotification(ClientHandle=handle, Value=data)
    changes = ua.DataChangeNotification(MonitoredItems=[item])
    return ua.PublishResult(NotificationMessage=ua.NotificationMessage(NotificationData=[changes]))


def hostile_wire(options: Options, folder):
    """Absurd payloads over a real broker and forged packets over UDP, each time followed by a good value."""
    return asyncio.run(_hostile_wire(folder, random.Random(options.seed)))


async def _hostile_wire(folder, chance):
    broker, sensor = MqttPeer(folder), LidarPeer()
    await broker.start()
    topic = TopicConfig(topic="plant/TT101", signal="TT101", time_path="t_ns", quality_path="quality")
    tags = source_of(MqttConfig(port=broker.port, topics=[topic], supervision=supervision()), PLANT)
    clouds = source_of(LidarConfig(signal="lidar", port=sensor.port, supervision=supervision()), PLANT)
    counts = {"payloads": len(ABSURD), "packets": 500, "good_values_after": 0, "clouds_after": 0}
    await tags.start(), await clouds.start(), await sensor.start()
    try:
        await until(lambda: tags.state is SourceState.LIVE)
        for number, payload in enumerate(ABSURD):
            await broker.publish("plant/TT101", payload)
            await broker.feed(number)
            seen = await collect(tags, lambda items, n=number: ("TT101", float(n), 2) in values(items))
            counts["good_values_after"] += bool(seen)
        for _ in range(counts["packets"]):
            right = bytearray(sensor.packet(chance.randrange(36_000)))
            for _ in range(chance.randrange(1, 40)):
                right[chance.randrange(len(right))] = chance.randrange(256)
            sensor.send(bytes(right[: chance.choice([0, 1, 42, 1205, 1206, 1206, 1206])]))
        clouds.drain()
        counts["clouds_after"] = len(await collect(clouds, lambda items: len(items) >= 5))
        counts |= {"mqtt_connections": tags.epoch, "lidar_connections": clouds.epoch, "said": tags.health().message}
    finally:
        await tags.stop(), await clouds.stop(), await sensor.stop(), await broker.stop()
    missed = len(ABSURD) - counts["good_values_after"]
    passed = (
        not missed and counts["clouds_after"] >= 5 and counts["mqtt_connections"] == counts["lidar_connections"] == 1
    )
    return Outcome(passed=passed, lost=f"{missed} of {len(ABSURD)} good values that followed", counts=counts)


def hostile_camera(options: Options, folder):
    """A server that answers a camera's reader with rubbish, several ways, and then a real camera on the same port."""
    return asyncio.run(_hostile_camera(random.Random(options.seed)))


async def _hostile_camera(chance):
    camera, asked = RtspPeer(), 0

    async def answer(reader, writer):
        nonlocal asked
        asked += 1
        with contextlib.suppress(OSError):
            await asyncio.wait_for(reader.read(4096), 2.0)
            right = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 4000000000\r\n\r\n"
            said = chance.choice([b"", chance.randbytes(3000), right, b"RTSP/1.0 " + b"9" * 9000, right[:20]])
            writer.write(said)
            await writer.drain()
        writer.close()

    settings_of = {"url": camera.url("camera"), "signal": "camera", "open_timeout_s": 1.0, "read_timeout_s": 1.0}
    source = source_of(VideoConfig(**settings_of, supervision=supervision(open_timeout_s=4.0)), PLANT)
    server = await asyncio.start_server(answer, "127.0.0.1", camera.port)
    await source.start()
    try:
        await until(lambda: asked >= 6 and source.epoch >= 3, 40.0)
        said = source.health().message
        server.close()
        await camera.start()
        pictures = len(await collect(source, lambda items: len(items) >= 3, 20.0))
    finally:
        await source.stop()
        await camera.stop()
    counts = {"answers_of_rubbish": asked, "connections": source.epoch, "said": said, "pictures_after": pictures}
    lost = "nothing: pictures come as soon as there is a camera" if pictures >= 3 else "the camera"
    return Outcome(passed=bool(said) and pictures >= 3, lost=lost, counts=counts)


def flood(options: Options, folder):
    """Ten times the nominal rate of messages for a while; what is not taken is counted, and memory stays."""
    return asyncio.run(_flood(folder, 60.0 if options.long else 8.0))


async def _flood(folder, duration_s):
    nominal_hz, times = 200, 10
    broker = MqttPeer(folder)
    await broker.start()
    topic = TopicConfig(topic="plant/{signal}", signals=["TT101", "LT101", "FT101"], time_path="t_ns")
    source = source_of(MqttConfig(port=broker.port, topics=[topic], qos=1, supervision=supervision()), PLANT)
    timeline, memory, taken, ticks = Timeline(PLANT), Memory(os.getpid()), 0, 0
    await source.start()
    sender = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    sender.max_inflight_messages_set(1000)
    sender.connect("127.0.0.1", broker.port)
    sender.loop_start()
    try:
        await until(lambda: source.state is SourceState.LIVE)
        sent, began, cpu_s = 0, time.monotonic(), time.process_time()
        while (passed_s := time.monotonic() - began) < duration_s:
            while sent < nominal_hz * times * passed_s:
                text = msgspec.json.encode(VALUE | {"value": float(sent), "t_ns": time.time_ns()})
                sender.publish(f"plant/{('TT101', 'LT101', 'FT101')[sent % 3]}", text, qos=1)
                sent += 1
            for item in source.drain():
                taken += len(item)
                timeline.push(item)
            ticks += len(timeline.advance(time.time_ns()))
            memory.note()
            await asyncio.sleep(0.02)
        cpu_s = time.process_time() - cpu_s
        with contextlib.suppress(AssertionError):
            await until(lambda: source.health().received >= sent, 5.0)
        taken += sum(len(item) for item in source.drain())
        health = source.health()
    finally:
        sender.disconnect(), sender.loop_stop()
        await source.stop()
        await broker.stop()
    lost, dropped = sent - health.received, sum(health.dropped.values())
    counts = {
        "sent": sent,
        "received": health.received,
        "taken": taken,
        "dropped_and_counted": health.dropped,
        "lost_before_us": lost,
        "unaccounted": health.received - taken - dropped,
        "ticks": ticks,
        "cpu_share_with_sender": round(cpu_s / duration_s, 2),
        **memory.counts(duration_s / 2),
    }
    said = f"{lost} of {sent} messages before us, {dropped} here and counted, {counts['unaccounted']} unaccounted"
    passed = lost == 0 and counts["unaccounted"] == 0 and ticks >= duration_s - 3
    return Outcome(passed=passed, lost=said, parameters={"nominal_hz": nominal_hz, "times": times}, counts=counts)


def media_kills(options: Options, folder):
    """The child that decodes a camera is killed at random moments; the daemon's process and other sources go on."""
    return asyncio.run(_media_kills(options.kills, random.Random(options.seed)))


async def _media_kills(kills, chance):
    camera = RtspPeer()
    await camera.start()
    settings_of = {"url": camera.url("camera"), "signal": "camera", "supervision": supervision()}
    source, back_s, pictures = source_of(VideoConfig(**settings_of), PLANT), [], 0
    await source.start()
    try:
        await collect(source, lambda items: len(items) >= 3)
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            os.kill(source._driver.pid, signal.SIGKILL)
            killed_s, epoch = time.monotonic(), source.epoch
            await until(lambda e=epoch: source.epoch > e)
            source.drain()
            pictures += len(await collect(source, lambda items: len(items) >= 3))
            back_s.append(time.monotonic() - killed_s)
        gaps = len(source.gaps())
    finally:
        await source.stop()
        await camera.stop()
    counts = {"kills": kills, "back": len(back_s), "gaps_told": gaps, "pictures_after": pictures}
    counts |= {"seconds_until_pictures_p50_max": [round(float(x), 2) for x in (np.median(back_s), max(back_s))]}
    said = f"the pictures of {np.median(back_s):.1f} s a kill (largest {max(back_s):.1f} s), each told as a gap"
    return Outcome(passed=gaps == kills == len(back_s), lost=said, parameters={"kills": kills}, counts=counts)


DRILLS = (hostile_decoders, hostile_wire, hostile_camera, flood, media_kills)
