"""The part of the simulated plant that speaks MQTT: a skid that publishes tags, takes orders and says how it is.

Tags go to ``plant/<plant>/<tag>``, as JSON with value, time and quality or as a plain number; the plant's condition is
retained on ``simulator/<plant>/status``, and orders are read from ``simulator/<plant>/command``.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Self

from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client
from fusion.records import Quality

Order = Callable[[bytes], None]


def tag_topic(plant: str, tag: str) -> str:
    """Where a tag is published."""
    return f"plant/{plant}/{tag}"


def json_payload(value: float, t_ns: int, quality: int) -> bytes:
    """Value, time [UTC ns] and quality in words; what JSON cannot hold is null."""
    body = {"value": value if math.isfinite(value) else None, "t_ns": t_ns, "quality": Quality(quality).name.lower()}
    return json.dumps(body, separators=(",", ":")).encode()


class MqttTags:
    """Publishes the tags in ``as_json`` and ``as_plain``, as an async context; others are not of its concern.

    ``order`` is called in the event loop with the payload of each order.
    """

    def __init__(
        self, plant: str, broker: Broker, *, as_json: Iterable[str], as_plain: Iterable[str], order: Order
    ) -> None:
        self._plant = plant
        self._json, self._plain = frozenset(as_json), frozenset(as_plain)
        self._order = order
        self._client = Client(
            broker, topics=[self._topic("command")], received=self._received, last_words=self._last_words
        )

    async def __aenter__(self) -> Self:
        """Connect; a connection that is lost later comes back by itself.

        Raises:
            BrokerError: where no broker listens, or it refuses us.
        """
        self._loop = asyncio.get_running_loop()
        self._client.start()
        try:
            await asyncio.to_thread(self._client.reach)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Say goodbye and leave."""
        await asyncio.to_thread(self._client.close)

    def _received(self, _topic: str, payload: bytes, retained: bool) -> None:
        """An order; runs on the client's thread. One that was retained was meant for somebody before us."""
        if not retained:
            self._loop.call_soon_threadsafe(self._order, payload)

    def _last_words(self) -> tuple[str, bytes]:
        return self._topic("status"), json.dumps({"state": "offline", "running": False}).encode()

    def _topic(self, leaf: str) -> str:
        return f"simulator/{self._plant}/{leaf}"

    def publish(self, tag: str, value: float, t_ns: int, quality: int) -> None:
        """Publish one value if it is one of ours; while there is no broker it is lost."""
        if tag in self._json:
            self._client.publish(tag_topic(self._plant, tag), json_payload(value, t_ns, quality))
        elif tag in self._plain:
            self._client.publish(tag_topic(self._plant, tag), repr(float(value)).encode())

    def status(self, body: dict[str, Any]) -> None:
        """Replace the retained status."""
        self._client.publish(self._topic("status"), json.dumps(body).encode(), 1, retain=True)
