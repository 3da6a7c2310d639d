"""Telling a running simulated plant what to do: one order over MQTT, confirmed by the broker."""

from __future__ import annotations

import json
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fusion.errors import FusionError

DEADLINE_S = 5.0


def send_order(host: str, port: int, plant: str, order: dict[str, Any]) -> None:
    """Send one order to ``simulator/<plant>/command``.

    Raises:
        FusionError: where no broker answers or it does not take the order in time.
    """
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    try:
        client.connect(host, port, keepalive=10)
    except OSError as error:
        hint = "is the plant running (`fusion demo` or `fusion plant`)?"
        raise FusionError(f"no MQTT broker at {host}:{port} ({error}); {hint}") from error
    client.loop_start()
    try:
        info = client.publish(f"simulator/{plant}/command", json.dumps(order), qos=1)
        info.wait_for_publish(DEADLINE_S)
        if not info.is_published():
            raise FusionError(f"the broker at {host}:{port} did not take the order within {DEADLINE_S:.0f} s")
    finally:
        client.disconnect()
        client.loop_stop()
