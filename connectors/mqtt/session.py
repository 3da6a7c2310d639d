"""One connection to an MQTT broker, turned by a thread of our own.

The library's own loop thread dies silently when a callback raises and reconnects behind our back; this one ends with
whatever happened in it, and the next ``read`` raises that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from connectors.base import ARRIVAL_CLOCK, SourceSilent, Tally
from connectors.columns import Rows
from connectors.inbox import Inbox
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.payload import Extractor
from connectors.settings import secret
from fusion.clock import CLOCK
from fusion.errors import SourceError, SourceRefused
from fusion.records import Item

Row = tuple[str, tuple[int, int, int, float, int]]

VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
LOOP_S = 0.2
GATHER_S = 0.02
CONNECT_S = 5.0
REFUSALS = ("Bad user name or password", "Not authorized", "Banned", "Bad authentication method")


class MqttSession:
    """Connects with the configured protocol, or with the newest the broker speaks."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        extractors: Mapping[str, Sequence[Extractor]],
        signals: tuple[str, ...],
        tally: Tally,
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._extractors = extractors
        self._signals = signals
        self._tally = tally
        self._clock = f"mqtt:{config.host}:{config.port}"
        self._inbox: Inbox[Row] = Inbox()
        self._lost_counted = 0
        self._silent_since_s = time.monotonic()
        self._denied: list[str] = []
        self._link: Link | None = None

    @property
    def message(self) -> str:
        """Topics that the broker does not let us have."""
        return f"subscription denied: {', '.join(self._denied)}" if self._denied else ""

    async def open(self) -> None:
        """Connect and subscribe; with protocol auto the second attempt speaks 3.1.1."""
        versions = list(VERSIONS) if self._config.protocol == "auto" else [self._config.protocol]
        for version in versions:
            self._link = Link(
                self._config, self._client_id, version, list(self._extractors), self._message, self._inbox
            )
            try:
                self._denied = await self._link.open()
            except SourceRefused:
                raise
            except SourceError:
                await self._link.close()
                if version == versions[-1]:
                    raise
                self._inbox = Inbox()
            else:
                return

    def _message(self, message: MQTTMessage) -> None:
        """One message; runs on the network thread."""
        if len(message.payload) > self._config.max_payload_bytes:
            self._tally.lost["payload too large"] += 1
            return
        received_ns = CLOCK.now_ns()
        for extractor in self._extractors.get(message.topic, ()):
            reading = extractor.reading(bytes(message.payload), received_ns, message.retain)
            clock, t_ns = (ARRIVAL_CLOCK, received_ns) if reading.t_ns is None else (self._clock, reading.t_ns)
            self._inbox.put((clock, (extractor.index, t_ns, received_ns, reading.value, reading.quality)))

    async def read(self) -> list[Item]:
        """What arrived in the last moment, or nothing where the broker answers but has no news."""
        rows = await self._wait()
        by_clock: dict[str, Rows] = {}
        for clock, row in rows:
            by_clock.setdefault(clock, Rows()).add(*row)
        lost, self._lost_counted = self._inbox.dropped - self._lost_counted, self._inbox.dropped
        self._tally.lost.update({"inbox full": lost} if lost else {})
        return [gathered.columns(self._signals, clock) for clock, gathered in by_clock.items()]

    async def _wait(self) -> list[Row]:
        """Gather for a moment, so that a burst of messages becomes one batch."""
        try:
            rows = await self._inbox.take(1.0)
        except TimeoutError:
            silent_s = time.monotonic() - self._silent_since_s
            if self._config.silence_s is not None and silent_s > self._config.silence_s:
                raise SourceSilent(f"connected, but no message for {silent_s:.1f} s") from None
            return []
        if rows:
            self._silent_since_s = time.monotonic()
            await asyncio.sleep(GATHER_S)
            rows += self._inbox.rest()
        return rows

    async def close(self) -> None:
        """Disconnect and wait for the thread to end."""
        if self._link is not None:
            await self._link.close()


class Link:
    """One client of one protocol version and the thread that turns it."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        version: str,
        topics: list[str],
        on_message: Any,
        inbox: Inbox[Row],
    ) -> None:
        self._config = config
        self._version = version
        self._topics = topics
        self._inbox = inbox
        self._stopping = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mqtt")
        self._granted: Future[list[str]] = Future()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=VERSIONS[version], reconnect_on_failure=False
        )
        self._client.on_message = lambda _client, _userdata, message: on_message(message)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed

    async def open(self) -> list[str]:
        """Connect and subscribe; the topics that the broker denied.

        Raises:
            SourceRefused: the broker does not accept the credentials, or denied every topic.
            SourceError: it cannot be reached or does not speak this protocol.
        """
        self._prepare()
        running = self._worker.submit(self._turn)
        running.add_done_callback(self._ended)
        return await asyncio.wrap_future(self._granted)

    def _prepare(self) -> None:
        config = self._config
        password = secret("mqtt.password", config.password, config.password_file)
        if config.username:
            self._client.username_pw_set(config.username, password)
        if config.tls:
            self._client.tls_set(config.tls_ca, config.tls_certificate, config.tls_key)
        self._client.connect_timeout = CONNECT_S

    def _turn(self) -> None:
        """The network thread, from connecting to the end of the connection."""
        self._client.connect(self._config.host, self._config.port, self._config.keepalive_s)
        while not self._stopping.is_set():
            result = self._client.loop(LOOP_S)
            if result is not MQTTErrorCode.MQTT_ERR_SUCCESS and not self._stopping.is_set():
                raise SourceError(f"broker {self._config.host}:{self._config.port}: {error_string(result)}")

    def _ended(self, running: Future[None]) -> None:
        """The thread has ended: whoever waits must hear why."""
        error = running.exception() or SourceError("the network thread has ended")
        if isinstance(error, OSError):
            error = SourceError(f"broker {self._config.host}:{self._config.port}: {error}")
        if not self._granted.done():
            self._granted.set_exception(error)
        self._inbox.fail(error)

    def _connected(self, client: Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            kind = SourceRefused if str(reason) in REFUSALS else SourceError
            raise kind(f"broker {self._config.host}:{self._config.port} refused: {reason}")
        client.subscribe([(topic, self._config.qos) for topic in self._topics])

    def _subscribed(self, _client: Any, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        denied = [topic for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure]
        if len(denied) == len(self._topics):
            raise SourceRefused(f"the broker denied every subscription: {', '.join(denied)}")
        if not self._granted.done():
            self._granted.set_result(denied)

    async def close(self) -> None:
        """Say goodbye and end the thread."""
        self._client.disconnect()
        self._stopping.set()
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)
