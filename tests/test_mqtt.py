"""The one MQTT client: its settings, and every user of it against a broker with TLS and a password."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mosquitto import USER, Mosquitto, needs_broker, needs_tls, secured
from paho.mqtt.client import MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from wire_examples import free_port, until

from connectors.kinds import source_of
from connectors.mqtt.config import MqttConfig, TopicConfig
from fusion.cli import main
from fusion.dashboard.feed import Feed
from fusion.errors import BrokerError, ConfigError
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client, ClientState
from fusion.mqtt.connection import Connection
from fusion.mqtt.driver import Driver
from fusion.plant import Plant, Signal
from fusion.publish.publisher import PublisherConfig
from fusion.simulator.servers.mqtt_tags import MqttTags

PLANT = Plant(name="tiny", signals=(Signal(name="FT1"),))
ROOT = Path(__file__).parents[1]


@pytest.fixture
def broker(tmp_path):
    broker = Mosquitto(tmp_path, ("allow_anonymous true", "max_queued_messages 0"))  # it throws nothing away under load
    yield broker
    broker.stop()


# -- settings


@pytest.mark.parametrize("kind", [Broker, PublisherConfig, lambda **s: MqttConfig(topics=[], **s)])
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"host": ""}, "host: a name or address"),
        ({"port": 65536}, "port: 65536 is not accepted"),
        ({"protocol": "3.1"}, "protocol: '3.1' is not accepted; expected one of auto, 5, 3.1.1"),
        ({"keepalive_s": 0}, "keepalive_s"),
        ({"connect_timeout_s": 0.0}, "connect_timeout_s"),
        ({"username": "u", "password": "a", "password_file": "b"}, "not both"),
        ({"password": "a"}, "username: is required"),
        ({"tls": True, "tls_key": "k"}, "tls_certificate: needs tls_key"),
        ({"tls_ca": "ca"}, "tls: must be true"),
    ],
)
def test_every_user_refuses_the_same_settings_under_its_own_key(kind, settings, text):
    section = getattr(kind, "SECTION", "mqtt")
    with pytest.raises(ConfigError, match=rf"^{section}.*{text}"):
        kind(**settings)


def test_a_password_is_not_shown():
    assert "hush" not in repr(PublisherConfig(username="u", password="hush"))


def test_the_first_line_of_a_password_file_counts_and_a_missing_file_is_named(tmp_path):
    (tmp_path / "secret").write_bytes(b" pass word \r\nno part of it\n")
    broker = Broker(username="u", password_file="secret")
    broker.beside(tmp_path)
    assert broker.secret() == " pass word "
    with pytest.raises(ConfigError, match=r"broker.password_file: .*cannot be read"):
        Broker(username="u", password_file=str(tmp_path)).check()
    with pytest.raises(ConfigError, match=r"broker.tls_ca: nowhere cannot be read"):
        Broker(tls=True, tls_ca="nowhere").check()


# -- the client


@contextlib.contextmanager
def running(client):
    client.start()
    try:
        yield client
    finally:
        client.close()


@needs_broker
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_many_threads_publish_arrives_complete_and_in_order(broker, protocol):
    settings, got = Broker(port=broker.port, protocol=protocol), []
    hears = Client(settings, topics=["t/#"], received=lambda topic, payload, _: got.append((topic, int(payload))))
    with running(hears), running(Client(settings)) as tells:
        hears.reach(), tells.reach()
        threads = [
            threading.Thread(target=lambda n=n: [tells.publish(f"t/{n}", str(i).encode()) for i in range(500)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(got) == 2000, "all there")
    for n in range(4):
        assert [i for topic, i in got if topic == f"t/{n}"] == list(range(500))


@needs_broker
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_messages_of_every_size_arrive_as_they_were_sent(broker, protocol, qos):
    sent = [b"", b"1", b"x" * 126, "ü".encode() * 9000, b"z" * 200_000, b"after"]
    hears, tells, got = Connection(settings := Broker(port=broker.port, protocol=protocol)), Connection(settings), []
    hears._received = lambda *message: got.append(message)
    for connection in (hears, tells):
        connection.open()
    hears.subscribe(["t/ü"], qos)
    for payload in sent:
        tells.publish("t/ü", payload, qos, expiry_s=60)
    until(lambda: hears.step(0.02) or tells.step(0.02) or len(got) >= len(sent), "all there")
    assert got == [("t/ü", payload, False) for payload in sent]
    for connection in (hears, tells):
        connection.close()


MESSAGE = b"\x32\x0d\x00\x01t\x00\x07\x05\x02\x00\x00\x00\x3c21"  # QoS 1, topic t, id 7, expires in 60 s


@pytest.fixture
def wire():
    """A driver on one end of a pair of sockets, the other end, and what it hands over."""
    here, there = socket.socketpair()
    here.setblocking(False)
    got = []
    driver = Driver(CallbackAPIVersion.VERSION2, protocol=MQTTv5, received=lambda *message: got.append(message))
    driver._sock, driver.on_socket_register_write = here, lambda *_: None
    yield driver, there, got
    here.close(), there.close()


def test_a_message_that_comes_byte_by_byte_is_one_and_is_acknowledged(wire):
    driver, there, got = wire
    for byte in MESSAGE:
        there.send(bytes([byte]))
        assert driver.loop_read() == 0
    assert got == [("t", b"21", False)]
    driver.loop_write()
    assert there.recv(10) == b"\x40\x02\x00\x07"


def test_messages_that_come_at_once_wait_in_the_driver(wire):
    driver, there, got = wire
    there.send(3 * MESSAGE + MESSAGE[:4])
    for count in (1, 2, 3):
        assert driver.loop_read() == 0
        assert driver.pending
        assert len(got) == count
    assert driver.loop_read() == 0
    assert not driver.pending
    assert len(got) == 3


@pytest.mark.parametrize(
    "packet",
    [
        b"\x30\x00",  # nothing at all
        b"\x30\x03\x00\x09t",  # a topic longer than its packet
        b"\x32\x03\x00\x01t",  # no id
        b"\x30\x03\x00\x01t",  # no length of properties
        b"\x30\x04\x00\x01t\x7f",  # properties beyond the end
        b"\x30\x08\x00\x01t\xff\xff\xff\xff\xff",  # a length that does not end
        b"\x30\x04\x00\x01\xff\x00",  # a topic that is no UTF-8
        b"\x36\x06\x00\x01t\x00\x07\x00",  # both QoS
    ],
)
def test_a_message_that_cannot_be_read_ends_the_connection(wire, packet):
    driver, there, got = wire
    there.send(packet)
    assert driver.loop_read() != 0
    assert driver.socket() is None
    assert got == []


@needs_broker
def test_a_client_waits_for_its_broker_and_comes_back_after_a_loss(broker):
    broker.stop()
    with running(Client(Broker(port=broker.port), retry_s=0.05)) as client:
        with pytest.raises(BrokerError, match="cannot be reached.*trying again"):
            client.reach()
        for _ in range(2):
            broker.start()
            until(lambda: client.state is ClientState.ONLINE, "online")
            broker.stop()
            until(lambda: client.state is ClientState.DOWN, "loss noticed")
        broker.start()
    assert client.state is ClientState.CLOSED


def said(reader):
    with reader:
        return [line for line in reader.stdout.read().splitlines() if line.startswith("me ")]


@needs_broker
def test_last_words_are_said_on_leaving_and_by_the_broker_after_a_crash(broker):
    words = iter(("will", "leaving"))
    client = Client(Broker(port=broker.port), last_words=lambda: ("me", next(words).encode()))
    with running(client):
        client.reach()
        reader = broker.read("me")
    assert said(reader) == ["me leaving"]
    script = (
        "import sys, time; from fusion.mqtt.client import *\n"
        "client = Client(Broker(port=int(sys.argv[1])), last_words=lambda: ('me', b'will'))\n"
        "client.start(); client.reach(); print('there', flush=True); time.sleep(30)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(broker.port)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "there\n"
        reader = broker.read("me", 2)
        process.send_signal(signal.SIGKILL)
    assert said(reader) == ["me leaving", "me will"]  # the first was retained


@needs_broker
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_client_that_fails_says_so_at_every_call(broker):
    def received(*_):
        raise ZeroDivisionError("in a callback")

    with running(Client(Broker(port=broker.port), topics=["t"], received=received)) as client:
        client.reach()
        client.publish("t", b"")
        until(lambda: client.state is ClientState.CLOSED, "ended")
        for call in (client.check, client.reach, lambda: client.publish("t", b"")):
            with pytest.raises(BrokerError, match="has failed: ZeroDivisionError"):
                call()


@needs_broker
def test_a_denied_delivery_and_a_denied_subscription_are_named(tmp_path):
    rights = tmp_path / "rights"
    rights.write_text("topic readwrite open\n")
    rights.chmod(0o600)
    broker = Mosquitto(tmp_path, ("allow_anonymous true", f"acl_file {rights}"))
    connection = Connection(Broker(port=broker.port, protocol="5"))
    try:
        connection.open()
        connection.deliver("open", b"", timeout_s=5)
        with pytest.raises(BrokerError, match="did not take shut: Not authorized"):
            connection.deliver("shut", b"", timeout_s=5)
        broker.signal(signal.SIGSTOP)
        with pytest.raises(BrokerError, match=r"did not take open: no answer within 0\.2 s"):
            connection.deliver("open", b"", timeout_s=0.2)
    finally:
        broker.signal(signal.SIGCONT)
        connection.close()
        broker.stop()


def test_a_host_that_cannot_be_a_name_is_only_unreachable():
    connection = Connection(Broker(host="a..b"))
    with contextlib.closing(connection), pytest.raises(BrokerError, match=r"broker a\.\.b:1883 cannot be reached"):
        connection.open()


# -- its users, over TLS with a password


@pytest.fixture
def safe(tmp_path):
    """A broker with TLS and a password, and how to reach it: as settings and as options of the command line."""
    broker = secured(tmp_path)
    secret, authority = str(tmp_path / "secret"), str(tmp_path / "ca.pem")
    settings = {"port": broker.port, "tls": True, "tls_ca": authority, "username": USER, "password_file": secret}
    options = ["--broker", f"127.0.0.1:{broker.port}", "--tls", "--tls-ca", authority]
    yield settings, [*options, "--username", USER, "--password-file", secret]
    broker.stop()


@needs_tls
def test_tags_orders_page_and_connector_meet_on_a_broker_with_tls_and_a_password(safe):
    settings, options = safe
    orders = []
    topics = [TopicConfig(topic="plant/tiny/{signal}", signals=["FT1"], time_path="t_ns")]

    async def scenario():
        tags = MqttTags("tiny", Broker(**settings), as_json=["FT1"], as_plain=(), order=orders.append)
        source = source_of(MqttConfig(topics=topics, **settings), PLANT)
        async with tags:
            feed = Feed(Broker(**settings), "tiny")
            feed.start()
            await source.start()
            await asyncio.to_thread(until, lambda: feed.connected and source.state == "live", "all there")
            tags.publish("FT1", 7.5, time.time_ns(), 2)
            tags.status({"running": True})
            arrived = []
            await asyncio.to_thread(until, lambda: arrived.extend(source.drain()) or arrived, "value")
            heard = []
            await asyncio.to_thread(until, lambda: heard.extend(feed.drain()) or heard, "status")
            feed.command("tiny", {"op": "clear"})
            order = ["fault", "belt_slip", "--severity", "0.5", "--plant", "tiny", *options]
            assert await asyncio.to_thread(main, order) == 0
            await asyncio.to_thread(until, lambda: len(orders) == 2, "orders")
            feed.stop()
            await source.stop()
        return arrived, heard

    arrived, heard = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert arrived[0].value.tolist() == [7.5]
    assert heard == [("simulator/tiny/status", b'{"running": true}')]
    assert [json.loads(order)["op"] for order in orders] == ["clear", "fault"]


class Done:
    """An answer that may be awaited, or not."""

    def __await__(self):
        return iter(())


VERBS = (
    ("fusion.dashboard.app.run", ("dashboard", "--broker"), lambda config, plant: config.broker),
    ("fusion.simulator.orders.send_order", ("fault", "clear", "--broker"), lambda broker, plant, order: broker),
    ("fusion.simulator.live.serve", ("plant", "--broker"), lambda simulation, plant, config, stop: config.broker),
    ("fusion.daemon.start.replay", ("replay", "r", "--model", "m", "--publish"), lambda *arguments: arguments[3]),
)


@pytest.mark.parametrize(("target", "verb", "settings_of"), VERBS, ids=[verb[0] for _, verb, _ in VERBS])
def test_options_of_the_command_line_reach_the_client(target, verb, settings_of, monkeypatch):
    seen = []

    def called(*arguments):
        seen.append(settings_of(*arguments))
        return Done()

    monkeypatch.setattr(target, called)
    files = {"password_file": "p", "tls_ca": "a", "tls_certificate": "c", "tls_key": "k"}
    wanted = {"protocol": "5", "username": "u", **files}
    options = [text for key, value in wanted.items() for text in (f"--{key.replace('_', '-')}", value)]
    assert main([*verb, "broker.plant:8883", "--tls", *options]) == 0
    (settings,) = seen
    own = {"outbox": ""} if isinstance(settings, PublisherConfig) else {}
    assert settings == type(settings)(host="broker.plant", port=8883, tls=True, **own, **wanted)
    assert main([*verb, "8883"]) == 2


@needs_broker
def test_a_page_that_no_longer_reads_ends_with_exit_code_1(broker):
    script = (
        "import sys; from fusion.dashboard.feed import Feed; from fusion.cli import main\n"
        "Feed._received = lambda *_: 1 / 0\n"
        "sys.exit(main(['dashboard', '--port', sys.argv[1], '--broker', '127.0.0.1:' + sys.argv[2]]))\n"
    )
    command = [sys.executable, "-c", script, str(free_port()), str(broker.port)]
    outside = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    with running(Client(Broker(port=broker.port))) as plant:
        plant.reach()
        plant.publish("simulator/lime/status", b"{}", 1, retain=True)
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, env=outside)
    assert ended.returncode == 1
    assert "fusion: the thread of MQTT client" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
