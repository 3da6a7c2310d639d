"""What is said and heard over the wire, for other programs: JSON Schemas and an AsyncAPI document of the topics.

Source: AsyncAPI 3.0.0, https://www.asyncapi.com/docs/reference/specification/v3.0.0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fusion.publish import messages, orders

MESSAGES: dict[str, type[msgspec.Struct]] = {
    **messages.KINDS,
    "answer": orders.AnswerMessage,
    "whatif_request": orders.QuestionMessage,
    "mode_order": orders.ModeOrderMessage,
    "model_order": orders.ModelOrderMessage,
    "verifier_order": orders.VerifierOrderMessage,
    "alarm_order": orders.AlarmOrderMessage,
    "mark_order": orders.MarkOrderMessage,
}
"""Every kind of message in JSON."""

MEDIA = {
    "picture": ("image/png", "a picture of a camera"),
    "cloud": (
        "application/octet-stream",
        "at most 1500 points of a LiDAR, little-endian float32 x, y, z [m] in the sensor frame, intensity",
    ),
}
"""Previews that are not JSON: content type and text."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic below ``fusion/<plant>/v1/``: who says what there, how surely, and whether it is retained.

    ``said_by`` is "" where others write what ``heard_by`` reads.
    """

    topic: str
    kinds: tuple[str, ...]
    text: str
    said_by: str = "daemon"
    heard_by: str = ""
    qos: int = 1
    retained: bool = False


def _order(topic: str, kind: str, text: str, heard_by: str = "daemon") -> Channel:
    return Channel(topic, (kind,), text, said_by="", heard_by=heard_by)


CHANNELS = (
    Channel("health", ("health",), "On connect, then every 2 s; also the last will.", retained=True),
    Channel("anomaly", ("anomaly",), "Raised, held, cleared."),
    Channel("alarm", ("alarm",), "Each change in the life of an alarm."),
    _order("alarm/order", "alarm_order", "What an operator does with an alarm."),
    _order("mark/order", "mark_order", "What a stretch of time was, for what is learned from it."),
    Channel("recommendation", ("recommendation",), "Each new advice or HOLD; void after valid_until."),
    _order("recommendation/ack", "answer", "What became of a recommendation."),
    Channel("ledger", ("ledger",), "What became of the newest 30 advices.", retained=True),
    Channel("progression", ("progression",), "Where slow quantities go, once an hour.", retained=True),
    _order("mode/order", "mode_order", "What advice may do from now on."),
    _order("model/order", "model_order", "Which of the models that are kept to use from now on."),
    Channel(
        "verifier",
        ("verifier",),
        "How the verifier is; also its last will.",
        said_by="verifier",
        heard_by="daemon",
        retained=True,
    ),
    _order("verifier/order", "verifier_order", "Start or stop.", heard_by="verifier"),
    _order("whatif/request", "whatif_request", "What happens if something is moved."),
    Channel("whatif", ("whatif",), "The answer to each question, with its id.", qos=0),
    Channel("gap", ("gap",), "A source is back after a stretch without data."),
    Channel("forecast", ("forecast",), "Every few seconds.", qos=0),
    Channel("frame", ("frame",), "Every tick.", qos=0),
    Channel("energy", ("energy",), "Every tick.", qos=0),
    Channel("preview/{signal}", ("picture", "spectrogram", "cloud"), "About once a second, for pages.", qos=0),
)


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every kind of message, by file name."""
    return {f"{kind}.json": msgspec.json.schema(message) for kind, message in MESSAGES.items()}


def asyncapi(channels: Sequence[Channel] = CHANNELS) -> dict[str, Any]:
    """The AsyncAPI document, from the side of the daemon and the verifier; payloads refer to ``schema/``."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "fusion",
            "version": "1",
            "description": "What the daemon and the verifier of a plant say and hear over MQTT; docs/mqtt.md in words.",
        },
        "defaultContentType": "application/json",
        "channels": {_name(channel): _channel(channel) for channel in channels},
        "operations": {_name(channel): _operation(channel) for channel in channels},
        "components": {"messages": {kind: _message(kind) for channel in channels for kind in channel.kinds}},
    }


def write_schemas(folder: Path) -> None:
    """Write the AsyncAPI document, and the JSON Schemas below ``schema``, one file per kind of message."""
    (folder / "schema").mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / "schema" / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="ascii")
    (folder / "asyncapi.json").write_text(json.dumps(asyncapi(), indent=2) + "\n", encoding="ascii")


def _name(channel: Channel) -> str:
    return channel.topic.split("/{")[0].replace("/", "_")


def _channel(channel: Channel) -> dict[str, Any]:
    address = f"fusion/{{plant}}/v1/{channel.topic}"
    parameters = {"plant": {"description": "Name of the plant, as plant.yaml has it."}}
    if "{signal}" in address:
        parameters["signal"] = {"description": "Name of a camera, microphone or LiDAR of the plant."}
    return {
        "address": address,
        "description": channel.text,
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in channel.kinds},
        "parameters": parameters,
    }


def _operation(channel: Channel) -> dict[str, Any]:
    """What the daemon or the verifier does; an order may come with any QoS, and retained it is refused."""
    bindings = {"bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retained}}} if channel.said_by else {}
    return {
        "action": "send" if channel.said_by else "receive",
        "channel": {"$ref": f"#/channels/{_name(channel)}"},
        "summary": f"Said by the {channel.said_by}." if channel.said_by else f"Read by the {channel.heard_by}.",
        **bindings,
    }


def _message(kind: str) -> dict[str, Any]:
    if kind in MEDIA:
        content, text = MEDIA[kind]
        return {"contentType": content, "summary": text}
    return {"payload": {"$ref": f"./schema/{kind}.json"}}
