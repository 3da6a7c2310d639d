"""MQTT for the page: what arrives is queued for the page's own thread; an operator's orders go out."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import msgspec

from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client, ClientState
from fusion.publish.orders import (
    AlarmOrderMessage,
    AnswerMessage,
    MarkOrderMessage,
    ModelOrderMessage,
    QuestionMessage,
)

WAITING = 4000


class Feed:
    """One subscriber of one plant's topics, or of any plant when ``plant`` is empty."""

    def __init__(self, broker: Broker, plant: str = "") -> None:
        topics = [f"fusion/{plant or '+'}/v1/#", f"simulator/{plant or '+'}/status"]
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
        self._client = Client(broker, topics=topics, received=self._received)
        self._there_s: float | None = None

    def _received(self, topic: str, payload: bytes, _retained: bool) -> None:
        self._waiting.append((topic, payload))

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._client.state is ClientState.ONLINE

    @property
    def message(self) -> str:
        """The state of the connection in words."""
        return self._client.message

    @property
    def lost_s(self) -> float | None:
        """Seconds since the broker was last there; None where it never was."""
        return None if self._there_s is None else time.monotonic() - self._there_s

    def start(self) -> None:
        """Begin to connect; keeps trying until stopped."""
        self._client.start()

    def stop(self) -> None:
        """Disconnect and end the network thread."""
        self._client.close()

    def check(self) -> None:
        """Raise a ``BrokerError`` where the network thread has failed."""
        self._client.check()

    def drain(self) -> list[tuple[str, bytes]]:
        """Topics and payloads that arrived since the last call; raises as ``check`` does."""
        self.check()
        if self.connected:
            self._there_s = time.monotonic()
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def command(self, plant: str, order: dict[str, Any]) -> None:
        """Ask the simulated plant for something, for example a fault; lost while there is no broker."""
        self._client.publish(f"simulator/{plant}/command", msgspec.json.encode(order), 1)

    def order(self, plant: str, order: AlarmOrderMessage) -> None:
        """Tell the daemon what an operator says of an alarm; lost while there is no broker."""
        self._client.publish(f"fusion/{plant}/v1/alarm/order", msgspec.json.encode(order), 1)

    def mark(self, plant: str, order: MarkOrderMessage) -> None:
        """Tell the daemon what a stretch of time was; lost while there is no broker."""
        self._client.publish(f"fusion/{plant}/v1/mark/order", msgspec.json.encode(order), 1)

    def answer(self, plant: str, answer: AnswerMessage) -> None:
        """Tell the daemon what an operator makes of an advice; lost while there is no broker."""
        self._client.publish(f"fusion/{plant}/v1/recommendation/ack", msgspec.json.encode(answer), 1)

    def choose(self, plant: str, order: ModelOrderMessage) -> None:
        """Tell the daemon which model to use; lost while there is no broker."""
        self._client.publish(f"fusion/{plant}/v1/model/order", msgspec.json.encode(order), 1)

    def ask(self, plant: str, question: QuestionMessage) -> None:
        """Ask the daemon what would happen; lost while there is no broker."""
        self._client.publish(f"fusion/{plant}/v1/whatif/request", msgspec.json.encode(question), 1)
