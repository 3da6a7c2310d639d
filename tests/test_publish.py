import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mosquitto import PASSWORD, USER, Mosquitto, needs_broker, needs_tls, secured, with_passwords
from wire_examples import (
    KILN,
    T0,
    anomaly,
    forecast,
    frame,
    free_port,
    health,
    recommendation,
    until,
)

from fusion.alarms import Alarm, AlarmOrder, MarkKind, MarkOrder, OrderKind
from fusion.clock import Clock
from fusion.command import carry_out
from fusion.daemon.outlet import MqttOutlet
from fusion.daemon.service import Daemon
from fusion.daemon.settings import load_daemon_config
from fusion.errors import ConfigError
from fusion.mqtt.client import ClientState
from fusion.plant import Plant
from fusion.publish.encoding import energy_message
from fusion.publish.messages import SurpriseOut
from fusion.publish.outbox import Letter, Outbox
from fusion.publish.preview import picture_png
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.publish.salvage import opened
from fusion.records import NS_PER_S, AnomalyState, Answer, AnswerKind, Gap
from fusion.timeline.timeline import Timeline

ROOT = Path(__file__).parents[1]


ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo.yaml"


# -- outbox


def letter(key, kind="anomaly"):
    return Letter(message_id=key, kind=kind, topic="t", payload=b"x")


def test_outbox_survives_a_restart_in_order_and_without_repeats(tmp_path):
    path = str(tmp_path / "var" / "outbox.sqlite")
    with contextlib.closing(Outbox(path)) as outbox:
        assert outbox.update(letters=[letter("a"), letter("b"), letter("a")]) == []
    with contextlib.closing(Outbox(path)) as outbox:
        rows = outbox.after(0, 10)
        assert [x.message_id for _, x in rows] == ["a", "b"]
        outbox.update(["a"])
        assert len(outbox) == 1


def test_full_outbox_lets_the_oldest_go():
    with contextlib.closing(Outbox(capacity=2)) as outbox:
        assert outbox.update((), [letter("a", "recommendation"), letter("b"), letter("c")]) == ["recommendation"]
        assert [x.message_id for _, x in outbox.after(0, 10)] == ["b", "c"]


def spoil_nothing_left(path):
    path.write_bytes(b"this is no database" * 100)
    return "file is not a database"


def spoil_a_page_in_the_middle(path):
    data = bytearray(path.read_bytes())
    page = len(data) // 4096 // 2 * 4096
    data[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    return ""


def spoil_the_end(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return ""


@needs_broker
@pytest.mark.parametrize(
    ("spoil", "at_least"), [(spoil_nothing_left, 0), (spoil_a_page_in_the_middle, 100), (spoil_the_end, 100)]
)
def test_a_damaged_outbox_is_set_aside_and_what_can_be_read_of_it_is_delivered(
    broker, tmp_path, caplog, spoil, at_least
):
    path = tmp_path / "outbox.sqlite"
    names = [f"kiln-{number}" for number in range(300)]
    with publisher(free_port(), outbox=str(path)) as out:
        out.publish(*(anomaly(name) for name in names))
    reason, spoiled = spoil(path), path.read_bytes()
    reader = broker.read("fusion/kiln/v1/anomaly", 1000, timeout_s=4)
    with publisher(broker.port, outbox=str(path)) as out:
        assert out.flags == ("outbox:set_aside",)
        (aside,) = tmp_path.glob("outbox.sqlite.*.aside")
        assert aside.read_bytes() == spoiled
        (said,) = [r.getMessage() for r in caplog.records if "is not used and kept as" in r.getMessage()]
        assert aside.name in said
        assert reason in said
        saved = int(re.search(r"(\d+) letters could be read", said)[1])
        assert at_least <= saved < len(names)
        until(lambda: (out.waiting, out.published["anomaly"]) == (0, saved), "what could be read is sent")
        assert out.publish(anomaly("new"))
        until(lambda: out.published["anomaly"] == saved + 1, "the new outbox works")
    ids = [message["id"] for _, message in messages_of(reader)]
    assert len(ids) == saved + 1
    assert ids[:-1] == [name for name in names if name in set(ids)]
    with publisher(broker.port, outbox=str(path)) as out:
        assert out.flags == ()


def test_another_database_is_not_touched(tmp_path):
    path = tmp_path / "outbox.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE outbox (name TEXT)")
        other.commit()
    with pytest.raises(ConfigError, match=r"outbox\.sqlite.*no such column.*move the file away"):
        MqttPublisher(PublisherConfig(outbox=str(path)), KILN, "m1")
    assert [file.name for file in tmp_path.glob("*.aside*")] == []


def test_letters_of_a_damaged_outbox_keep_their_axis_of_time(tmp_path):
    """The system's clock was stepped by an hour between two lives, and the file was damaged as well."""
    path, hour_ns = tmp_path / "outbox.sqlite", 3600 * NS_PER_S
    before, after = (Clock(lambda by=by: T0 + by, lambda: 0, "boot") for by in (0, hour_ns))
    advice = [recommendation(T0 + number, 600.0) for number in range(100)]
    out = MqttPublisher(PublisherConfig(port=free_port(), outbox=str(path)), KILN, "m1", clock=before)
    out.publish(*advice)
    out._bag.close()
    spoil_a_page_in_the_middle(path)
    outbox, flags = opened(str(path), 1000, after)
    with contextlib.closing(outbox):
        assert flags
        ends = {letter.expires_ns for _, letter in outbox.after(0, 1000)}
    assert ends
    assert ends <= {one.valid_until_ns + hour_ns for one in advice}


# -- configuration


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"protocol": "4"}, "publish.protocol.*auto, 5, 3.1.1"),
        ({"port": 0}, "publish.port"),
        ({"host": ""}, "publish.host"),
        ({"password": "a", "password_file": "b"}, "not both"),
        ({"retry_s": 0}, "retry_s"),
        ({"outbox_capacity": 0}, "outbox_capacity"),
    ],
)
def test_bad_settings_are_named(settings, text):
    with pytest.raises(ConfigError, match=text):
        PublisherConfig(**settings)


def test_missing_secret_and_certificate_are_named(tmp_path):
    with pytest.raises(ConfigError, match="password_file"):
        MqttPublisher(PublisherConfig(username="x", password_file=str(tmp_path / "none")), KILN)
    with pytest.raises(ConfigError, match="tls"):
        MqttPublisher(PublisherConfig(tls=True, tls_ca=str(tmp_path / "none")), KILN)
    with pytest.raises(ConfigError, match=r"plant\.name"):
        MqttPublisher(PublisherConfig(), Plant(name="a/b", signals=()))


# -- a real broker


@pytest.fixture
def broker(tmp_path):
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


def text_of(reader):
    with reader:
        return reader.stdout.read()


def messages_of(reader):
    lines = [line.split(" ", 1) for line in text_of(reader).splitlines() if line.startswith("fusion/")]
    return [(topic, json.loads(payload)) for topic, payload in lines]


@contextlib.contextmanager
def publisher(port, **settings):
    config = PublisherConfig(**{"port": port, "retry_s": 0.1, "retry_max_s": 0.2, "outbox": "", **settings})
    publisher = MqttPublisher(config, KILN, "m1")
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close()


def online(publisher):
    until(lambda: publisher.state is ClientState.ONLINE, f"online ({publisher.message})")


@needs_broker
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_mosquitto_sub_reads_every_kind(broker, protocol):
    reader = broker.read("fusion/kiln/v1/#", 8, timeout_s=8)
    with publisher(broker.port, protocol=protocol) as out:
        online(out)
        assert out.message.endswith(f"MQTT {protocol}")
        surprise = SurpriseOut(name="e", modality="process", value=1.0, limit=3.0, p_value=0.5)
        for record in (health(), anomaly(), forecast(), recommendation(), frame()):
            out.publish(record)
        out.publish(energy_message(KILN, T0, [surprise], []))
        out.publish_preview("camera", picture_png(np.zeros((8, 8), np.uint8)))
        until(lambda: out.published["recommendation"] == 1 and out.published["preview"] == 1, "acknowledged")
        assert out.dropped == {}
        assert out.waiting == 0
    raw = text_of(reader)
    for kind in ("health", "anomaly", "forecast", "recommendation", "frame", "energy", "preview/camera"):
        assert f"fusion/kiln/v1/{kind} " in raw


@needs_broker
def test_health_is_retained_and_says_what_stands_whatever_was_published_before(broker):
    with publisher(broker.port) as out:
        until(lambda: out.published["health"] == 1, "birth")
        out.publish(anomaly("passing"))
        out.publish(recommendation())
        stands, returned = (Alarm(anomaly=a, raised_ns=T0) for a in (anomaly(), anomaly("a0", AnomalyState.CLEARED)))
        out.publish(replace(health(), alarms=(stands, returned)))
        until(lambda: out.published["health"] == 2 and out.published["recommendation"] == 1, "published")
        found = messages_of(broker.read("fusion/kiln/v1/#", 5, timeout_s=1))
        assert [topic for topic, _ in found] == ["fusion/kiln/v1/health"]  # and no advice for latecomers
        assert [a["id"] for a in found[0][1]["open_anomalies"]] == ["a1"]
        assert [a["state"] for a in found[0][1]["alarms"]] == ["unacknowledged", "returned_unacknowledged"]
        out.publish(health())
        until(lambda: out.published["health"] == 3, "published")
        ((_, message),) = messages_of(broker.read("fusion/kiln/v1/health"))
        assert message["open_anomalies"] == []
        assert message["delivery"]["published"]["anomaly"] >= 1
    ((_, message),) = messages_of(broker.read("fusion/kiln/v1/health"))
    assert message["state"] == "offline"


@needs_broker
def test_kill_leaves_the_last_will(broker):
    script = "\n".join(
        [
            "import sys, time",
            "from test_publish import *",
            "with publisher(int(sys.argv[1])) as out:",
            "    out.publish(health())",
            "    until(lambda: out.published['health'] >= 1, 'health')",
            "    print('ready', flush=True)",
            "    time.sleep(30)",
        ]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(broker.port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )
    with process:
        assert process.stdout.readline().strip() == "ready"
        reader = broker.read("fusion/kiln/v1/health", 2, timeout_s=8)
        process.send_signal(signal.SIGKILL)
    states = [message["state"] for _, message in messages_of(reader)]
    assert states[-1] == "offline"
    ((_, message),) = messages_of(broker.read("fusion/kiln/v1/health"))
    assert message["state"] == "offline"  # retained


@needs_broker
def test_anomaly_outlives_a_broker_outage_and_expired_advice_does_not(broker, tmp_path):
    path = str(tmp_path / "outbox.sqlite")
    with publisher(broker.port, outbox=path) as out:
        online(out)
        broker.stop()
        until(lambda: out.state is ClientState.DOWN, "outage noticed")
        out.publish(anomaly("during"))
        out.publish(recommendation(valid_s=0.05))
        out.publish(recommendation(valid_s=60))
        out.publish(frame())
        until(lambda: out.waiting == 3 and out.dropped["frame:offline"] == 1, "stored")
        broker.start()
        until(lambda: out.state is ClientState.ONLINE and out.waiting == 0, "delivered")
        assert out.published["anomaly"] == out.published["recommendation"] == 1
        assert out.dropped["recommendation:expired"] == 1


@needs_broker
def test_outbox_of_an_earlier_run_is_delivered(broker, tmp_path):
    path = str(tmp_path / "outbox.sqlite")
    with publisher(free_port(), outbox=path) as out:
        out.publish(anomaly("yesterday"))
        until(lambda: out.waiting == 1, "stored")
        assert out.state in (ClientState.DOWN, ClientState.CONNECTING)
    reader = broker.read("fusion/kiln/v1/anomaly", timeout_s=8)
    with publisher(broker.port, outbox=path) as out:
        until(lambda: out.published["anomaly"] == 1, "delivered")
    ((_, message),) = messages_of(reader)
    assert message["id"] == "yesterday"
    assert message["message_id"].startswith("yesterday:raised:")


@needs_broker
def test_advice_expires_at_the_broker_with_mqtt_5(broker):
    with publisher(broker.port, protocol="5") as out:
        reader = broker.read("fusion/kiln/v1/recommendation", 1, "-V", "5", "-F", "expires %E")
        out.publish(recommendation(valid_s=40))
        until(lambda: out.published["recommendation"] == 1, "published")
        text = text_of(reader)
    assert 35 <= int(re.search(r"^expires (\d+)", text, re.MULTILINE)[1]) <= 40


@needs_broker
def test_wrong_password_is_visible_and_the_right_one_is_accepted(tmp_path):
    broker = Mosquitto(tmp_path, with_passwords(tmp_path))
    try:
        with publisher(broker.port, username=USER, password="wrong") as out:
            until(lambda: out.state is ClientState.REFUSED, f"refused ({out.message})")
            assert "ot authorized" in out.message
        with publisher(broker.port, username=USER, password_file=str(tmp_path / "secret")) as out:
            online(out)
    finally:
        broker.stop()


def test_unreachable_broker_is_said_once_and_never_blocks(caplog):
    with publisher(free_port()) as out:
        until(lambda: out.state is ClientState.DOWN, "down")
        started = time.perf_counter()
        for _ in range(300):
            out.publish(frame())
        assert time.perf_counter() - started < 1.0
        until(lambda: sum(out.dropped.values()) == 300, "counted")
        time.sleep(0.4)  # a few attempts
        started = time.perf_counter()
    assert time.perf_counter() - started < 2.0
    assert len([r for r in caplog.records if r.name == "fusion.mqtt.client"]) == 1
    assert "cannot be reached" in out.message or out.state is ClientState.CLOSED


def test_auto_falls_back_to_311_where_5_is_refused():
    """A broker that answers CONNECT with protocol level 5 by hanging up, and level 4 with success."""
    server = socket.create_server(("127.0.0.1", 0))
    levels = []

    def serve():
        while len(levels) < 2:
            client, _ = server.accept()
            with client:
                client.settimeout(5)
                hello = client.recv(4096)
                levels.append(hello[hello.index(b"MQTT") + 4])
                if levels[-1] == 4:
                    client.sendall(b"\x20\x02\x00\x00")
                    while packet := client.recv(4096):
                        if packet[0] == 0x82:  # SUBSCRIBE: the packet id comes back with the quality granted
                            client.sendall(b"\x90\x03" + packet[2:4] + b"\x01")

    thread = threading.Thread(target=serve)
    thread.start()
    with server:
        with publisher(server.getsockname()[1]) as out:
            online(out)
            assert out.message.endswith("MQTT 3.1.1")
        thread.join(5)
    assert levels == [5, 4]


@needs_broker
def test_denied_letter_stays_and_is_named(tmp_path):
    rights = tmp_path / "rights"
    rights.write_text("topic write fusion/kiln/v1/health\n")
    rights.chmod(0o600)
    broker = Mosquitto(tmp_path, ("allow_anonymous true", f"acl_file {rights}"))
    try:
        with publisher(broker.port, protocol="5") as out:
            out.publish(anomaly())
            until(lambda: "denied anomaly" in out.message, f"denied ({out.message})")
            assert out.waiting == 1
            assert out.published["anomaly"] == 0
    finally:
        broker.stop()


@needs_broker
def test_frozen_broker_does_not_hold_up_close(broker):
    with publisher(broker.port) as out:
        online(out)
        broker.signal(signal.SIGSTOP)
        try:
            out.publish(anomaly())
            started = time.perf_counter()
            out.close()
            assert time.perf_counter() - started < 2.2
        finally:
            broker.signal(signal.SIGCONT)


@needs_tls
# paho leaves the socket of a failed handshake to the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_a_broker_of_an_unknown_authority_is_not_trusted(tmp_path):
    broker = secured(tmp_path)
    try:
        with publisher(broker.port, tls=True, username=USER, password=PASSWORD) as out:
            until(lambda: out.state is ClientState.DOWN, "refused to trust")
            assert "certificate verify failed" in out.message
    finally:
        broker.stop()


@needs_tls
def test_the_publish_section_of_a_daemon_reaches_a_broker_with_tls_and_a_password(tmp_path):
    """Every key of the section belongs to the publisher; names of files begin at the configuration's folder."""
    broker = secured(tmp_path)
    (tmp_path / "site.yaml").write_text(
        "defaults: [daemon_schema, _self_]\nplant: p.yaml\nmodel: m\n"
        f"publish: {{port: {broker.port}, client_id: kiln-1, protocol: '5', username: {USER}, password_file: secret,\n"
        "  tls: true, tls_ca: ca.pem, keepalive_s: 5, connect_timeout_s: 2, retry_s: 0.1, retry_max_s: 1,\n"
        "  outbox: box.sqlite, outbox_capacity: 5}\n"
    )
    config = load_daemon_config(tmp_path / "site.yaml")
    reader = broker.read("fusion/kiln/v1/anomaly", timeout_s=8)
    out = MqttPublisher(config.publish, KILN)
    out.start()
    try:
        out.publish(anomaly("over-tls"))
        ((_, message),) = messages_of(reader)
        assert message["id"] == "over-tls"
        assert (tmp_path / "box.sqlite").exists()
    finally:
        out.close()
        broker.stop()


def test_unknown_keys_of_the_publish_section_are_refused_with_the_accepted_ones(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "defaults: [daemon_schema, _self_]\nplant: p.yaml\nmodel: m\npublish: {tls_cafile: x}\n"
    )
    with pytest.raises(ConfigError, match=r"publish.tls_cafile: unknown key; accepted: host, port.*tls_ca.*outbox"):
        load_daemon_config(tmp_path / "site.yaml")
    with pytest.raises(ConfigError, match=r"publish.tls: must be true where tls_ca"):
        load_daemon_config(DEMO, ["publish.tls_ca=ca.pem"])


# -- trouble with the outbox, and the end of the thread


@needs_broker
def test_a_locked_outbox_is_said_and_holds_nothing_up(broker, tmp_path):
    path = tmp_path / "outbox.sqlite"
    with publisher(broker.port, outbox=str(path)) as out:
        online(out)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            reader = broker.read("fusion/kiln/v1/anomaly")
            assert not out.publish(anomaly("patient"))
            until(lambda: "database is locked" in out.message, f"said ({out.message})")
            assert out.state is ClientState.ONLINE
            until(lambda: (out.waiting, out.published["anomaly"]) == (0, 1), "sent from memory")
            out.publish(health())
            until(lambda: out.published["health"] == 2, "health goes out meanwhile")
            ((_, said),) = messages_of(broker.read("fusion/kiln/v1/health"))
            assert "database is locked" in said["delivery"]["message"]
        until(lambda: out.delivery.message == "", "the trouble is over")
        assert out.publish(anomaly("at once"))
        assert out.dropped == {}
    ((_, message),) = messages_of(reader)
    assert message["id"] == "patient"


def test_a_full_disk_changes_nothing_in_the_outbox():
    with contextlib.closing(Outbox()) as outbox:
        outbox.update((), [letter("a")])
        pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
        outbox._database.execute(f"PRAGMA max_page_count = {pages}")
        big = Letter(message_id="c", kind="anomaly", topic="t", payload=b"x" * 100_000)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            outbox.update((), [letter("b"), big])
        assert [x.message_id for _, x in outbox.after(0, 10)] == ["a"]


class Idle:
    """As much of an engine as a daemon without sources asks for."""

    plant, model_id, level, mode, calibrated_hours = KILN, "m1", "observe", "observe", 0.0
    flags, sequence, notes = (), 0, {}


@needs_broker
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_publisher_that_dies_ends_the_daemon_and_leaves_its_will(broker, monkeypatch, capsys):
    out = MqttPublisher(PublisherConfig(port=broker.port, outbox=""), KILN, "m1")

    async def live():
        daemon = Daemon([], Timeline(KILN), Idle(), MqttOutlet(out, Idle()))
        running = asyncio.create_task(daemon.run(asyncio.Event()))
        await asyncio.to_thread(until, lambda: out.published["health"] >= 2, "health")

        def damaged(*_):
            raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(Outbox, "after", damaged)
        out.publish(anomaly())
        await asyncio.wait_for(running, 10)

    assert carry_out(lambda: asyncio.run(live())) == 1
    assert "database disk image is malformed" in capsys.readouterr().err
    assert out.state is ClientState.CLOSED
    ((_, message),) = messages_of(broker.read("fusion/kiln/v1/health"))
    assert message["state"] == "offline"


@needs_broker
def test_answers_come_back_on_the_ack_topic_and_gaps_go_out_through_the_outbox(broker):
    gap = Gap(source="plc", t_from_ns=T0 - 5 * NS_PER_S, t_to_ns=T0, reason="pulled out")
    reader = broker.read("fusion/kiln/v1/gap")
    with publisher(broker.port) as out:
        until(lambda: out.published["health"] == 1, "connected")
        out.publish(gap)
        deep = '{"id": "a1", "answer": "accepted", "more": ' + 3000 * "["
        said = '{"id": "a1", "answer": "rejected", "reason": "not now"}'
        for payload in (deep, said, '{"id": "a1", "answer": "maybe"}'):
            broker.write("fusion/kiln/v1/recommendation/ack", payload)
        heard = []
        until(lambda: heard.extend(out.answers()) or heard, "an answer")
        until(lambda: out.dropped["answer:not_understood"] == 2, "payloads that are none")
        until(lambda: out.published["gap"] == 1, "acknowledged")
    assert heard == [Answer(id="a1", answer=AnswerKind.REJECTED, reason="not now")]
    ((_, message),) = messages_of(reader)
    assert (message["source"], message["t_from_ns"], message["t_ns"]) == ("plc", gap.t_from_ns, gap.t_to_ns)


@needs_broker
def test_orders_come_in_on_their_topic_and_what_is_old_or_unreadable_is_counted(broker):
    topic = "fusion/kiln/v1/alarm/order"
    stale = '{"id": "a1", "order": "acknowledge", "by": "yesterday"}'
    subprocess.run(
        ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), "-r", "-q", "1", "-t", topic, "-m", stale],
        check=True,
        timeout=5,
    )
    with publisher(broker.port) as out:
        until(lambda: out.dropped["order:retained"] == 1, "the retained one")
        for payload in ('{"id": "a1", "order": "forget", "by": "kim"}', '{"id": "a1", "order": "normal"}', "[" * 3000):
            broker.write(topic, payload)
        broker.write(topic, '{"id": "a1", "order": "shelve", "by": "kim", "for_s": 600}')
        heard = []
        until(lambda: heard.extend(out.orders()) or heard, "an order")
        assert out.dropped["order:not_understood"] == 3
    assert heard == [AlarmOrder(id="a1", order=OrderKind.SHELVE, by="kim", for_s=600.0)]


def test_times_of_a_mark_are_the_senders_and_follow_a_step_of_the_systems_clock():
    stepped = [0]
    clock = Clock(lambda: time.time_ns() + stepped[0])
    out = MqttPublisher(PublisherConfig(outbox=""), KILN, clock=clock)
    now_ns, stepped[0] = clock.now_ns(), 3600 * NS_PER_S
    said = json.dumps({"name": "trip", "kind": "fault", "by": "kim", "t_from_ns": now_ns + stepped[0]})
    out._said(out.topic("mark", "order"), said.encode(), False)
    (order,) = out.orders()
    assert abs(order.t_from_ns - now_ns) < NS_PER_S


@needs_broker
def test_marks_come_in_on_their_topic_and_what_is_no_mark_is_counted(broker):
    topic, alarm = "fusion/kiln/v1/mark/order", {"name": "a1", "kind": "alarm", "by": "kim"}
    bad = (alarm, alarm | {"kind": "fault", "t_from_ns": -1}, alarm | {"kind": "fault", "name": "x" * 201})
    with publisher(broker.port) as out:
        until(lambda: out.published["health"], "a birth")
        for payload in (*map(json.dumps, bad), "[" * 3000):
            broker.write(topic, payload)
        broker.write(topic, '{"name": "trip", "kind": "fault", "by": "kim", "t_to_ns": 7}')
        heard = []
        until(lambda: heard.extend(out.orders()) or heard, "a mark")
        assert out.dropped["mark:not_understood"] == len(bad) + 1
    assert heard == [MarkOrder(name="trip", kind=MarkKind.FAULT, by="kim", t_to_ns=7)]


@needs_broker
def test_a_publisher_is_settled_once_its_letters_are_on_the_disk(broker, tmp_path):
    path = tmp_path / "outbox.sqlite"
    with publisher(free_port(), outbox=str(path)) as out:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            out.publish(anomaly())
            time.sleep(0.2)
            assert not out.settled
        until(lambda: out.settled, "stored, though no broker is there")
        assert "cannot be reached" in out.trouble
    with publisher(free_port()) as out:
        out.publish(anomaly())
        until(lambda: out.waiting == 1, "taken")
        assert not out.settled


@needs_broker
def test_a_broker_that_comes_back_is_told_the_last_health_and_not_an_empty_one(broker):
    with publisher(broker.port) as out:
        online(out)
        out.publish(replace(health(), alarms=(Alarm(anomaly=anomaly(), raised_ns=T0),)))
        until(lambda: out.published["health"] == 2, "published")
        broker.stop()
        until(lambda: out.state is ClientState.DOWN, "outage noticed")
        broker.start()
        online(out)
        until(lambda: out.published["health"] == 3, "said again")
        ((_, message),) = messages_of(broker.read("fusion/kiln/v1/health"))
        assert [a["id"] for a in message["open_anomalies"]] == ["a1"]
