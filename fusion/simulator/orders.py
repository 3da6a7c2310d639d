"""Telling a running simulated plant what to do: one order over MQTT, confirmed by the broker."""

from __future__ import annotations

import json
from typing import Any

from fusion.errors import BrokerError, FusionError
from fusion.mqtt.broker import Broker
from fusion.mqtt.connection import Connection

DEADLINE_S = 5.0


def send_order(broker: Broker, plant: str, order: dict[str, Any]) -> None:
    """Send one order to ``simulator/<plant>/command``.

    Raises:
        ConfigError: a password or certificate that cannot be read.
        FusionError: no broker answers, or it does not take the order.
    """
    connection = Connection(broker)
    try:
        connection.open()
        connection.deliver(f"simulator/{plant}/command", json.dumps(order).encode(), timeout_s=DEADLINE_S)
        connection.leave()
    except BrokerError as error:
        raise FusionError(f"{error}; is the plant running (`fusion demo` or `fusion plant`)?") from error
    finally:
        connection.close()
