"""The form in which an operator says what a stretch of time was."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from nicegui import ui

from fusion.alarms import MarkKind
from fusion.dashboard.access import Visit
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.cards import Operator
from fusion.dashboard.feed import Feed
from fusion.dashboard.header import silence
from fusion.dashboard.look import PLAIN, Look
from fusion.dashboard.sight import Sight
from fusion.publish.orders import MarkOrderMessage
from fusion.records import NS_PER_S

KINDS = {
    MarkKind.FAULT.value: "a fault: not learned from",
    MarkKind.MAINTENANCE.value: "maintenance: not learned from",
    MarkKind.GOOD.value: "good: learned from, whatever alarms say",
}
ANSWER_S = 6.0
NOTE_LENGTH = 120
SECONDS = "%Y-%m-%dT%H:%M:%S"


class Marking:
    """A button with its form; says what became of the last mark."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit, archive: Archive | None) -> None:
        self._board, self._feed, self._operator, self._visit, self._archive = board, feed, operator, visit, archive
        self._look, self._sight = PLAIN, Sight(board.window_s)
        self._waiting: tuple[MarkOrderMessage, float, int] | None = None
        self._button = ui.button("Mark this time", on_click=self._open, color=None).props("flat dense no-caps")
        self._outcome = ui.label("").classes("note").props('role="status"')
        with ui.dialog() as self._dialog, ui.card().classes("form"):
            ui.label("What was this time?").classes("title")
            self._kind = ui.radio(KINDS, value=MarkKind.FAULT.value).props("dense")
            self._note = ui.input("what happened, in a word or two").props(f"dense outlined maxlength={NOTE_LENGTH}")
            self._since = _moment("from")
            self._until = _moment("to; empty while it still is so")
            self._hindrance = ui.label("").classes("note").props('role="alert"')
            with ui.element("div").classes("orders"):
                ui.button("Mark", on_click=self._send, color=None).props("flat dense no-caps")
                ui.button("Cancel", on_click=self._dialog.close, color=None).props("flat dense no-caps")

    def refresh(self, look: Look, sight: Sight) -> None:
        """Follow the page."""
        self._look, self._sight = look, sight
        self._button.set_visibility(self._visit.may_order)
        self._hear()

    def _open(self) -> None:
        now_ns = self._board.now_ns
        since_ns, until_ns = self._sight.span_ns(now_ns)
        at_ns = now_ns if self._sight.at_ns is None else self._sight.at_ns
        self._since.set_value(self._local(at_ns if since_ns < at_ns < until_ns else since_ns))
        self._until.set_value("" if self._sight.live else self._local(until_ns))
        self._hindrance.set_text("")
        self._dialog.open()

    def _local(self, t_ns: int) -> str:
        return datetime.fromtimestamp(t_ns // NS_PER_S, self._look.zone).strftime(SECONDS)

    def _ns(self, text: str) -> int | None:
        """A moment as it stands in the form; None where it is empty.

        Raises:
            ValueError: where it is none.
        """
        if not text.strip():
            return None
        moment = datetime.fromisoformat(text.strip()).replace(tzinfo=self._look.zone).astimezone(UTC)
        return round(moment.timestamp()) * NS_PER_S

    def _send(self) -> None:
        try:
            since_ns, until_ns = self._ns(self._since.value or ""), self._ns(self._until.value or "")
        except (ValueError, OverflowError):
            self._hindrance.set_text("A time is not accepted; expected such as 2026-11-30 14:05:00.")
            return
        name = str(self._note.value or "").strip()
        if hindrance := self._stands_in_the_way(name, since_ns, until_ns):
            self._hindrance.set_text(hindrance)
            return
        order = MarkOrderMessage(
            name=name, kind=self._kind.value, by=self._operator.name, t_from_ns=since_ns, t_to_ns=until_ns
        )
        self._feed.mark(self._board.name, order)
        self._waiting = order, time.monotonic(), self._board.refusals("mark")
        self._outcome.set_text(f"{name}: sent")
        self._dialog.close()

    def _stands_in_the_way(self, name: str, since_ns: int | None, until_ns: int | None) -> str:
        if not self._visit.may_order:
            return "Nothing was sent: this login may look, not order."
        if not name:
            return "Say in a word or two what happened."
        if not self._operator.name:
            return "Your name is needed: give it at the top of the page."
        if since_ns is not None and until_ns is not None and until_ns <= since_ns:
            return "It ends before it begins."
        if not self._feed.connected or silence(self._board):
            return "Nothing was sent: the daemon cannot be reached."
        return ""

    def _hear(self) -> None:
        """Say what became of the last mark: it stands in the journal, or the daemon counts one more that it refused."""
        if self._waiting is None:
            return
        order, sent_s, refused = self._waiting
        if self._board.refusals("mark") > refused:
            self._end(f"{order.name}: refused by the daemon; its log says why")
        elif self._archive is not None and any(
            (m.name, m.by, m.kind.value) == (order.name, order.by, order.kind) for m in self._archive.all_marks()
        ):
            self._end(f"{order.name}: marked")
        elif time.monotonic() - sent_s > ANSWER_S:
            blind = self._archive is None
            self._end(
                f"{order.name}: sent; this page reads no recordings, so it cannot see it"
                if blind
                else f"{order.name}: sent, but it is not in the recordings yet"
            )

    def _end(self, text: str) -> None:
        self._waiting = None
        self._outcome.set_text(text)


def _moment(label: str) -> ui.input:
    return ui.input(label).props('dense outlined type="datetime-local" step=1 stack-label')
