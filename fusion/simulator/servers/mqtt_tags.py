"""The part of the simulated plant that speaks MQTT: a skid that publishes tags, takes orders and says how it is.

Tags go to ``plant/<plant>/<tag>``, as JSON with value, time and quality or as a plain number; the plant's condition is
retained on ``simulator/<plant>/status``, and orders are read from ``simulator/<plant>/command``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from fusion.errors import FusionError
from fusion.records import Quality

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

log = logging.getLogger(__name__)

CONNECT_S, KEEPALIVE_S = 5.0, 10
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

    ``order`` is called in the event loop with the payload of each order. Protocol 3.1.1, which every broker speaks.
    """

    def __init__(
        self,
        plant: str,
        host: str,
        port: int,
        *,
        as_json: Iterable[str],
        as_plain: Iterable[str],
        order: Order,
        login: tuple[str, str] | None = None,
    ) -> None:
        self._plant = plant
        self._address = (host, port)
        self._json, self._plain = frozenset(as_json), frozenset(as_plain)
        self._order = order
        self._login = login
        self._client: Client | None = None
        self._connected: asyncio.Future[str] | None = None

    async def __aenter__(self) -> Self:
        """Connect; a connection that is lost later comes back by itself.

        Raises:
            FusionError: where no broker listens, or it refuses us.
        """
        loop = asyncio.get_running_loop()
        self._connected = loop.create_future()
        self._client = self._new_client(loop)
        where = f"mqtt {self._address[0]}:{self._address[1]}"
        try:
            await asyncio.to_thread(self._client.connect, *self._address, KEEPALIVE_S)
            self._client.loop_start()
            refusal = await asyncio.wait_for(self._connected, CONNECT_S)
        except (OSError, TimeoutError) as error:
            await self._leave()
            raise FusionError(f"{where}: no broker answers ({error or 'timeout'})") from error
        if refusal:
            await self._leave()
            raise FusionError(f"{where}: the broker refuses us ({refusal})")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Say goodbye and leave."""
        if self._client is not None and self._client.is_connected():
            self.status({"state": "offline", "running": False}).wait_for_publish(0.5)
        await self._leave()

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> Client:
        from paho.mqtt.client import Client, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
        client.suppress_exceptions = True  # an exception in a callback would end paho's thread without a word
        client.connect_timeout = CONNECT_S
        client.reconnect_delay_set(1, 5)
        if self._login is not None:
            client.username_pw_set(*self._login)
        client.will_set(self._topic("status"), json.dumps({"state": "offline", "running": False}), 1, retain=True)

        def connected(client: Client, _data: object, _flags: object, code: Any, _properties: object) -> None:
            if not code.is_failure:
                client.subscribe(self._topic("command"), 1)
            loop.call_soon_threadsafe(self._answered, str(code) if code.is_failure else "")

        def told(_client: Client, _data: object, message: MQTTMessage) -> None:
            if not message.retain:
                loop.call_soon_threadsafe(self._order, bytes(message.payload))

        client.on_connect = connected
        client.on_message = told
        return client

    def _topic(self, leaf: str) -> str:
        return f"simulator/{self._plant}/{leaf}"

    def _answered(self, refusal: str) -> None:
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(refusal)

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    def publish(self, tag: str, value: float, t_ns: int, quality: int) -> None:
        """Publish one value if it is one of ours; while there is no broker it is lost."""
        assert self._client is not None  # noqa: S101 - only while connected
        if tag in self._json:
            self._client.publish(tag_topic(self._plant, tag), json_payload(value, t_ns, quality))
        elif tag in self._plain:
            self._client.publish(tag_topic(self._plant, tag), repr(float(value)))

    def status(self, body: dict[str, Any]) -> Any:
        """Replace the retained status."""
        assert self._client is not None  # noqa: S101 - only while connected
        return self._client.publish(self._topic("status"), json.dumps(body), 1, retain=True)
