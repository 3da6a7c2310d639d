"""OPC UA publish responses into columns: values, stamps and status codes as they come off the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from connectors.base import ARRIVAL_CLOCK, Tally
from connectors.columns import UNUSABLE, ColumnsBuilder, StampWatch, number, plausible
from connectors.opcua.wire import Array, DataValue, Notification, Unread
from connectors.settings import datetime_ns
from fusion.clock import CLOCK
from fusion.errors import SourceError
from fusion.records import Columns, Quality

FIRST_HANDLE = 1
OVERFLOW_BITS = 0x480


def to_ns(stamp: datetime | None) -> int | None:
    """A server's time stamp as UTC nanoseconds; a naive one is UTC."""
    return None if stamp is None else datetime_ns(stamp)


def to_quality(status: int) -> Quality:
    """The severity of a 32-bit status code: 0 good, 1 uncertain, all else bad."""
    return Quality(max(2 - (status >> 30), 0))


class NotificationReader:
    """Turns publish responses of one subscription into columns.

    ``subscribed`` are the tags whose silence is news (unchanged, alive); ``faults`` the tags whose last value was not
    good, with the server's reason; ``newest`` what was last told of each, ``first_ns`` and ``last_ns`` its first and
    last time stamp. Tags named in ``elements`` are at that place of an array. Values without a usable source time are
    stamped by the server's clock or, failing that, by their arrival; each clock makes a batch of its own.
    """

    def __init__(
        self, tags: tuple[str, ...], host: str, tally: Tally, elements: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self._tags = tags
        self._elements = elements or {}
        self._handles = {tag: FIRST_HANDLE + i for i, tag in enumerate(tags)}
        self._clocks = (f"opcua:{host}", f"opcua-server:{host}", ARRIVAL_CLOCK)
        self._history_clock = f"opcua-history:{host}"
        self._tally = tally
        self._stamps = StampWatch(tally)
        self.subscribed: set[str] = set()
        self.faults: dict[str, str] = {}
        self.newest: dict[str, DataValue] = {}
        self.first_ns: dict[str, int] = {}
        self.last_ns: dict[str, int] = {}

    def handle(self, tag: str) -> int:
        """The client handle under which the server reports a tag."""
        return self._handles[tag]

    def columns(self, result: Any) -> list[Columns]:
        """The batches of one publish response; the last one carries the heartbeat.

        Raises:
            SourceError: the server ended the subscription, or the library has lost the connection.
        """
        received_ns = CLOCK.now_ns()
        by_clock: dict[str, ColumnsBuilder] = {}
        for notification in result.NotificationMessage.NotificationData or ():
            if not isinstance(notification, Notification):
                raise SourceError("the connection is lost")
            if notification.ended is not None:
                raise SourceError(f"the server ended the subscription: {status_name(notification.ended)}")
            for handle, data in notification.changes:
                self._add(handle, data, received_ns, by_clock)
        alive = tuple(tag for tag in self._tags if tag in self.subscribed)
        heartbeat_ns = None if result.MoreNotifications or not alive else received_ns
        if alive == self._tags and len(by_clock) == 1:
            return [rows.columns(self._tags, clock, heartbeat_ns) for clock, rows in by_clock.items()]
        found = [rows.columns(self._tags, clock) for clock, rows in by_clock.items()]
        if heartbeat_ns is not None:
            found.append(ColumnsBuilder().columns(alive, self._clocks[0], heartbeat_ns))
        return found

    def _add(self, handle: int, data: DataValue, received_ns: int, by_clock: dict[str, ColumnsBuilder]) -> None:
        index = handle - FIRST_HANDLE
        if not 0 <= index < len(self._tags):
            self._tally.lost["unknown handle"] += 1
            return
        tag = self._tags[index]
        self.newest[tag] = data
        found = self._element(tag, data.value)
        value = number(found)
        quality = int(to_quality(data.status))
        if value is None:
            value, quality = UNUSABLE
        self._note(tag, found, data.status, quality)
        clock, t_ns = self._time(tag, data, received_ns)
        if clock != ARRIVAL_CLOCK and quality != Quality.BAD:
            self._stamps.look(tag, t_ns, value)
        if clock == self._clocks[0]:
            self.first_ns.setdefault(tag, t_ns)
            self.last_ns[tag] = t_ns
        by_clock.setdefault(clock, ColumnsBuilder()).add(index, t_ns, received_ns, value, quality)

    def history(self, tag: str, values: Sequence[DataValue], after_ns: int, before_ns: int) -> Columns:
        """Values of a tag from the server's history, those between two time stamps, as if they had been in time."""
        index, rows, now_ns = self._handles[tag] - FIRST_HANDLE, ColumnsBuilder(), CLOCK.now_ns()
        for data in values:
            t_ns, value = data.source_ns, number(self._element(tag, data.value))
            if t_ns is None or not plausible(t_ns, now_ns) or not after_ns < t_ns < before_ns:
                continue
            usable = UNUSABLE if value is None else (value, int(to_quality(data.status)))
            rows.add(index, t_ns, t_ns, *usable)
        self._tally.noted["from history"] += len(rows.index)
        return replace(rows.columns(self._tags, self._history_clock), replayed=True, backfilled=True)

    def _element(self, tag: str, value: Any) -> Any:
        """The value of a tag, which of an array is the element that the configuration names, and never another."""
        place = self._elements.get(tag)
        if isinstance(value, Array):
            return Unread(f"an array of {len(value.elements)}") if place is None else value.element(place)
        return value if place is None or value is None else Unread("no array, but an element is named")

    def _note(self, tag: str, found: Any, status: int, quality: int) -> None:
        if status & OVERFLOW_BITS == OVERFLOW_BITS:
            self._tally.note("server queue overflow", tag)
        if quality == Quality.GOOD:
            self.faults.pop(tag, None)
            return
        self._tally.note("value not good", tag)
        kind = found.kind if isinstance(found, Unread) else type(found).__name__
        self.faults[tag] = status_name(status) if status >> 30 else f"not a finite number ({kind})"

    def _time(self, tag: str, data: DataValue, received_ns: int) -> tuple[str, int]:
        """The best stamp there is and the clock it came from."""
        for clock, t_ns in zip(self._clocks, (data.source_ns, data.server_ns), strict=False):
            if t_ns is not None and plausible(t_ns, received_ns):
                return clock, t_ns
        self._tally.note("no usable time stamp", tag)
        return ARRIVAL_CLOCK, received_ns


def status_name(status: int) -> str:
    """The name of a status code, without the bits that do not belong to it."""
    from asyncua import ua

    return ua.StatusCode(ua.UInt32(status & 0xFFFF0000)).name
