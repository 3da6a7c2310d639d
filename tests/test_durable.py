"""What was published is not lost: kills, a full disk, files that vanish, a clock that steps, threads that die."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mosquitto import USER, Mosquitto, needs_broker, with_passwords
from test_publish import Idle, letter, messages_of, online, publisher
from wire_examples import KILN, T0, anomaly, frame, free_port, health, recommendation, until

from control.anomaly.alarms import AlarmConfig
from fusion.alarms import Alarm
from fusion.clock import Clock, iso_time
from fusion.command import carry_out
from fusion.daemon.outlet import MqttOutlet
from fusion.daemon.service import Daemon
from fusion.daemon.store import Store
from fusion.ending import ignore_hangup
from fusion.errors import FusionError
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client, ClientState
from fusion.publish.messages import decode, encode, moved
from fusion.publish.outbox import Outbox
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.records import NS_PER_S
from fusion.timeline.timeline import Timeline

ROOT = Path(__file__).parents[1]
PATH = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
HOUR_NS = 3600 * NS_PER_S


@pytest.fixture
def broker(tmp_path):
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


# --- kills

PUBLISHES = """
import itertools, sys
from wire_examples import KILN, anomaly
from fusion.publish.publisher import MqttPublisher, PublisherConfig
out = MqttPublisher(PublisherConfig(port=int(sys.argv[1]), outbox=sys.argv[2]), KILN)
out.start()
for number in itertools.count():
    assert out.publish(anomaly(f"{sys.argv[3]}-{number}"))
    print(f"{sys.argv[3]}-{number}", flush=True)
"""


def test_a_letter_is_on_the_disk_before_publish_returns(tmp_path):
    path, said = tmp_path / "outbox.sqlite", []
    for life in range(3):
        command = [sys.executable, "-c", PUBLISHES, str(free_port()), str(path), str(life)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PATH})
        with process:
            said += [process.stdout.readline().strip() for _ in range(20 + life)]
            process.send_signal(signal.SIGKILL)
            said += process.stdout.read().split()
    with contextlib.closing(Outbox(str(path))) as outbox:
        kept = [json.loads(found.payload)["id"] for _, found in outbox.after(0, 100_000)]
    assert [name for name in kept if name in set(said)] == said
    assert len(kept) <= len(said) + 3  # each life may have stored one that it did not come to say


# --- trouble with files


@needs_broker
def test_letters_arrive_while_the_disk_is_full_and_are_kept_once_it_is_not(broker, tmp_path):
    with publisher(broker.port, outbox=str(tmp_path / "outbox.sqlite")) as out:
        online(out)
        database = out._bag._outbox._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        reader = broker.read("fusion/kiln/v1/anomaly", 40)
        with out._bag._lock:  # the sender waits, so that nothing makes room
            stored = [out.publish(anomaly(str(number))) for number in range(20)]
            assert not all(stored)
            assert "full" in out.trouble
        until(lambda: out.published["anomaly"] == 20, "sent from memory")
        database.execute("PRAGMA max_page_count = 100000")
        until(lambda: not out.trouble, "the publisher comes back by itself")
        assert all(out.publish(anomaly(str(number))) for number in range(20, 40))
        assert [message["id"] for _, message in messages_of(reader)] == [str(number) for number in range(40)]
    assert out.dropped == {}


def test_letters_wait_in_order_while_nothing_takes_them(tmp_path):
    """No broker and a full disk, then room: what came first stays first."""
    with publisher(free_port(), outbox=str(tmp_path / "outbox.sqlite")) as out:
        assert out.publish(anomaly("0"))
        database = out._bag._outbox._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        number = 1
        while out.publish(anomaly(str(number))):
            number += 1
        out.publish(anomaly(str(number + 1)))
        assert (out.waiting, out.settled) == (number + 2, False)
        database.execute("PRAGMA max_page_count = 100000")
        until(lambda: out.settled, "stored")
        found = [json.loads(x.payload)["id"] for _, x in out._bag._outbox.after(0, 1000)]
        assert found == [str(n) for n in range(number + 2)]


def test_an_outbox_that_cannot_be_used_now_is_no_wrong_configuration(tmp_path):
    path = tmp_path / "outbox.sqlite"
    with contextlib.closing(Outbox(str(path), clock=Clock())) as outbox:
        outbox._database.execute("BEGIN IMMEDIATE")
        with pytest.raises(FusionError, match="locked; it cannot be used now") as refused:
            Outbox(str(path), clock=Clock())
    assert refused.value.exit_code == 1


@needs_broker
def test_a_password_file_that_is_gone_at_a_reconnect_is_said_and_the_publisher_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.mqtt.client.REFUSED_RETRY_S", 0.1)
    broker = Mosquitto(tmp_path, with_passwords(tmp_path))
    file = tmp_path / "secret"
    text = file.read_text()
    try:
        with publisher(broker.port, username=USER, password_file=str(file), outbox=str(tmp_path / "o")) as out:
            online(out)
            file.unlink()
            broker.stop()
            broker.start()
            until(lambda: out.state is ClientState.REFUSED, "noticed")
            assert out.publish(anomaly())
            assert "password_file" in out.trouble
            for bad in (b"\xff\xfe", text.encode()):
                file.write_bytes(bad)
                time.sleep(0.2)
            until(lambda: out.published["anomaly"] == 1, "back")
            assert out.trouble == ""
    finally:
        broker.stop()


# --- threads that die, and signals


def test_any_thread_that_dies_ends_the_daemon_with_its_name(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda found: None)  # pytest's would make a warning of it
    out = MqttPublisher(PublisherConfig(port=free_port(), outbox=""), KILN, "m1")

    async def live():
        daemon = Daemon([], Timeline(KILN), Idle(), MqttOutlet(out, Idle()))
        running = asyncio.create_task(daemon.run(asyncio.Event()))
        await asyncio.sleep(0.2)
        threading.Thread(target=lambda: 1 / 0, name="kiln-reader").start()
        await asyncio.wait_for(running, 10)

    assert carry_out(lambda: asyncio.run(live())) == 1
    assert "thread kiln-reader has died: ZeroDivisionError" in capsys.readouterr().err


def test_a_hangup_ends_nothing():
    before = signal.getsignal(signal.SIGHUP)
    try:
        ignore_hangup()
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# --- a clock that steps


class Clocks:
    """A system's clock that can be stepped, and a monotonic one, as processes of one boot have them."""

    def __init__(self):
        self.step_ns = 0

    def clock(self):
        return Clock(lambda: time.time_ns() + self.step_ns, time.monotonic_ns, "boot")


def test_all_times_of_a_message_are_moved_and_its_id_is_not():
    out = MqttPublisher(PublisherConfig(outbox=""), KILN)
    for record in (health(), anomaly(), recommendation(T0), frame()):
        message = out._message(record)
        made = decode(moved(encode(message), HOUR_NS))
        assert (made.t_ns, made.time) == (message.t_ns + HOUR_NS, iso_time(message.t_ns + HOUR_NS))
        assert made.message_id == message.message_id
    advice = decode(moved(encode(out._message(recommendation(T0))), -HOUR_NS))
    assert (advice.valid_until_ns, advice.valid_until) == (
        T0 + 60 * NS_PER_S - HOUR_NS,
        iso_time(advice.valid_until_ns),
    )


@needs_broker
@pytest.mark.parametrize("hours", [1, -1])
def test_a_step_of_the_clock_expires_no_advice_and_readers_see_their_own_time(broker, tmp_path, hours):
    clocks = Clocks()
    clock = clocks.clock()
    config = PublisherConfig(port=broker.port, outbox=str(tmp_path / "outbox.sqlite"), retry_s=0.1, protocol="5")
    broker.stop()
    out = MqttPublisher(config, KILN, clock=clock)
    out.start()
    try:
        for _ in range(5):
            out.publish(recommendation(clock.now_ns(), 60.0))
        out.publish(recommendation(clock.now_ns(), 0.2))
        clocks.step_ns = hours * HOUR_NS
        out.publish(anomaly("after", t_ns=clock.now_ns()))
        time.sleep(0.3)
        broker.start()
        until(lambda: out.waiting == 0, "all sent")
        assert out.published["recommendation"] == 5
        assert out.dropped == {"recommendation:expired": 1}
        reader = broker.read("fusion/kiln/v1/+", 2)  # the retained health, and what comes now
        out.publish(recommendation(clock.now_ns(), 60.0))
        said = [message for _, message in messages_of(reader)]
    finally:
        out.close()
    here_ns = time.time_ns() + clocks.step_ns
    assert 40 < (said[-1]["valid_until_ns"] - here_ns) / NS_PER_S <= 60
    assert all(abs(here_ns - message["t_ns"]) < 20 * NS_PER_S for message in said)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_restart_after_a_step_keeps_order_and_the_life_that_advice_has_left(tmp_path, hours):
    clocks, path = Clocks(), str(tmp_path / "outbox.sqlite")
    now_ns = clocks.clock().now_ns()
    with contextlib.closing(Outbox(path, clock=clocks.clock())) as outbox:
        out = MqttPublisher(PublisherConfig(outbox=""), KILN)
        outbox.update((), [out._letter(out._message(recommendation(now_ns, 60.0))), letter("b")])
    clocks.step_ns = hours * HOUR_NS
    with contextlib.closing(Outbox(path, clock=clocks.clock())) as outbox:
        (_, first), (_, second) = outbox.after(0, 10)
    assert second.message_id == "b"
    left_s = (first.expires_ns - time.time_ns() - clocks.step_ns) / NS_PER_S
    assert 50 < left_s <= 60
    assert decode(first.payload).valid_until_ns == first.expires_ns


@pytest.mark.parametrize("hours", [1, -1])
def test_a_restart_after_a_step_shelves_no_alarm_longer_or_shorter(tmp_path, hours):
    clocks = Clocks()
    now_ns = clocks.clock().now_ns()
    alarm = Alarm(anomaly=anomaly(t_ns=now_ns), raised_ns=now_ns, shelved_until_ns=now_ns + 60 * NS_PER_S)
    with contextlib.closing(Store(tmp_path, "kiln", clock=clocks.clock())) as store:
        store.write([alarm], 1, (), {"settling_ns": 5})
    clocks.step_ns = hours * HOUR_NS
    with contextlib.closing(Store(tmp_path, "kiln", clock=clocks.clock())) as store:
        kept = store.read(AlarmConfig())
    (found,) = kept.alarms.alarms
    assert 50 < (found.shelved_until_ns - time.time_ns() - clocks.step_ns) / NS_PER_S <= 60
    assert kept.notes == {"settling_ns": 5}


def test_a_certificate_that_may_not_be_read_is_a_refusal_and_no_dead_thread(tmp_path, monkeypatch):
    """Of a file in a folder that is closed to us, even the question whether it is there fails."""

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    authority = tmp_path / "ca.pem"
    settings = Broker(port=free_port())
    client = Client(settings, retry_s=0.05)
    settings.tls, settings.tls_ca = True, str(authority)
    monkeypatch.setattr(Path, "open", closed)
    monkeypatch.setattr(Path, "stat", closed)
    client.start()
    try:
        until(lambda: client.state is ClientState.REFUSED, "refused")
        assert "tls_ca" in client.message
        client.check()
    finally:
        client.close()
