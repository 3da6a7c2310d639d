"""Data values off the wire, one by one, so that one which cannot be used costs no other: the library drops all of them.

Source: OPC UA part 6, 5.2 (binary encoding), and part 4, 7.11 (DataValue). What is no number is passed over by its
length and only named.
"""

from __future__ import annotations

import decimal
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from fusion.errors import SourceError

NUMBERS = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d"}
FIXED = {13: ("DateTime", 8), 14: ("Guid", 16), 19: ("StatusCode", 4)}
STRING, NODE_IDS, QUALIFIED_NAME, LOCALIZED_TEXT, EXTENSION_OBJECT, DATA_VALUE, VARIANT, DIAGNOSTICS = (
    12, (17, 18), 20, 21, 22, 23, 24, 25
)  # fmt: skip
NUMERIC_IDS = {0: "B", 1: "BH", 2: "HI"}
GUID_ID = 4
DECIMAL = 0, 50
DEEPEST = 30
EPOCH_TICKS = 116_444_736_000_000_000
DATA_CHANGE, STATUS_CHANGE, HISTORY_DATA = (0, 811), (0, 820), (0, 658)


class Unread(NamedTuple):
    """A value that is no number, by the name of its type."""

    kind: str


class Array(NamedTuple):
    """Elements in the order of the wire and, of a matrix, its dimensions."""

    elements: Sequence[Any]
    dimensions: Sequence[int]

    def element(self, place: Sequence[int]) -> Any:
        """The element at a place, one number for each dimension, counted from 0; ``Unread`` where there is none."""
        dimensions = self.dimensions or (len(self.elements),)
        at = 0
        for index, size in zip(place, dimensions, strict=False):
            at = at * size + index
        inside = len(place) == len(dimensions) and all(i < n for i, n in zip(place, dimensions, strict=False))
        if not inside or at >= len(self.elements):
            return Unread(f"no element {list(place)} in an array of {' x '.join(map(str, dimensions))}")
        return self.elements[at]


class DataValue(NamedTuple):
    """A value with its status code and stamps [UTC ns], each None where the server sent none."""

    value: Any
    status: int = 0
    source_ns: int | None = None
    server_ns: int | None = None


class Notification(NamedTuple):
    """What one publish response brings: values by client handle, and the status with which the subscription ended."""

    changes: list[tuple[int, DataValue]]
    ended: int | None = None


class History(NamedTuple):
    """What a history read brings of one node: its status, where it goes on ("" where it does not), and values."""

    status: int
    point: bytes
    values: list[DataValue]


class Wire:
    """A cursor over the bytes of one answer.

    Raises:
        SourceError: the bytes end before the answer does, or are no OPC UA.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise SourceError("the server sent an answer that ends too early")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, form: str) -> Any:
        """The next number of a form of ``struct``."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def count(self) -> int:
        """The length of a list; none is longer than the bytes that are left."""
        size = int(self.number("i"))
        if size > len(self._data) - self._at:
            raise SourceError("the server sent an answer that ends too early")
        return max(size, 0)

    def text(self) -> str:
        """A string; what is no UTF-8 is marked."""
        return self.take(self.count()).decode("utf-8", "replace")

    def time_ns(self) -> int:
        """A time as UTC nanoseconds, whatever it says: year 1601 is an empty field."""
        return (int(self.number("q")) - EPOCH_TICKS) * 100

    def data_value(self, depth: int = 0) -> DataValue:
        """A value with what belongs to it."""
        mask = self.number("B")
        value = self.variant(depth) if mask & 1 else None
        status = self.number("I") if mask & 2 else 0
        source_ns = self.time_ns() if mask & 4 else None
        self.take(2 if mask & 16 else 0)
        server_ns = self.time_ns() if mask & 8 else None
        self.take(2 if mask & 32 else 0)
        return DataValue(value, status, source_ns, server_ns)

    def variant(self, depth: int = 0) -> Any:
        """A number, text, ``Array`` or ``Unread``; None of nothing."""
        if depth > DEEPEST:
            raise SourceError("the server sent values nested too deeply")
        code = self.number("B")
        kind = code & 63
        if not code & 128:
            return self._scalar(kind, depth)
        size = self.count()
        form = NUMBERS.get(kind)
        if form is not None:
            found = struct.unpack(f"<{size}{form}", self.take(struct.calcsize(f"<{size}{form}")))
        else:
            found = tuple(self._scalar(kind, depth) for _ in range(size))
        return Array(found, self._dimensions() if code & 64 else ())

    def _dimensions(self) -> tuple[int, ...]:
        return tuple(max(self.number("i"), 0) for _ in range(self.count()))

    def _scalar(self, kind: int, depth: int) -> Any:
        form = NUMBERS.get(kind)
        if form is not None:
            return self.number(form)
        if kind in FIXED:
            name, size = FIXED[kind]
            self.take(size)
            return Unread(name)
        if kind == 0:
            return None
        if kind == STRING:
            return self.text()
        if kind == EXTENSION_OBJECT:
            return self._extension()
        return self._passed_over(kind, depth)

    def _passed_over(self, kind: int, depth: int) -> Unread:
        if kind in NODE_IDS:
            self.node_id()
        elif kind == QUALIFIED_NAME:
            self.take(2)
            self.text()
        elif kind == LOCALIZED_TEXT:
            for _ in range((self.number("B") & 3).bit_count()):
                self.text()
        elif kind == DATA_VALUE:
            self.data_value(depth + 1)
        elif kind == VARIANT:
            self.variant(depth + 1)
        elif kind == DIAGNOSTICS:
            self.diagnostics(depth + 1)
        else:  # ByteString, XmlElement, and types to come, which are encoded as such
            self.take(self.count())
        names = {17: "NodeId", 18: "NodeId", 20: "QualifiedName", 21: "LocalizedText", 23: "DataValue", 24: "Variant"}
        return Unread(names.get(kind, "ByteString"))

    def node_id(self) -> tuple[int, ...]:
        """Namespace and number of a node, or its namespace alone where it is named otherwise."""
        form = self.number("B")
        if (numeric := NUMERIC_IDS.get(form & 63)) is not None:
            found = struct.unpack(f"<{numeric}", self.take(struct.calcsize(f"<{numeric}")))
            found = (0, *found) if len(found) == 1 else found
        else:
            found = (self.number("H"),)
            self.take(16 if form & 63 == GUID_ID else self.count())
        if form & 128:
            self.text()
        self.take(4 if form & 64 else 0)
        return found

    def _extension(self) -> Any:
        """A structure; of all of them the standard's Decimal alone is a number."""
        kind = self.node_id()
        encoding = self.number("B")
        body = self.take(self.count()) if encoding else b""
        if kind == DECIMAL and len(body) > 2:
            scale = int.from_bytes(body[:2], "little", signed=True)
            return float(decimal.Decimal(int.from_bytes(body[2:], "little", signed=True)).scaleb(-scale))
        return Unread("ExtensionObject")

    def diagnostics(self, depth: int = 0) -> None:
        """Pass over what a server says for its own makers."""
        if depth > DEEPEST:
            raise SourceError("the server sent diagnostics nested too deeply")
        mask = self.number("B")
        self.take(4 * (mask & 15).bit_count())
        if mask & 16:
            self.text()
        self.take(4 if mask & 32 else 0)
        if mask & 64:
            self.diagnostics(depth + 1)

    def notification(self) -> Notification:
        """An element of the notification data: changes, or the end of the subscription; others are empty."""
        kind = self.node_id()
        body = Wire(self.take(self.count()) if self.number("B") else b"")
        if kind == DATA_CHANGE:
            return Notification([(body.number("I"), body.data_value()) for _ in range(body.count())])
        return Notification([], body.number("I") if kind == STATUS_CHANGE else None)

    def history(self) -> History:
        """A result of a history read."""
        status, point = self.number("I"), self.take(self.count())
        kind = self.node_id()
        body = Wire(self.take(self.count()) if self.number("B") else b"")
        values = [body.data_value() for _ in range(body.count())] if kind == HISTORY_DATA else []
        return History(status, point, values)
