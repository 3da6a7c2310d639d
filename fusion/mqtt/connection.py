"""One connection to an MQTT broker, turned by hand by one thread: it and its driver alone know the library.

aiomqtt was looked at and left: it wraps the same paho client, but hides the packet ids by which the outbox knows what
was acknowledged, and costs a task switch for every message.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt.client import MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fusion.errors import BrokerError, BrokerRefused
from fusion.mqtt.broker import Broker, client_name
from fusion.mqtt.driver import Driver, Received

PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
REFUSALS = (
    "Bad user name or password",
    "Not authorized",
    "Banned",
    "Bad authentication method",
    "Client identifier not valid",
)
OTHER_PROTOCOL = "Unsupported protocol version"
BURST = 64  # messages read before the socket is asked again whether it may be written to
NOTES = 1000  # acknowledgements kept for whoever asks
TURN_S = 0.1


class _OtherProtocol(BrokerError):
    """A broker that was silent, hung up or said that it does not speak this version."""


class Connection:
    """One connection to a broker, turned by the thread that opened it and thrown away once it is lost.

    ``received`` runs inside ``step``, which raises what it raises. ``acknowledged`` holds the newest packet ids that
    were answered, each with the reason for which the broker denied it, or nothing. The broker publishes ``will``, a
    topic and its retained payload, unless we ``leave``. Other threads may ``publish`` and ``wake``; ``stopping`` ends
    the waits for an answer to ``open`` and ``subscribe``.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str = "",
        *,
        received: Received | None = None,
        will: tuple[str, bytes] | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self.version = ""
        self.lost = ""
        self.acknowledged: deque[tuple[int, str]] = deque(maxlen=NOTES)
        self._broker = broker
        self._where = f"broker {broker.address}"
        self._client_id = broker.client_id or client_id or client_name()
        self._received = received
        self._will = will
        self._stopping = stopping or threading.Event()
        self._answer: ReasonCode | None = None
        self._granted: list[ReasonCode] | None = None
        self._count = 0
        self._thread_id = 0
        self._client: Driver | None = None
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def open(self) -> None:
        """Connect with the configured protocol or, where that is auto, the newest that the broker speaks.

        Raises:
            BrokerRefused: the broker answered and does not let us in.
            BrokerError: it cannot be reached or does not speak this protocol.
        """
        self._thread_id = threading.get_ident()
        for version in self._broker.versions:
            try:
                self._hello(version)
            except _OtherProtocol:
                if version == self._broker.versions[-1] or self._stopping.is_set():
                    raise
                self._hang_up()
            else:
                return

    def _hello(self, version: str) -> None:
        self.version, self.lost, self._answer = version, "", None
        self._client = self._new_client(version)
        try:
            self._client.connect(self._broker.host, self._broker.port, self._broker.keepalive_s)
        except (OSError, UnicodeError) as error:
            raise BrokerError(f"{self._where} cannot be reached: {error}") from error
        self._turn_until(lambda: self._answer is not None or self._stopping.is_set(), self._broker.connect_timeout_s)
        if self._answer is None:
            raise _OtherProtocol(f"{self._where} refused MQTT {version}: {self.lost or 'no answer'}")
        if self._answer.is_failure:
            reason = str(self._answer)
            kind = BrokerRefused if reason in REFUSALS else BrokerError
            kind = _OtherProtocol if reason == OTHER_PROTOCOL else kind
            raise kind(f"{self._where} refused MQTT {version}: {reason}")

    def _new_client(self, version: str) -> Driver:
        broker = self._broker
        client = Driver(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            protocol=PROTOCOLS[version],
            reconnect_on_failure=False,
            received=self._take,
        )
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.secret())
        if (context := broker.context()) is not None:
            client.tls_set_context(context)
        if self._will is not None:
            client.will_set(*self._will, qos=1, retain=True)
        client.connect_timeout = broker.connect_timeout_s
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_register_write = lambda *_: None  # only the thread that turns us may write
        return client

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._answer = reason

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self.lost = self.lost or str(reason)

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        self._granted = reasons

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self.acknowledged.append((mid, str(reason) if reason.is_failure else ""))

    def _on_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        self._take(message.topic, bytes(message.payload), message.retain)

    def _take(self, topic: str, payload: bytes, retained: bool) -> None:
        self._count += 1
        if self._received is not None:
            self._received(topic, payload, retained)

    def subscribe(self, topics: Sequence[str], qos: int) -> list[str]:
        """Subscribe, and return the topics that the broker denies.

        Raises:
            BrokerError: the connection was lost, or there is no answer.
        """
        self._granted = None
        self._driver.subscribe([(topic, qos) for topic in topics])
        self._turn_until(lambda: self._granted is not None or self._stopping.is_set(), self._broker.connect_timeout_s)
        if self._granted is None:
            raise BrokerError(f"{self._where} did not answer a subscription: {self.lost or 'no answer'}")
        return [topic for topic, reason in zip(topics, self._granted, strict=False) if reason.is_failure]

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, expiry_s: int | None = None
    ) -> MQTTMessageInfo:
        """Send a message, or queue it for the thread that turns this connection; only MQTT 5 knows ``expiry_s``."""
        properties = None
        if self.version == "5" and expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        info = self._driver.publish(topic, payload, qos, retain, properties)
        if threading.get_ident() == self._thread_id:
            self._driver.loop_write()
        else:
            self.wake()
        return info

    def deliver(self, topic: str, payload: bytes, *, timeout_s: float, retain: bool = False) -> None:
        """Publish, and wait until the broker has the message.

        Raises:
            BrokerError: it was denied, or not acknowledged in time.
        """
        mid = self.publish(topic, payload, 1, retain=retain).mid
        self._turn_until(lambda: mid in dict(self.acknowledged), timeout_s)
        reason = dict(self.acknowledged).get(mid, self.lost or f"no answer within {timeout_s:g} s")
        if reason:
            raise BrokerError(f"{self._where} did not take {topic}: {reason}")

    def _turn_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Turn until a condition holds, the connection is lost or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not condition() and not self.lost and time.monotonic() < deadline:
            self.step(TURN_S)

    def step(self, timeout_s: float) -> None:
        """Wait until there is something to read or write, or somebody wakes us; do it."""
        client = self._driver
        sock = client.socket()
        if sock is not None:
            pending = client.pending or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0)
            writers = [sock] if client.want_write() else []
            readable, writable, _ = select.select([sock, self._here], writers, [], 0.0 if pending else timeout_s)
            if self._here in readable:
                self._hush()
            if writable:
                client.loop_write()
            if pending or sock in readable:
                self._read(client)
            client.loop_misc()
        if client.socket() is None:
            self.lost = self.lost or "connection closed"

    def _read(self, client: Driver) -> None:
        """One packet, or as many messages as lie there."""
        for _ in range(BURST):
            before = self._count
            client.loop_read()
            if self._count == before:
                return

    @property
    def _driver(self) -> Driver:
        assert self._client is not None  # noqa: S101 - only after open
        return self._client

    @property
    def busy(self) -> bool:
        """Whether earlier messages still wait for the socket."""
        return self._driver.want_write()

    def wake(self) -> None:
        """End the wait of ``step``."""
        with contextlib.suppress(OSError):
            self._there.send(b"\0")

    def _hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._here.recv(4096):
                pass

    def leave(self) -> None:
        """Say goodbye, so that the broker does not publish the will."""
        self._driver.disconnect()
        self._driver.loop_write()

    def _hang_up(self) -> None:
        if self._client is not None and (sock := self._client.socket()) is not None:
            sock.close()

    def close(self) -> None:
        """Close the sockets; what was not sent is lost."""
        self._hang_up()
        self._here.close()
        self._there.close()
