"""OPC UA publish responses into columns: values, stamps and status codes as they come off the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from connectors.base import ARRIVAL_CLOCK, Tally
from connectors.columns import UNUSABLE, ColumnsBuilder, number, plausible
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
    good, with the server's reason. Values without a usable source time are stamped by the server's clock or, failing
    that, by their arrival; each clock makes a batch of its own.
    """

    def __init__(self, tags: tuple[str, ...], host: str, tally: Tally) -> None:
        self._tags = tags
        self._handles = {tag: FIRST_HANDLE + i for i, tag in enumerate(tags)}
        self._clocks = (f"opcua:{host}", f"opcua-server:{host}", ARRIVAL_CLOCK)
        self._tally = tally
        self.subscribed: set[str] = set()
        self.faults: dict[str, str] = {}

    def handle(self, tag: str) -> int:
        """The client handle under which the server reports a tag."""
        return self._handles[tag]

    def columns(self, result: Any) -> list[Columns]:
        """The batches of one publish response; the last one carries the heartbeat.

        Raises:
            SourceError: the server ended the subscription.
        """
        received_ns = CLOCK.now_ns()
        by_clock: dict[str, ColumnsBuilder] = {}
        for notification in result.NotificationMessage.NotificationData or ():
            if hasattr(notification, "MonitoredItems"):
                for item in notification.MonitoredItems:
                    self._add(item, received_ns, by_clock)
            elif hasattr(notification, "Status"):
                raise SourceError(f"the server ended the subscription: {notification.Status.name}")
        alive = tuple(tag for tag in self._tags if tag in self.subscribed)
        heartbeat_ns = None if result.MoreNotifications or not alive else received_ns
        if alive == self._tags and len(by_clock) == 1:
            return [rows.columns(self._tags, clock, heartbeat_ns) for clock, rows in by_clock.items()]
        found = [rows.columns(self._tags, clock) for clock, rows in by_clock.items()]
        if heartbeat_ns is not None:
            found.append(ColumnsBuilder().columns(alive, self._clocks[0], heartbeat_ns))
        return found

    def _add(self, item: Any, received_ns: int, by_clock: dict[str, ColumnsBuilder]) -> None:
        index = item.ClientHandle - FIRST_HANDLE
        if not 0 <= index < len(self._tags):
            self._tally.lost["unknown handle"] += 1
            return
        data = item.Value
        status = data.StatusCode.value if data.StatusCode is not None else 0
        value, quality = self._value(data, to_quality(status))
        self._note(self._tags[index], data, status, quality)
        clock, t_ns = self._time(data, received_ns)
        by_clock.setdefault(clock, ColumnsBuilder()).add(index, t_ns, received_ns, value, quality)

    def _value(self, data: Any, quality: Quality) -> tuple[float, int]:
        value = number(data.Value.Value if data.Value is not None else None)
        if value is not None:
            return value, int(quality)
        return UNUSABLE

    def _note(self, tag: str, data: Any, status: int, quality: int) -> None:
        if status & OVERFLOW_BITS == OVERFLOW_BITS:
            self._tally.noted["server queue overflow"] += 1
        if quality == Quality.GOOD:
            self.faults.pop(tag, None)
            return
        self._tally.noted["value not good"] += 1
        kind = type(getattr(data.Value, "Value", None)).__name__
        self.faults[tag] = data.StatusCode.name if status >> 30 else f"not a finite number ({kind})"

    def _time(self, data: Any, received_ns: int) -> tuple[str, int]:
        """The best stamp there is and the clock it came from."""
        for clock, stamp in zip(self._clocks, (data.SourceTimestamp, data.ServerTimestamp), strict=False):
            t_ns = to_ns(stamp)
            if t_ns is not None and plausible(t_ns, received_ns):
                return clock, t_ns
        self._tally.noted["no usable time stamp"] += 1
        return ARRIVAL_CLOCK, received_ns
