"""The part of the Sparkplug B payload that carries process values, as protobuf messages made from field numbers.

Source: Eclipse Sparkplug specification 3.0, chapter 6 (payloads). Fields that are not listed are passed over.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from connectors.columns import number

VALUES = {
    "int_value": "UINT32",
    "long_value": "UINT64",
    "float_value": "FLOAT",
    "double_value": "DOUBLE",
    "boolean_value": "BOOL",
    "string_value": "STRING",
}
MESSAGES: dict[str, list[tuple[int, str, str]]] = {
    "PropertyValue": [
        (1, "type", "UINT32"),
        (2, "is_null", "BOOL"),
        *((at, name, kind) for at, (name, kind) in enumerate(VALUES.items(), 3)),
    ],
    "PropertySet": [(1, "keys", "*STRING"), (2, "values", "*PropertyValue")],
    "Metric": [
        (1, "name", "STRING"),
        (2, "alias", "UINT64"),
        (3, "timestamp", "UINT64"),
        (4, "datatype", "UINT32"),
        (5, "is_historical", "BOOL"),
        (7, "is_null", "BOOL"),
        (9, "properties", "PropertySet"),
        *((at, name, kind) for at, (name, kind) in enumerate(VALUES.items(), 10)),
    ],
    "Payload": [(1, "timestamp", "UINT64"), (2, "metrics", "*Metric"), (3, "seq", "UINT64")],
}
SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}
GOOD_QUALITY = 192


def _payload_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="fusion_sparkplug.proto", package="fusion.sparkplug", syntax="proto2"
    )
    for message_name, fields in MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for at, name, written in fields:
            kind = written.removeprefix("*")
            label = field.LABEL_REPEATED if kind != written else field.LABEL_OPTIONAL
            entry = message.field.add(number=at, name=name, label=label)
            if kind in MESSAGES:
                entry.type, entry.type_name = field.TYPE_MESSAGE, f".fusion.sparkplug.{kind}"
            else:
                entry.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("fusion.sparkplug.Payload"))


Payload = _payload_class()


def decode(data: bytes) -> Any:
    """A payload; None where it is none."""
    try:
        return Payload.FromString(data)
    except DecodeError:
        return None


def rebirth(now_ms: int) -> bytes:
    """The command that asks an edge node to announce itself again."""
    payload = Payload(timestamp=now_ms)
    payload.metrics.add(name="Node Control/Rebirth", timestamp=now_ms, datatype=11, boolean_value=True)
    return bytes(payload.SerializeToString())


def value_of(metric: Any, datatype: int) -> float | None:
    """The number in a metric of that type; None where there is none."""
    if metric.is_null:
        return None
    for name in VALUES:
        if metric.HasField(name):
            found = getattr(metric, name)
            bits = SIGNED_BITS.get(datatype) if name in ("int_value", "long_value") else None
            if bits is not None:  # signed numbers travel as what their bits mean unsigned
                found &= (1 << bits) - 1
                found -= (found >> (bits - 1)) << bits
            return number(found)
    return None


def is_good(metric: Any) -> bool:
    """Whether a metric's quality, if it has one, is good: Sparkplug knows 0 bad, 192 good and 500 stale."""
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        if key == "Quality":
            return bool(value.int_value == GOOD_QUALITY or value.long_value == GOOD_QUALITY)
    return True
