"""Records out to MQTT: birth and last will, retained health, and an outbox for what must arrive.

The thread of an MQTT client sends; ``publish`` encodes, and returns once what must arrive is on the disk: it waits for
that, never for a broker.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from fusion.alarms import Order
from fusion.clock import CLOCK, Clock
from fusion.errors import ConfigError, FusionError
from fusion.health import Health
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client, ClientState
from fusion.mqtt.connection import Connection
from fusion.plant import Plant
from fusion.prospects import Question
from fusion.publish import encoding, messages, orders
from fusion.publish.base import Message
from fusion.publish.encoding import Record
from fusion.publish.mailbag import Mailbag
from fusion.publish.messages import Delivery, HealthMessage, LedgerMessage, RecommendationMessage
from fusion.publish.outbox import Letter
from fusion.publish.progression import ProgressionMessage
from fusion.records import NS_PER_S, Answer

log = logging.getLogger(__name__)
T = TypeVar("T")

INFLIGHT = 20
VOLATILE_WAITING = 256
WORDS_WAITING = 100
READ = (
    ("recommendation", "ack"),
    ("alarm", "order"),
    ("mark", "order"),
    ("mode", "order"),
    ("model", "order"),
    ("whatif", "request"),
    ("verifier",),
)
KEPT = (messages.AnomalyMessage, RecommendationMessage, messages.GapMessage, messages.AlarmMessage)

RETAINED = (HealthMessage, LedgerMessage, ProgressionMessage)


@dataclass(kw_only=True, slots=True)
class PublisherConfig(Broker):
    """The broker that gets the results.

    ``outbox`` is the file that keeps anomalies, alarms and recommendations over a restart of the daemon; with "" they
    survive only a broker's outage. Waits between attempts to connect double from ``retry_s`` to ``retry_max_s``.
    """

    SECTION: ClassVar[str] = "publish"

    retry_s: float = 0.5
    retry_max_s: float = 10.0
    outbox: str = "var/outbox.sqlite"
    outbox_capacity: int = 10_000

    def __post_init__(self) -> None:
        """Reject what no broker can be reached with, and an outbox without room."""
        Broker.__post_init__(self)  # a class with slots is made twice: super() would not find itself
        if not 0 < self.retry_s <= self.retry_max_s:
            raise ConfigError("publish: retry_s must be positive, retry_max_s not below it")
        if self.outbox_capacity < 1:
            raise ConfigError("publish.outbox_capacity: at least 1 is required")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Volatile:
    """A message that is worthless once the next one exists."""

    kind: str
    topic: str
    payload: bytes


class MqttPublisher:
    """Publishes one plant's results under ``fusion/<plant>/v1/``.

    ``clock`` is that of the records and decides when a recommendation has expired; replay passes its own. Where the
    system's clock was stepped since, times go out as readers have them who follow it.
    """

    def __init__(
        self,
        config: PublisherConfig,
        plant: Plant,
        model_id: str = "",
        *,
        clock: Clock = CLOCK,
    ) -> None:
        if not plant.name or any(c in plant.name for c in "+#/"):
            raise ConfigError(f"plant.name: {plant.name!r} cannot be a topic level; expected a name without + # /")
        self.published: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._config = config
        self._plant = plant
        self.model_id = model_id
        self._clock = clock
        self._volatile: deque[_Volatile] = deque(maxlen=VOLATILE_WAITING)
        self._standing: dict[str, bytes] = {}
        self._due: dict[str, bytes] = {}
        self._answers: deque[Answer] = deque(maxlen=WORDS_WAITING)
        self._orders: deque[Order] = deque(maxlen=WORDS_WAITING)
        self._questions: deque[Question] = deque(maxlen=WORDS_WAITING)
        self.verifier: tuple[str, float] | None = None
        self._sent: dict[int, Letter] = {}
        self._denied = ""
        self._connection: Connection | None = None
        self._client = Client(
            config,
            f"fusion-{plant.name}-{os.getpid()}",
            topics=[self.topic(*levels) for levels in READ],
            received=self._said,
            turn=self._turn,
            last_words=lambda: (self.topic("health"), self._goodbye()),
            retry_s=config.retry_s,
            retry_max_s=config.retry_max_s,
        )
        self._bag = Mailbag(config.outbox, config.outbox_capacity, clock, self.dropped)

    def topic(self, *levels: str) -> str:
        """The full topic of a kind of message."""
        return "/".join(("fusion", self._plant.name, "v1", *levels))

    @property
    def state(self) -> ClientState:
        """Where the connection to the broker stands."""
        return self._client.state

    @property
    def message(self) -> str:
        """What the operator should know: trouble with a delivery, else the state of the connection in words."""
        return self._problem or self._client.message

    @property
    def _problem(self) -> str:
        return "; ".join(text for text in (self._bag.trouble, self._denied, self._client.denied) if text)

    @property
    def trouble(self) -> str:
        """What stands in the way of delivery now, in words; "" if nothing."""
        away = self.state in (ClientState.DOWN, ClientState.REFUSED)
        return self._problem or (self._client.message if away else "")

    @property
    def flags(self) -> tuple[str, ...]:
        """Whether the outbox that was found had to be set aside."""
        return self._bag.flags

    @property
    def settled(self) -> bool:
        """Whether every letter is in the outbox, or delivered where that is not a file."""
        return self._bag.settled

    @property
    def waiting(self) -> int:
        """Letters that the broker does not have yet."""
        return len(self._bag)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._client.start()

    def publish(self, *items: Record | Message) -> bool:
        """Send records or messages; anomalies, alarms and recommendations are kept until the broker has them.

        Returns:
            Whether all that is kept is on the disk. What is not waits in memory until the disk takes it.

        Raises:
            BrokerError: the thread that publishes has failed.
        """
        self._client.check()
        made = [self._message(item) for item in items]
        stored = self._bag.put([self._letter(m) for m in made if isinstance(m, KEPT)])
        for message in made:
            if isinstance(message, RETAINED):
                self._standing[_kind(message)] = self._due[_kind(message)] = messages.encode(message)
            elif not isinstance(message, KEPT):
                kind = _kind(message)
                self._enqueue_volatile(kind, self.topic(kind), messages.encode(message))
        self._client.wake()
        return stored

    def publish_preview(self, signal: str, payload: bytes | Message) -> None:
        """Send a small picture, cloud or spectrogram for pages; raises as ``publish`` does."""
        self._client.check()
        data = messages.encode(payload) if isinstance(payload, Message) else payload
        self._enqueue_volatile("preview", self.topic("preview", signal), data)
        self._client.wake()

    def answers(self) -> list[Answer]:
        """What was answered to recommendations since the last call."""
        return [self._answers.popleft() for _ in range(len(self._answers))]

    def orders(self) -> list[Order]:
        """What operators said of alarms, stretches of time, advice and models since the last call."""
        return [self._orders.popleft() for _ in range(len(self._orders))]

    def questions(self) -> list[Question]:
        """What was asked about the future since the last call."""
        return [self._questions.popleft() for _ in range(len(self._questions))]

    @property
    def delivery(self) -> Delivery:
        """What became of the messages so far."""
        return Delivery(
            published=dict(self.published), dropped=dict(self.dropped), waiting=self.waiting, message=self._problem
        )

    def close(self) -> None:
        """Publish "offline", disconnect, keep what was not delivered; as long as a vain attempt to connect at most."""
        self._client.close()
        self._bag.close()

    # -- handing over, in the caller's thread

    def _message(self, item: Record | Message) -> Message:
        if isinstance(item, Health):
            return encoding.full_health(item, self._plant, self.delivery)
        return item if isinstance(item, Message) else encoding.to_message(item, self._plant, self.model_id)

    def _letter(self, message: Message) -> Letter:
        kind = _kind(message)
        return Letter(
            message_id=message.message_id,
            kind=kind,
            topic=self.topic(kind),
            payload=messages.encode(message),
            expires_ns=message.valid_until_ns if isinstance(message, RecommendationMessage) else None,
        )

    def _enqueue_volatile(self, kind: str, topic: str, payload: bytes) -> None:
        if len(self._volatile) == VOLATILE_WAITING:
            self.dropped[f"{kind}:queue_full"] += 1
        self._volatile.append(_Volatile(kind=kind, topic=topic, payload=payload))

    # -- in the client's thread

    def _turn(self, connection: Connection | None) -> None:
        """Between two steps: what is retained, then the outbox, then what is worth sending only now."""
        self._settle()
        if connection is not self._connection:
            self._renew(connection)
        if connection is not None and self._due and not connection.busy:
            kind = next(iter(self._due))
            said = messages.moved(self._due.pop(kind), self._clock.step_ns())
            connection.publish(self.topic(kind), said, 1, retain=True)
            self.published[kind] += 1
        self._bag.tend()
        if connection is not None:
            self._send_letters(connection)
        self._send_volatile(connection)

    def _said(self, topic: str, payload: bytes, retained: bool) -> None:
        """Note what somebody says to us; what is retained is old, and what cannot be read is counted and said."""
        if topic == self.topic("alarm", "order"):
            self._note("order", self._orders, orders.decode_order, payload, retained)
        elif topic == self.topic("mark", "order"):
            here = messages.moved(payload, -self._clock.step_ns())  # times in it are the sender's
            self._note("mark", self._orders, orders.decode_mark, here, retained)
        elif topic == self.topic("mode", "order"):
            self._note("mode", self._orders, orders.decode_mode, payload, retained)
        elif topic == self.topic("model", "order"):
            self._note("model", self._orders, orders.decode_model, payload, retained)
        elif topic == self.topic("whatif", "request"):
            self._note("question", self._questions, orders.decode_question, payload, retained)
        elif topic == self.topic("verifier"):
            self._hear_verifier(payload, retained)
        else:
            self._note("answer", self._answers, orders.decode_answer, payload, retained)

    def _hear_verifier(self, payload: bytes, retained: bool) -> None:
        """Note how the verifier is, and when [monotonic s] it said so; what is retained may be of long ago."""
        if retained:
            return
        try:
            said = messages.decode(payload)
        except FusionError as error:
            self.dropped["verifier:not_understood"] += 1
            log.warning("verifier: %s", error)
            return
        if isinstance(said, messages.VerifierMessage):
            self.verifier = (said.state, time.monotonic())

    def _note(self, kind: str, waiting: deque[T], decode: Callable[[bytes], T], payload: bytes, retained: bool) -> None:
        if retained:
            self.dropped[f"{kind}:retained"] += 1
            return
        try:
            said = decode(payload)
        except FusionError as error:
            self.dropped[f"{kind}:not_understood"] += 1
            log.warning("%s: %s", kind, error)
            return
        if len(waiting) == WORDS_WAITING:
            self.dropped[f"{kind}:queue_full"] += 1
        waiting.append(said)

    def _settle(self) -> None:
        """Note which letters arrived; one that was denied waits for the next connection."""
        while self._connection is not None and self._connection.acknowledged:
            mid, denied = self._connection.acknowledged.popleft()
            letter = self._sent.pop(mid, None)
            if denied:
                kind = "what is retained" if letter is None else letter.kind
                self._denied = f"broker {self._config.address} denied {kind}: {denied}"
                log.warning("publisher: %s", self._denied)
            elif letter is not None:
                self._bag.arrived(letter.message_id)
                self.published[letter.kind] += 1

    def _renew(self, connection: Connection | None) -> None:
        """Begin with the oldest letter again, and with a birth."""
        self._connection = connection
        self._sent.clear()
        self._bag.begin()
        self._denied = ""
        if connection is not None:
            self._due = {"health": self._bare_health("online"), **self._standing, **self._due}

    def _goodbye(self) -> bytes:
        return messages.moved(self._bare_health("offline"), self._clock.step_ns())

    def _bare_health(self, state: str) -> bytes:
        return messages.encode(encoding.bare_health(self._plant, self._clock.now_ns(), state, self.model_id))

    def _send_letters(self, connection: Connection) -> None:
        for letter in self._bag.take(INFLIGHT - len(self._sent)):
            left_s = None if letter.expires_ns is None else (letter.expires_ns - self._clock.now_ns()) / NS_PER_S
            expiry_s = None if left_s is None else max(math.ceil(left_s), 1)
            payload = messages.moved(letter.payload, self._clock.step_ns())
            self._sent[connection.publish(letter.topic, payload, 1, expiry_s=expiry_s).mid] = letter

    def _send_volatile(self, connection: Connection | None) -> None:
        while self._volatile:
            if connection is not None and (connection.busy or connection.lost):
                return
            item = self._volatile.popleft()
            if connection is None:
                self._count(item.kind, "offline")
            else:
                connection.publish(item.topic, messages.moved(item.payload, self._clock.step_ns()))
                self._count(item.kind, "not_sent" if connection.lost else "")

    def _count(self, kind: str, lost: str) -> None:
        if lost:
            self.dropped[f"{kind}:{lost}"] += 1
        else:
            self.published[kind] += 1


def _kind(message: Message) -> str:
    for kind, known in messages.KINDS.items():
        if type(message) is known:
            return kind
    raise TypeError(f"{type(message).__name__} is no message of the wire")
