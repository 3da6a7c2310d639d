"""One connection to an MQTT broker: its settings and a driver that one thread turns by hand."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.errors import ConfigError

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo
    from paho.mqtt.properties import Properties

PROTOCOLS = ("auto", "5", "3.1.1")
INFLIGHT = 20


@dataclass(kw_only=True, slots=True)
class PublisherConfig:
    """The broker and how to reach it.

    ``protocol`` is 5, 3.1.1 or auto (5, then 3.1.1 where the broker does not speak it). ``outbox`` is the file that
    keeps anomalies and recommendations over a restart of the daemon; without it they survive only a broker's outage.
    ``tls`` verifies the broker against ``tls_ca`` or the system's authorities.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    protocol: str = "auto"
    client_id: str = ""
    username: str | None = None
    password: str | None = None
    password_file: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    keepalive_s: int = 10
    connect_timeout_s: float = 3.0
    retry_s: float = 0.5
    retry_max_s: float = 10.0
    outbox: str = ""
    outbox_capacity: int = 10_000

    def __post_init__(self) -> None:
        """Reject what no broker can be reached with."""
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"publish.protocol: {self.protocol!r} is not accepted; expected {', '.join(PROTOCOLS)}")
        if not self.host:
            raise ConfigError("publish.host: a name or address is required")
        if not 0 < self.port < 65536:
            raise ConfigError(f"publish.port: {self.port} is not accepted; expected 1..65535")
        if self.keepalive_s < 1 or self.connect_timeout_s <= 0 or not 0 < self.retry_s <= self.retry_max_s:
            raise ConfigError(
                "publish: keepalive_s, connect_timeout_s and retry_s must be positive, retry_max_s larger"
            )
        if self.outbox_capacity < 1:
            raise ConfigError("publish.outbox_capacity: at least 1 is required")
        if self.password and self.password_file:
            raise ConfigError("publish: give password or password_file, not both")

    def secret(self) -> str | None:
        """The password, read from its file where one is named."""
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"publish.password_file: {self.password_file!r} cannot be read ({error})") from error

    def context(self) -> ssl.SSLContext | None:
        """TLS settings, or None for a plain connection."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_certificate:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"publish.tls_*: certificate or key cannot be used ({error})") from error
        return context


class Connection:
    """One connection to the broker, driven by one thread; afterwards it is thrown away."""

    def __init__(self, config: PublisherConfig, client_id: str, version: str, will: tuple[str, bytes]) -> None:
        from paho.mqtt.client import Client, MQTTv5, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        self.version = version
        self.answer: tuple[bool, str] | None = None
        self.acknowledged: deque[tuple[int, bool, str]] = deque()
        self.lost = ""
        self._config = config
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5 if version == "5" else MQTTv311)
        if config.username is not None:
            client.username_pw_set(config.username, config.secret())
        if (context := config.context()) is not None:
            client.tls_set_context(context)
        client.will_set(*will, qos=1, retain=True)
        client.connect_timeout = config.connect_timeout_s
        client.max_inflight_messages_set(2 * INFLIGHT)
        client.on_connect = lambda _c, _u, _f, code, _p: self._on_connect(code.is_failure, str(code))
        client.on_publish = lambda _c, _u, mid, code, _p: self.acknowledged.append((mid, code.is_failure, str(code)))
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._on_disconnect(str(code))
        self._client: Client = client

    def _on_connect(self, refused: bool, reason: str) -> None:
        self.answer = (not refused, reason)

    def _on_disconnect(self, reason: str) -> None:
        self.lost = self.lost or reason

    def open(self) -> None:
        """Connect and say hello; the answer comes later.

        Raises:
            OSError: nobody listens, no route, no such name, or TLS failed.
        """
        self._client.connect(self._config.host, self._config.port, self._config.keepalive_s)

    def step(self, wake: socket.socket, timeout_s: float) -> None:
        """Wait until there is something to read or write, or ``wake`` was written to; do it."""
        sock = self._client.socket()
        if sock is None:
            self.lost = self.lost or "connection closed"
            return
        writers = [sock] if self._client.want_write() else []
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        readable, writable, _ = select.select([sock, wake], writers, [], 0.0 if pending else timeout_s)
        if wake in readable:
            drain(wake)
        if writable:
            self._client.loop_write()
        if pending or sock in readable:
            self._client.loop_read()
        self._client.loop_misc()
        if self._client.socket() is None:
            self.lost = self.lost or "connection closed"

    @property
    def busy(self) -> bool:
        """Whether earlier messages still wait for the socket."""
        return self._client.want_write()

    def publish(
        self, topic: str, payload: bytes, qos: int, *, retain: bool = False, expiry_s: int | None = None
    ) -> MQTTMessageInfo:
        """Hand a message to the driver."""
        return self._client.publish(topic, payload, qos, retain, self._expiry(expiry_s))

    def _expiry(self, expiry_s: int | None) -> Properties | None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        if self.version != "5" or expiry_s is None:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expiry_s
        return properties

    def close(self) -> None:
        """Leave politely, so that the broker does not publish the will."""
        self._client.disconnect()


def drain(wake: socket.socket) -> None:
    """Swallow the bytes that woke a select."""
    with contextlib.suppress(BlockingIOError):
        while wake.recv(4096):
            pass
