"""Asking a running daemon what happens if something is moved: one question over MQTT, and its answer."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from fusion.errors import BrokerError, FusionError
from fusion.mqtt.broker import Broker
from fusion.mqtt.connection import Connection
from fusion.prospects import Question
from fusion.publish.orders import encode_question

SEND_S, STEP_S = 5.0, 0.2


def ask(broker: Broker, plant: str, moves: Mapping[str, float], by: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """The answer of the daemon of a plant, as it came over the wire.

    Raises:
        ConfigError: a password or certificate that cannot be read.
        FusionError: no broker, or no daemon that answers in time.
    """
    question = Question(id=uuid.uuid4().hex, moves=moves, by=by)
    answers: list[dict[str, Any]] = []
    connection = Connection(broker, received=lambda _topic, payload, _retained: _keep(payload, question.id, answers))
    topic = f"fusion/{plant}/v1/whatif"
    try:
        connection.open()
        if connection.subscribe([topic], 1):
            raise FusionError(f"broker {broker.address} denies to subscribe {topic}")
        connection.deliver(f"{topic}/request", encode_question(question), timeout_s=SEND_S)
        deadline = time.monotonic() + timeout_s
        while not answers and not connection.lost and time.monotonic() < deadline:
            connection.step(STEP_S)
        if not answers:
            reason = connection.lost or f"no answer within {timeout_s:g} s; is the daemon of plant {plant!r} running?"
            raise FusionError(f"broker {broker.address}: {reason}")
        connection.leave()
    except BrokerError as error:
        raise FusionError(f"{error}; expected the broker of a running daemon") from error
    finally:
        connection.close()
    return answers[0]


def _keep(payload: bytes, asked: str, answers: list[dict[str, Any]]) -> None:
    try:
        said = json.loads(payload)
    except ValueError:
        return
    if isinstance(said, dict) and said.get("id") == asked:
        answers.append(said)
