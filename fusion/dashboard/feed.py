"""MQTT for the page: what arrives is queued for the page's own thread, and commands for a simulated plant go out."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fusion.errors import ConfigError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

WAITING = 4000
KEEPALIVE_S = 10


class Feed:
    """One subscriber of one plant's topics (any plant when ``plant`` is empty); its callbacks only take notes."""

    def __init__(
        self, host: str, port: int, plant: str = "", username: str | None = None, password_file: str | None = None
    ) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.connected = False
        self.message = f"connecting to MQTT broker {host}:{port}"
        self._where = f"{host}:{port}"
        self._address = host, port
        self._topics = [(f"fusion/{plant or '+'}/v1/#", 1), (f"simulator/{plant or '+'}/status", 1)]
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
        client = Client(CallbackAPIVersion.VERSION2)
        if username is not None:
            client.username_pw_set(username, _secret(password_file))
        client.reconnect_delay_set(1, 5)
        client.on_connect = lambda c, _u, _f, code, _p: self._on_connect(c, code.is_failure, str(code))
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._on_disconnect(str(code))
        client.on_connect_fail = lambda _c, _u: self._on_disconnect("cannot be reached")
        client.on_message = lambda _c, _u, message: self._waiting.append((message.topic, bytes(message.payload)))
        self._client: Client = client

    def _on_connect(self, client: Client, refused: bool, reason: str) -> None:
        if refused:
            self._on_disconnect(f"refused: {reason}")
            return
        self.connected, self.message = True, f"connected to {self._where}"
        client.subscribe(self._topics)

    def _on_disconnect(self, reason: str) -> None:
        message = f"MQTT broker {self._where}: {reason}; trying again"
        if message != self.message:
            log.warning("%s", message)
        self.connected, self.message = False, message

    def start(self) -> None:
        """Begin to connect; keeps trying until stopped."""
        self._client.connect_async(*self._address, KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def drain(self) -> list[tuple[str, bytes]]:
        """Topics and payloads that arrived since the last call."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def command(self, plant: str, order: dict[str, Any]) -> None:
        """Ask the simulated plant for something, for example a fault."""
        self._client.publish(f"simulator/{plant}/command", msgspec.json.encode(order), qos=1)


def _secret(password_file: str | None) -> str | None:
    if not password_file:
        return None
    try:
        return Path(password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"dashboard.password_file: {password_file!r} cannot be read ({error})") from error
