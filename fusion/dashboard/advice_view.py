"""The view of advice: what became of each, what was promised and delivered, and what would happen if."""

from __future__ import annotations

import html
import secrets
import time
from functools import partial

from nicegui import ui

from fusion.dashboard import charts
from fusion.dashboard.access import Visit
from fusion.dashboard.alarm_record import panel
from fusion.dashboard.board import Board
from fusion.dashboard.cards import Operator
from fusion.dashboard.feed import Feed
from fusion.dashboard.header import silence
from fusion.dashboard.look import Look
from fusion.dashboard.panels import empty, recommendation, table
from fusion.dashboard.strips import Strips
from fusion.dashboard.timebar import HANDS_OFF_S, THROTTLE_S
from fusion.dashboard.words import figure, percent, unit_text, when_text
from fusion.plant import Signal
from fusion.publish.messages import EntryOut, WhatifMessage
from fusion.publish.orders import AnswerMessage, QuestionMessage
from fusion.records import AdviceKind, AnswerKind

REASONS = ("not now", "wrong for the product", "equipment does not allow it", "I do not trust it", "other")
ANSWER_S = 8.0
STEPS = 100
LEAST_MANUAL = 0.005


class AdviceView:
    """One open page's."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit) -> None:
        self._board = board
        with ui.element("div").classes("column-of-panels"):
            with ui.element("div").classes("panel"):
                ui.label("Recommendation of now").classes("title")
                self._advice = ui.html("", sanitize=False)
                self._answers = Answers(board, feed, operator, visit)
            self._ledger = panel("What became of advice, newest first", "scroll tall")
        with ui.element("div").classes("column-of-panels"):
            self._ahead = WhatIf(board, feed, operator, visit)

    def refresh(self, look: Look) -> None:
        """Follow the board."""
        self._advice.set_content(recommendation(self._board, look))
        self._answers.refresh()
        self._ledger.set_content(ledger(self._board, look))
        self._ahead.refresh(look)


class Answers:
    """Buttons that accept the advice of now, or reject it with a reason."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit) -> None:
        self._board, self._feed, self._operator, self._visit = board, feed, operator, visit
        self._sent: dict[str, str] = {}
        with ui.element("div").classes("orders") as self._row:
            self._accept = ui.button("Accept", on_click=partial(self._say, AnswerKind.ACCEPTED, ""), color=None)
            self._accept.props("flat dense no-caps")
            with ui.button("Reject", color=None).props("flat dense no-caps"), ui.menu():
                for reason in REASONS:
                    ui.menu_item(reason, partial(self._say, AnswerKind.REJECTED, reason))
            self._note = ui.label("").classes("note").props('role="status"')

    def refresh(self) -> None:
        """There are buttons while there is an advice to answer."""
        advice, board = self._board.advice, self._board
        open_now = advice is not None and advice.verdict != "hold" and advice.valid_until_ns > board.now_ns
        self._row.set_visibility(open_now and self._visit.may_order)
        entry = next((e for e in self._entries() if advice and e.id == advice.id), None)
        if entry and entry.state not in ("open", "withdrawn"):
            self._note.set_text(f"{entry.state} by {entry.by}" if entry.by else entry.state)
        elif advice is not None:
            self._note.set_text(self._sent.get(advice.id, ""))

    def _entries(self) -> list[EntryOut]:
        return self._board.ledger.entries if self._board.ledger else []

    def _say(self, answer: AnswerKind, reason: str) -> None:
        advice = self._board.advice
        if advice is None:
            return
        if hindrance := hindrance_of(self._board, self._feed, self._operator, self._visit):
            self._note.set_text(hindrance)
            return
        said = AnswerMessage(id=advice.id, answer=answer, reason=reason, by=self._operator.name)
        self._feed.answer(self._board.name, said)
        self._sent = {advice.id: f"{answer}: sent"}
        self._note.set_text(self._sent[advice.id])


def hindrance_of(board: Board, feed: Feed, operator: Operator, visit: Visit) -> str:
    """What stands in the way of saying something to the daemon, "" where nothing does."""
    if not visit.may_order:
        return "Nothing was sent: this login may look, not order."
    if not operator.name:
        operator.ask()
        return "Your name is needed: give it at the top of the page, then press again."
    if not feed.connected or silence(board):
        return "Nothing was sent: the daemon cannot be reached."
    return ""


def _change(entry: EntryOut) -> str:
    moves = "; ".join(
        f"{m.signal} {figure(m.current)} \N{RIGHTWARDS ARROW} {figure(m.recommended)}" for m in entry.moves
    )
    return f"back: {moves}" if entry.kind == AdviceKind.RETURN else moves


def ledger(board: Board, look: Look) -> str:
    """Promised beside delivered."""
    entries = board.ledger.entries if board.ledger else []
    rows = [
        (
            when_text(e.t_ns, board.now_ns, look.zone),
            _change(e),
            " ".join(filter(None, (e.state, f"by {e.by}" if e.by else "", f"({e.reason})" if e.reason else ""))),
            f"{figure(e.promised.expected)} ({figure(e.promised.low)} .. {figure(e.promised.high)})",
            e.note if e.delivered is None else figure(e.delivered),
            "-" if e.within is None else percent(e.within),
        )
        for e in reversed(entries)
    ]
    manual = in_manual(board)
    if not rows:
        return manual + empty("no advice has been given yet")
    told = [e for e in entries if e.delivered is not None]
    promised, delivered = sum(e.promised.expected or 0.0 for e in told), sum(e.delivered or 0.0 for e in told)
    whole = f"{len(told)} of {len(entries)} were applied and have come to their end: promised {figure(promised)}, "
    note = f'<div class="muted">{whole}delivered {figure(delivered)} cost units an hour</div>' if told else ""
    return (
        manual + note + table(("when", "change", "what became of it", "#promised", "#delivered", "#in its band"), rows)
    )


def in_manual(board: Board) -> str:
    """Loops that did not take a setpoint all day: what they were not ready for cannot be advice's fault."""
    shares = board.ledger.manual if board.ledger else {}
    told = [f"{html.escape(name)} {percent(share)}" for name, share in shares.items() if share >= LEAST_MANUAL]
    return f'<div class="muted">in manual, of the last day: {", ".join(told)}</div>' if told else ""


class WhatIf:
    """A slider for each signal that can be moved, and both courses as the daemon answers."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit) -> None:
        self._board, self._feed, self._operator, self._visit = board, feed, operator, visit
        self._values: dict[str, float] = {}
        self._sliders: dict[str, ui.slider] = {}
        self._labels: dict[str, ui.label] = {}
        self._asked, self._asked_s, self._touched_s = "", 0.0, 0.0
        with ui.element("div").classes("panel whatif"):
            ui.label("What if").classes("title")
            signals = board.plant.actions if board.plant else ()
            for signal in signals:
                self._slider(signal)
            with ui.element("div").classes("orders"):
                ui.button("Back to now", on_click=self._reset, color=None).props("flat dense no-caps")
                self._note = ui.label("").classes("note").props('role="status"')
            self._said = ui.html("" if signals else empty("nothing can be moved"), sanitize=False)
            self._chart = Strips().props('role="img" aria-label="what if"')

    def _slider(self, signal: Signal) -> None:
        low, high = signal.low or 0.0, signal.high or 0.0
        with ui.element("div").classes("what"):
            ui.label(f"{signal.name} {signal.description}").classes("name")
            slider = ui.slider(min=low, max=high, step=(high - low) / STEPS).props(f'dense aria-label="{signal.name}"')
            slider.on("update:model-value", self._touched, throttle=THROTTLE_S)
            slider.on("change", partial(self._moved, signal.name))
            self._sliders[signal.name] = slider
            self._labels[signal.name] = ui.label("").classes("num")

    def _touched(self) -> None:
        self._touched_s = time.monotonic()

    def _moved(self, name: str, event: object) -> None:
        value = getattr(event, "args", None)
        if isinstance(value, int | float):
            self._values[name] = float(value)
            self._ask()

    def _reset(self) -> None:
        self._values, self._asked = {}, ""
        self._note.set_text("")
        self._said.set_content("")

    def _ask(self) -> None:
        if hindrance := hindrance_of(self._board, self._feed, self._operator, self._visit):
            self._note.set_text(hindrance)
            return
        self._asked, self._asked_s = f"page-{secrets.token_hex(6)}", time.monotonic()
        question = QuestionMessage(id=self._asked, moves=dict(self._values), by=self._operator.name)
        self._feed.ask(self._board.name, question)
        self._note.set_text("asked")

    def refresh(self, look: Look) -> None:
        """Follow the board: sliders that nobody moves or has moved stand where the plant is."""
        held = time.monotonic() - self._touched_s < HANDS_OFF_S
        for name, slider in self._sliders.items():
            value = self._values.get(name, self._board.value(name))
            if value is not None and slider.value != value and not held:
                slider.set_value(value)
            mark = "" if name not in self._values else " (moved)"
            self._labels[name].set_text(f"{figure(value)} {unit_text(self._board.unit(name))}{mark}")
        answer = self._board.answers.get(self._asked)
        if answer is not None:
            self._note.set_text("")
            self._said.set_content(answered(answer))
        elif self._asked and time.monotonic() - self._asked_s > ANSWER_S:
            self._note.set_text("asked, but the daemon has not answered")
        self._chart.show(charts.prospect_options(self._board, answer if self._asked else None, look))


def answered(answer: WhatifMessage) -> str:
    """An answer in words and numbers."""
    if answer.verdict == "refused":
        return empty(f"no answer: {answer.text or answer.reason}")
    rows = [
        (nothing.signal, figure(_last(nothing.mean)), _band(moved.mean, moved.low, moved.high), unit_text(nothing.unit))
        for moved, nothing in zip(answer.if_moved, answer.if_nothing, strict=False)
    ]
    notes = []
    if answer.gain:
        gain = answer.gain
        notes.append(f"saves {figure(gain.expected)} ({figure(gain.low)} .. {figure(gain.high)}) cost units an hour")
    notes += [f"reaches {', '.join(answer.binding)}"] if answer.binding else []
    notes += [f"without {', '.join(answer.stale)}"] if answer.stale else []
    if answer.support is not None:
        notes.append(f"{figure(answer.support)} of the way to the border of what the model was trained in")
    return table(("at the end", "#if nothing", "#if moved", ""), rows) + f"<div>{'; '.join(notes)}</div>"


def _last(values: list[float | None]) -> float | None:
    return values[-1] if values else None


def _band(mean: list[float | None], low: list[float | None], high: list[float | None]) -> str:
    return f"{figure(_last(mean))} ({figure(_last(low))} .. {figure(_last(high))})"
