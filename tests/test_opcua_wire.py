"""Data values off the wire: every type is read or passed over, and nothing that is torn is believed."""

import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from connectors.opcua.wire import Array, Unread, Wire
from fusion.errors import SourceError

GOOD, BAD = 0, 0x80340000


def encoded(value: object, kind: ua.VariantType, **more: object) -> bytes:
    return struct_to_binary(ua.DataValue(ua.Variant(value, kind, **more), ua.StatusCode(GOOD)))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (2**64 - 1, ua.VariantType.UInt64, 2**64 - 1),
        (-3, ua.VariantType.SByte, -3),
        (True, ua.VariantType.Boolean, True),
        (1.5, ua.VariantType.Float, 1.5),
        ("1.5", ua.VariantType.String, "1.5"),
        (b"abc", ua.VariantType.ByteString, Unread("ByteString")),
        (datetime(2026, 1, 1, tzinfo=UTC), ua.VariantType.DateTime, Unread("DateTime")),
        (uuid.UUID(int=7), ua.VariantType.Guid, Unread("Guid")),
        (ua.NodeId("abc", 3), ua.VariantType.NodeId, Unread("NodeId")),
        (ua.NodeId(70_000, 3), ua.VariantType.NodeId, Unread("NodeId")),
        (ua.LocalizedText("a", "de"), ua.VariantType.LocalizedText, Unread("LocalizedText")),
        (ua.QualifiedName("a", 2), ua.VariantType.QualifiedName, Unread("QualifiedName")),
        (ua.StatusCode(BAD), ua.VariantType.StatusCode, Unread("StatusCode")),
        ([1, 2, 3], ua.VariantType.Int16, Array((1, 2, 3), ())),
        (["a", None], ua.VariantType.String, Array(("a", ""), ())),
        (ua.ExtensionObject(ua.NodeId(50, 0), b"\x02\x00\xd2\x04"), ua.VariantType.ExtensionObject, 12.34),
        (ua.ExtensionObject(ua.NodeId(50, 0), b"\x00\x80\x01"), ua.VariantType.ExtensionObject, np.inf),
    ],
)
def test_every_type_is_read_or_passed_over(value: object, kind: ua.VariantType, expected: object):
    wire = Wire(encoded(value, kind) + encoded(5.5, ua.VariantType.Double))
    assert wire.data_value().value == expected
    assert wire.data_value().value == 5.5, "what follows is found"


def test_elements_of_a_matrix_and_answers_that_are_torn():
    data = encoded([[1, 2, 3], [4, 5, 6]], ua.VariantType.Int32)
    matrix = Wire(data).data_value().value
    assert [matrix.element(place) for place in ([0, 0], [1, 0], [1, 2])] == [1, 4, 6]
    assert all(isinstance(matrix.element(place), Unread) for place in ([2, 0], [0, 3], [1], [0, 0, 0]))
    assert isinstance(Array((1,), (2, 2)).element([1, 1]), Unread)
    for cut in range(len(data) - 4):
        with pytest.raises(SourceError, match="ends too early"):
            Wire(data[:cut]).data_value()
    with pytest.raises(SourceError, match="nested too deeply"):
        Wire(b"\x01" + b"\x18" * 100_000).data_value()
