"""The alarm list of one open page, with what an operator may do, and the name that is said with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from nicegui import ui

from fusion.alarms import ASIDE, OrderKind
from fusion.dashboard import alarms
from fusion.dashboard.access import Visit
from fusion.dashboard.alarms import Entry
from fusion.dashboard.board import Board
from fusion.dashboard.feed import Feed
from fusion.dashboard.header import silence
from fusion.dashboard.look import Look
from fusion.publish.messages import AlarmOut
from fusion.publish.orders import AlarmOrderMessage

SHELVE_S = 3600.0
ANSWER_S = 6.0
SURE_S = 6.0
NAME_KEY = "fusion.operator"
NAME_LENGTH = 40
RECALL_S = 10.0
LABELS = {
    OrderKind.ACKNOWLEDGE: "Acknowledge",
    OrderKind.SHELVE: "Shelve 1 h",
    OrderKind.UNSHELVE: "Unshelve",
    OrderKind.NORMAL: "This is normal",
    OrderKind.FAULT: "A fault",
    OrderKind.MAINTENANCE: "Maintenance",
}
LOGOUT_BUTTON = '<form method="post" action="/logout"><button class="logout">Log out</button></form>'
MORE_LABEL = "Expected, seen and why"
SURE_LABEL = "Sure? Judge by this from now on"


class Operator:
    """Who sits at this browser: who logged in or, without a login, as they say themselves, asked once and kept."""

    def __init__(self, person: str = "") -> None:
        self._person = person
        if person:
            ui.label(person).classes("operator")
            ui.html(LOGOUT_BUTTON, sanitize=False)
            return
        self._input = (
            ui.input(placeholder="your name", on_change=self._keep)
            .props(f'dense outlined maxlength={NAME_LENGTH} aria-label="your name"')
            .classes("operator")
        )
        ui.timer(0, self._recall, once=True)

    @property
    def name(self) -> str:
        """The name, "" while nobody gave one."""
        return self._person or str(self._input.value or "").strip()

    def ask(self) -> None:
        """Put the cursor where the name belongs."""
        self._input.run_method("focus")

    async def _recall(self) -> None:
        try:
            kept = await ui.run_javascript(f"localStorage.getItem({json.dumps(NAME_KEY)})", timeout=RECALL_S)
        except TimeoutError:
            return
        if kept and not self.name:
            self._input.set_value(str(kept)[:NAME_LENGTH])

    def _keep(self) -> None:
        ui.run_javascript(f"localStorage.setItem({json.dumps(NAME_KEY)}, {json.dumps(self.name)})")


class AlarmList:
    """Cards of what is not normal, those that are put aside folded below, and what is over."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit, pick: Callable[[str], None]) -> None:
        self._board = board
        self._visit = visit
        self._pick = pick
        self._send = OperatorOrders(board, feed, operator, visit)
        self._cards: dict[str, _Card] = {}
        self._places: list[tuple[str, bool]] = []
        with ui.element("div").classes("panel grow alarms"):
            ui.label("Alarms").classes("title")
            self._calm = ui.html("", sanitize=False)
            self._open = ui.element("div")
            with ui.element("details").classes("folded") as self._fold:
                with ui.element("summary"):
                    self._count = ui.label("")
                self._aside = ui.element("div")
            self._over = ui.html("", sanitize=False)

    def refresh(self, look: Look, old: bool = False) -> None:
        """Follow the board; ``old`` where the daemon is not heard now."""
        listed = alarms.entries(self._board)
        self._calm.set_content(alarms.calm(self._board, old))
        self._over.set_content(alarms.cleared(self._board, look))
        self._arrange(listed)
        for place, entry in enumerate(listed):
            choice = len(listed) > 1 or not entry.standing
            card = self._cards[entry.id]
            card.refresh(entry, self._visit.may_order, look, choice)
            card.unfold(place == 0 or look.picked == entry.id)
        states = [entry.state for entry in listed]
        aside = [f"{state.value}: {count}" for state in ASIDE if (count := states.count(state))]
        self._fold.set_visibility(bool(aside))
        self._count.set_text(", ".join(aside).capitalize())

    def _arrange(self, listed: list[Entry]) -> None:
        """Make, remove and move cards so that one that stays is the same element of the page."""
        places = [(entry.id, entry.aside) for entry in listed]
        if places == self._places:
            return
        self._places = places
        for gone in self._cards.keys() - {entry.id for entry in listed}:
            self._cards.pop(gone).root.delete()
        rooms = {False: 0, True: 0}
        for entry in listed:
            if entry.id not in self._cards:
                with self._open:
                    self._cards[entry.id] = _Card(self._board, entry.id, self._send, self._pick)
            self._cards[entry.id].root.move(self._aside if entry.aside else self._open, rooms[entry.aside])
            rooms[entry.aside] += 1


class OperatorOrders:
    """The way of an operator's word to the daemon."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit) -> None:
        self._board = board
        self._feed = feed
        self._operator = operator
        self._visit = visit

    def __call__(self, alarm_id: str, order: OrderKind) -> str:
        """Send an order; what stands in its way, or "" when it is on its way."""
        if not self._visit.may_order:
            return "Nothing was sent: this login may look, not order."
        if not self._operator.name:
            self._operator.ask()
            return "Your name is needed: give it at the top of the page, then press again."
        if not self._feed.connected or silence(self._board):
            return "Nothing was sent: the daemon cannot be reached."
        for_s = SHELVE_S if order is OrderKind.SHELVE else 0.0
        said = AlarmOrderMessage(id=alarm_id, order=order, by=self._operator.name, for_s=for_s)
        self._feed.order(self._board.name, said)
        return ""


class _Card:
    """One alarm with its buttons; says when an order has not been answered."""

    def __init__(
        self,
        board: Board,
        alarm_id: str,
        send: Callable[[str, OrderKind], str],
        pick: Callable[[str], None],
    ) -> None:
        self._board = board
        self._id = alarm_id
        self._send = send
        self._waiting: tuple[OrderKind, AlarmOut | None] | None = None
        self._pressed_s = 0.0
        self._sure_until_s = 0.0
        self._level = ""
        with ui.element("div").classes("anomaly") as self.root:
            self._head = ui.html("", sanitize=False)
            with ui.element("div").classes("orders"):
                self._buttons = {order: self._button(order) for order in LABELS}
                self._trends = ui.button("Its trends", on_click=lambda: pick(alarm_id), color=None)
                self._trends.props("flat dense no-caps")
                self._note = ui.label("").classes("note").props('role="status"')
            with ui.element("details").classes("folded") as self._more:
                with ui.element("summary"):
                    ui.label(MORE_LABEL)
                self._body = ui.html("", sanitize=False)

    def unfold(self, wanted: bool) -> None:
        """Show why at once, or on a press; where that changes nothing, it stays as somebody has left it."""
        self._more.props(add="open") if wanted else self._more.props(remove="open")

    def _button(self, order: OrderKind) -> ui.button:
        press = self._press_normal if order is OrderKind.NORMAL else lambda: self._press(order)
        return ui.button(LABELS[order], on_click=press, color=None).props("flat dense no-caps")

    def _press_normal(self) -> None:
        """Ask once more: what is accepted as normal raises no alarm again."""
        if time.monotonic() < self._sure_until_s:
            self._sure_until_s = 0.0
            self._press(OrderKind.NORMAL)
        else:
            self._sure_until_s = time.monotonic() + SURE_S
        self._name_normal()

    def _name_normal(self) -> None:
        sure = time.monotonic() < self._sure_until_s
        self._buttons[OrderKind.NORMAL].set_text(SURE_LABEL if sure else LABELS[OrderKind.NORMAL])

    def _press(self, order: OrderKind) -> None:
        hindrance = self._send(self._id, order)
        self._pressed_s = time.monotonic()
        self._waiting = None if hindrance else (order, self._board.alarms.get(self._id))
        self._note.set_text(hindrance or f"{LABELS[order]}: sent")

    def refresh(self, entry: Entry, may_order: bool, look: Look, choice: bool) -> None:
        """Follow the alarm; ``choice`` is whether the trends may show others than those of this one."""
        self._trends.set_visibility(choice)
        picked = look.picked == entry.id
        self._trends.props(f"aria-pressed={str(picked).lower()}")
        if entry.state.value != self._level:
            self.root.classes(remove=self._level or None, add=entry.state.value)
            self._level = entry.state.value
        self._head.set_content(alarms.head(self._board, entry, look))
        self._body.set_content(alarms.body(self._board, entry, look))
        possible = _possible(entry) if may_order else set()
        for order, button in self._buttons.items():
            button.set_visibility(order in possible)
        self._name_normal()
        self._hear()

    def _hear(self) -> None:
        """Say what became of the last press, until the alarm shows it."""
        late = time.monotonic() - self._pressed_s > ANSWER_S
        if self._waiting is None:
            self._note.set_text("" if late else self._note.text)
            return
        order, before = self._waiting
        if self._board.alarms.get(self._id) != before:
            self._waiting = None
            self._note.set_text("")
        elif late:
            self._note.set_text(f"{LABELS[order]}: sent, but the daemon has not answered")


def _possible(entry: Entry) -> set[OrderKind]:
    """What may be done with an alarm as it is."""
    found = set()
    acknowledged = entry.alarm is not None and entry.alarm.t_acknowledged_ns is not None
    if not acknowledged:
        found.add(OrderKind.ACKNOWLEDGE)
    if entry.shelved:
        found.add(OrderKind.UNSHELVE)
    elif entry.standing:
        found.add(OrderKind.SHELVE)
    if entry.alarm and entry.alarm.accepted_by:
        return found
    if entry.standing:
        found.add(OrderKind.NORMAL)
    called = entry.alarm.called if entry.alarm else ""
    return found | {order for order in (OrderKind.FAULT, OrderKind.MAINTENANCE) if order.value != called}
