"""Records out to MQTT: birth and last will, retained health, and an outbox for what must arrive.

One thread owns the connection, the outbox and their order; ``publish`` only encodes and hands over, so it never waits
for a broker. Each connection gets a fresh driver object, and its callbacks only take notes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fusion.clock import CLOCK
from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.publish import encoding, messages
from fusion.publish.connection import INFLIGHT, Connection, PublisherConfig, drain
from fusion.publish.encoding import Record
from fusion.publish.messages import AnomalyMessage, Delivery, HealthMessage, Message, RecommendationMessage
from fusion.publish.outbox import Letter, Outbox
from fusion.records import NS_PER_S, AnomalyState, Health

__all__ = ["MqttPublisher", "PublisherConfig", "PublisherState"]

log = logging.getLogger(__name__)

VOLATILE_WAITING = 256
REFUSED_RETRY_S = 10.0
STEP_S = 0.5
GOODBYE_S = 1.0
CLOSE_DEADLINE_S = 2.0


class PublisherState(StrEnum):
    """Where the connection to the broker stands."""

    CONNECTING = "connecting"
    ONLINE = "online"
    DOWN = "down"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Volatile:
    """A message that is worthless once the next one exists."""

    kind: str
    topic: str
    payload: bytes


class MqttPublisher:
    """Publishes one plant's results under ``fusion/<plant>/v1/``.

    ``clock`` gives UTC nanoseconds and decides when a recommendation has expired; replay passes its own.
    """

    def __init__(
        self,
        config: PublisherConfig,
        plant: Plant,
        model_id: str = "",
        *,
        clock: Callable[[], int] = CLOCK.now_ns,
    ) -> None:
        if not plant.name or any(c in plant.name for c in "+#/"):
            raise ConfigError(f"plant.name: {plant.name!r} cannot be a topic level; expected a name without + # /")
        config.secret(), config.context()
        self.state = PublisherState.CONNECTING
        self.message = ""
        self.published: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.waiting = 0
        self._config = config
        self._plant = plant
        self._model_id = model_id
        self._clock = clock
        self._client_id = config.client_id or f"fusion-{plant.name}-{os.getpid()}"
        self._versions = deque(("5", "3.1.1") if config.protocol == "auto" else (config.protocol,))
        self._letters: deque[Letter] = deque()
        self._volatile: deque[_Volatile] = deque(maxlen=VOLATILE_WAITING)
        self._health: deque[bytes] = deque(maxlen=1)
        self._open: dict[str, AnomalyMessage] = {}
        self._sent: dict[int, tuple[int, str]] = {}
        self._row = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def topic(self, *levels: str) -> str:
        """The full topic of a kind of message."""
        return "/".join(("fusion", self._plant.name, "v1", *levels))

    def start(self) -> None:
        """Open the outbox and begin to connect; returns at once."""
        self._outbox = Outbox(self._config.outbox, self._config.outbox_capacity)
        self.waiting = len(self._outbox)
        self._wake_here, self._wake_there = socket.socketpair()
        self._wake_here.setblocking(False)
        self._wake_there.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, item: Record | Message) -> None:
        """Send a record or a message; anomalies and recommendations are kept until the broker has them."""
        if isinstance(item, Health):
            message: Message = encoding.health_message(item, self._plant, self._open.values(), self.delivery)
        elif isinstance(item, Message):
            message = item
        else:
            message = encoding.to_message(item, self._plant, self._model_id)
        self._enqueue(message)
        self._wake()

    def publish_preview(self, signal: str, payload: bytes | Message) -> None:
        """Send a small picture, cloud or spectrogram for pages."""
        data = messages.encode(payload) if isinstance(payload, Message) else payload
        self._enqueue_volatile("preview", self.topic("preview", signal), data)
        self._wake()

    @property
    def delivery(self) -> Delivery:
        """What became of the messages so far."""
        return Delivery(published=dict(self.published), dropped=dict(self.dropped), waiting=self.waiting)

    def close(self) -> None:
        """Publish "offline", disconnect, keep what was not delivered; takes at most two seconds."""
        if self._thread is None:
            return
        self._closing.set()
        self._wake()
        self._thread.join(CLOSE_DEADLINE_S)
        if self._thread.is_alive():
            log.warning("publisher: broker %s did not answer in time; left without goodbye", self._where)
        self._thread = None

    # -- handing over, in the caller's thread

    def _enqueue(self, message: Message) -> None:
        kind = _kind(message)
        payload = messages.encode(message)
        if isinstance(message, HealthMessage):
            self._health.append(payload)
        elif isinstance(message, AnomalyMessage | RecommendationMessage):
            expires_ns = message.valid_until_ns if isinstance(message, RecommendationMessage) else None
            self._remember(message)
            self._letters.append(
                Letter(
                    message_id=message.message_id,
                    kind=kind,
                    topic=self.topic(kind),
                    payload=payload,
                    expires_ns=expires_ns,
                )
            )
        else:
            self._enqueue_volatile(kind, self.topic(kind), payload)

    def _enqueue_volatile(self, kind: str, topic: str, payload: bytes) -> None:
        if len(self._volatile) == VOLATILE_WAITING:
            self.dropped[f"{kind}:queue_full"] += 1
        self._volatile.append(_Volatile(kind=kind, topic=topic, payload=payload))

    def _remember(self, message: Message) -> None:
        if not isinstance(message, AnomalyMessage):
            return
        if message.state == AnomalyState.CLEARED:
            self._open.pop(message.id, None)
        else:
            self._open[message.id] = message

    def _wake(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(BlockingIOError, OSError):
                self._wake_there.send(b"\0")

    # -- the publisher's own thread

    def _run(self) -> None:
        try:
            retry_s = self._config.retry_s
            while not self._closing.is_set():
                if self._session():
                    retry_s = self._config.retry_s
                refused = self.state is PublisherState.REFUSED
                self._idle(REFUSED_RETRY_S if refused else retry_s)
                retry_s = min(2 * retry_s, self._config.retry_max_s)
        finally:
            self._store()
            self._outbox.close()
            self._wake_here.close()
            self._wake_there.close()
            ended = "closed" if self._closing.is_set() else "publisher thread failed"
            self.state, self.message = PublisherState.CLOSED, ended

    def _session(self) -> bool:
        """One connection from hello to loss; False when it never came about."""
        will = messages.encode(encoding.bare_health(self._plant, self._clock(), "offline", self._model_id))
        connection = Connection(self._config, self._client_id, self._versions[0], (self.topic("health"), will))
        try:
            connection.open()
        except OSError as error:
            self._lost(PublisherState.DOWN, f"broker {self._where} cannot be reached: {error}")
            return False
        try:
            return self._greeted(connection) and self._serve(connection)
        finally:
            connection.close()

    def _greeted(self, connection: Connection) -> bool:
        deadline = time.monotonic() + self._config.connect_timeout_s
        while connection.answer is None and not connection.lost and time.monotonic() < deadline:
            connection.step(self._wake_here, 0.1)
            self._store()
            if self._closing.is_set():
                return False
        if connection.answer is not None and connection.answer[0]:
            return True
        reason = connection.answer[1] if connection.answer else connection.lost or "no answer"
        if len(self._versions) > 1 and (connection.answer is None or "protocol" in reason.lower()):
            self._versions.rotate()
        refused = connection.answer is not None and "protocol" not in reason.lower()
        state = PublisherState.REFUSED if refused else PublisherState.DOWN
        self._lost(state, f"broker {self._where} refused MQTT {connection.version}: {reason}")
        return False

    def _serve(self, connection: Connection) -> bool:
        self._back(connection.version)
        self._sent.clear()
        self._row = 0
        if not self._health:
            birth = encoding.bare_health(self._plant, self._clock(), "online", self._model_id)
            self._health.append(messages.encode(birth))
        while not connection.lost and not self._closing.is_set():
            self._store()
            self._send(connection)
            connection.step(self._wake_here, STEP_S)
            self._settle(connection)
        if connection.lost:
            self._lost(PublisherState.DOWN, f"broker {self._where} was lost: {connection.lost}")
        else:
            self._goodbye(connection)
        return True

    def _store(self) -> None:
        """Move letters from the caller's queue into the outbox."""
        letters = [self._letters.popleft() for _ in range(len(self._letters))]
        if not letters:
            return
        try:
            lost = self._outbox.put(letters)
        except sqlite3.Error as error:
            lost = [letter.kind for letter in letters]
            log.error("publisher: the outbox does not take letters: %s", error)
        for kind in lost:
            self.dropped[f"{kind}:outbox_full"] += 1
        self.waiting = len(self._outbox)

    def _send(self, connection: Connection) -> None:
        if self._health and not connection.busy:
            connection.publish(self.topic("health"), self._health.popleft(), 1, retain=True)
            self.published["health"] += 1
        self._send_letters(connection)
        while self._volatile and not connection.busy and not connection.lost:
            item = self._volatile.popleft()
            done = connection.publish(item.topic, item.payload, 0).rc == 0
            self._count(item.kind, "" if done else "not_sent")

    def _send_letters(self, connection: Connection) -> None:
        room = INFLIGHT - len(self._sent)
        if room <= 0 or connection.lost:
            return
        for row, letter in self._outbox.after(self._row, room):
            self._row = row
            left_s = None if letter.expires_ns is None else (letter.expires_ns - self._clock()) / NS_PER_S
            if left_s is not None and left_s <= 0:
                self._outbox.remove(row)
                self._count(letter.kind, "expired")
                continue
            expiry_s = None if left_s is None else math.ceil(left_s)
            mid = connection.publish(letter.topic, letter.payload, 1, expiry_s=expiry_s).mid
            self._sent[mid] = (row, letter.kind)
        self.waiting = len(self._outbox)

    def _settle(self, connection: Connection) -> None:
        """Take acknowledged letters out of the outbox; one that was denied waits for the next connection."""
        while connection.acknowledged:
            mid, failed, reason = connection.acknowledged.popleft()
            row, kind = self._sent.pop(mid, (0, ""))
            if failed:
                self.message = f"broker {self._where} denied {kind or 'health'}: {reason}"
                log.warning("publisher: %s", self.message)
            elif row:
                self._outbox.remove(row)
                self._count(kind, "")
                self.waiting = len(self._outbox)

    def _goodbye(self, connection: Connection) -> None:
        offline = messages.encode(encoding.bare_health(self._plant, self._clock(), "offline", self._model_id))
        self._store()
        self._send_letters(connection)
        last = connection.publish(self.topic("health"), offline, 1, retain=True)
        deadline = time.monotonic() + GOODBYE_S
        while not connection.lost and time.monotonic() < deadline and not (last.is_published() and not self._sent):
            connection.step(self._wake_here, 0.05)
            self._settle(connection)

    def _idle(self, duration_s: float) -> None:
        """Wait before the next attempt, storing what arrives and letting go of what would be stale."""
        deadline = time.monotonic() + duration_s
        while not self._closing.is_set() and (left_s := deadline - time.monotonic()) > 0:
            if select.select([self._wake_here], [], [], min(left_s, STEP_S))[0]:
                drain(self._wake_here)
            self._store()
            while self._volatile:
                self._count(self._volatile.popleft().kind, "offline")

    def _count(self, kind: str, lost: str) -> None:
        if lost:
            self.dropped[f"{kind}:{lost}"] += 1
        else:
            self.published[kind] += 1

    def _lost(self, state: PublisherState, message: str) -> None:
        if self.state is not state or not self.message:
            log.warning("publisher: %s; trying again", message)
        self.state, self.message = state, message

    def _back(self, version: str) -> None:
        self.state, self.message = PublisherState.ONLINE, f"broker {self._where}, MQTT {version}"
        log.info("publisher: connected to %s", self.message)

    @property
    def _where(self) -> str:
        return f"{self._config.host}:{self._config.port}"


def _kind(message: Message) -> str:
    for kind, known in messages.KINDS.items():
        if type(message) is known:
            return kind
    raise TypeError(f"{type(message).__name__} is no message of the wire")
