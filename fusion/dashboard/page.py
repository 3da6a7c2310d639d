"""The layout of the one page, and what one second changes on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from fusion.dashboard import alarms, charts, header, panels
from fusion.dashboard.access import Visit
from fusion.dashboard.advice_view import AdviceView, Answers
from fusion.dashboard.alarm_record import AlarmRecord
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.cards import AlarmList, Operator
from fusion.dashboard.feed import Feed
from fusion.dashboard.gate import LOGIN
from fusion.dashboard.look import ASK, PLAIN, WATCH, look_of
from fusion.dashboard.lookback import LookBack
from fusion.dashboard.marking import Marking
from fusion.dashboard.media import MediaTiles
from fusion.dashboard.mimic import Mimic, below
from fusion.dashboard.model_view import ModelView
from fusion.dashboard.progression import progression
from fusion.dashboard.strips import Strips
from fusion.dashboard.timebar import TimeBar, sight_text

log = logging.getLogger(__name__)

VIEWS = ("Plant", "Alarm record", "Advice", "Model")
EXTRA_SHOWN = 3
ACCUSED_SHOWN = 3
REFRESH_S = 1.0
ANSWER_S = 10.0
FAULT_RAMP_S = 10.0


class Pulse(Element, component="pulse.js"):
    """Tells the browser that the server is there; the browser says by itself when it is not."""

    def beat(self) -> None:
        """A sign of life."""
        self.run_method("beat")


class Page:
    """One open browser page over the shared board."""

    def __init__(
        self, board: Board, feed: Feed, archive: Archive | None, models: Path | None, future_s: float, visit: Visit
    ) -> None:
        self._board = board
        self._archive = archive
        self._feed = feed
        self._visit = visit
        self._future_s = future_s
        self._look = PLAIN
        self._past = charts.NOTHING
        self._selected: list[str] = []
        self._client = ui.context.client
        self._back = LookBack(board, archive, self._seen)
        self._head()
        self._views = Views(VIEWS, self.refresh)
        with self._views.view("Plant"):
            with ui.element("div").classes("panel overview"):
                self._mimic = Mimic(board, self._add)
                self._below = ui.html("", sanitize=False).classes("below")
            with _column():
                self._trends()
                self._media = MediaTiles()
            with _column().classes("first"):
                self._alarms = AlarmList(board, feed, self._operator, visit, self._pick)
                self._drifts = _panel("Slow drifts")
                self._surprise, self._unexplained = self._chart("How unusual, by sense")
            with _column():
                with ui.element("div").classes("panel"):
                    ui.label("Recommendation").classes("title")
                    self._advice = ui.html("", sanitize=False)
                    self._answers = Answers(board, feed, self._operator, visit)
                self._sources = _panel("Sources and daemon")
                self._faults = Faults(board, feed, visit)
        with self._views.view("Alarm record"):
            self._record = AlarmRecord(board, archive, self._look_at)
        with self._views.view("Advice"):
            self._ahead = AdviceView(board, feed, self._operator, visit)
        with self._views.view("Model"):
            self._model = ModelView(board, feed, self._operator, visit, models)
        ui.on("look", self._hear_look)
        ui.timer(0, self._ask_look, once=True)
        ui.timer(REFRESH_S, self.refresh)

    async def _ask_look(self) -> None:
        try:
            self._take_look(await ui.run_javascript(f"{WATCH}; return {ASK}", timeout=ANSWER_S))
        except TimeoutError:
            log.info("a browser does not say in which time zone it is")

    def _hear_look(self, event: GenericEventArguments) -> None:
        self._take_look(event.args)

    def _take_look(self, said: Any) -> None:
        if isinstance(said, dict):
            self._look = look_of(said, self._look)
            self._views.follow(str(said.get("view")))
            self.refresh()

    def _seen(self) -> None:
        """Something that was fetched is there."""
        if not self._client.is_deleted:
            self.refresh()

    def _pick(self, alarm_id: str) -> None:
        self._look = replace(self._look, picked="" if self._look.picked == alarm_id else alarm_id)
        self.refresh()

    def _head(self) -> None:
        with ui.element("div").classes("head"):
            self._facts = ui.html("", sanitize=False).classes("facts")
            self._operator = Operator(self._visit.name)
            self._clock = ui.label("").classes("clock")
        self._banner = ui.label("").classes("banner").mark("banner").props('role="alert"')
        self._pulse = Pulse()

    def _trends(self) -> None:
        with ui.element("div").classes("panel"):
            with ui.element("div").classes("titlebar"):
                ui.label("Trends").classes("title")
                ui.space()
                ui.label("more tags").classes("muted")
                self._choice = ui.select(
                    self._choices(), multiple=True, on_change=lambda e: self._select(e.value)
                ).props('dense options-dense use-chips max-values=3 aria-label="more tags"')
            with ui.element("div").classes("titlebar wraps"):
                self._bar = TimeBar(self._board, self.refresh)
                self._moment = ui.label("").classes("when").props('role="status"')
                self._marking = Marking(self._board, self._feed, self._operator, self._visit, self._archive)
            self._trend = self._strips("Trends")
            self._keys = ui.html("", sanitize=False).classes("legend")

    def _strips(self, title: str) -> Strips:
        chart = Strips().props(f'role="img" aria-label="{title}"')
        chart.on("zoom", self._bar.zoomed)
        chart.on("at", self._bar.pointed)
        return chart

    def _chart(self, title: str) -> tuple[Strips, ui.html]:
        with ui.element("div").classes("panel"):
            ui.label(title).classes("title")
            return self._strips(title), ui.html("", sanitize=False)

    def _choices(self) -> dict[str, str]:
        board = self._board
        return {name: board.named(name) for name in board.others()}

    def _select(self, names: list[str]) -> None:
        self._selected = list(names)[:EXTRA_SHOWN]
        self._draw_trend()

    def refresh(self) -> None:
        """Bring the page up to date with the board."""
        if self._visit.person is None:
            ui.navigate.to(LOGIN)
            return
        self._pulse.beat()
        board, look = self._board, self._look
        broker = self._broker()
        self._facts.set_content(header.header(board, broker))
        self._clock.set_text(header.clock(board, look))
        warning = broker or header.silence(board, look)
        self._banner.set_text(warning)
        self._banner.set_visibility(bool(warning))
        if look.hidden:
            return
        self._views.refresh(old=bool(warning))
        match self._views.shown:
            case "Plant":
                self._refresh_plant(old=bool(warning))
            case "Alarm record":
                self._record.refresh(look)
            case "Advice":
                self._ahead.refresh(look)
            case "Model":
                self._model.refresh(look)

    def _refresh_plant(self, *, old: bool) -> None:
        board, look = self._board, self._look
        self._mimic.refresh()
        self._below.set_content(below(board, old))
        if self._choice.options != (choices := self._choices()):
            self._choice.set_options(choices)
        self._draw_trend()
        self._surprise.show(charts.surprise_options(board, look, self._past))
        self._bar.refresh()
        shown = sight_text(self._bar.sight, board.now_ns, look)
        self._moment.set_text(f"{shown}, reading" if self._back.busy else shown)
        self._marking.refresh(look, self._bar.sight)
        self._unexplained.set_content(alarms.unexplained(board))
        self._alarms.refresh(look, old)
        self._drifts.set_content(progression(board, look))
        self._advice.set_content(panels.recommendation(board, look))
        self._answers.refresh()
        self._sources.set_content(panels.sources(board, old))
        self._media.refresh(board, self._back.scene(self._bar.sight))
        self._faults.refresh()

    def _look_at(self, t_ns: int) -> None:
        """Have the trends look at a moment."""
        self._views.show("Plant")
        self._bar.show(self._bar.sight.at(t_ns, self._board.now_ns))

    def _add(self, name: str) -> None:
        """Put a tag among the trends, or take it out."""
        if name in self._choices():
            rest = [other for other in self._selected if other != name]
            wanted = rest if name in self._selected else [*rest, name][-EXTRA_SHOWN:]
            self._choice.set_value(wanted)

    def _broker(self) -> str:
        """What is wrong with the connection to the broker and since when, "" where nothing is."""
        if self._feed.connected:
            return ""
        lost_s = self._feed.lost_s
        last = f", last there at {header.since(lost_s, self._look)}" if lost_s is not None else ""
        return f"{self._feed.message}{last}; what is shown is the last that was known"

    def _draw_trend(self) -> None:
        """The first few tags that an alarm accuses, the controlled ones, and those that were chosen; else the first."""
        accused = alarms.accused(self._board, self._look.picked)
        shown = dict(list(accused.items())[:ACCUSED_SHOWN])
        names = charts.trend_names(self._board, shown, self._selected)
        self._past = self._back.past(names, self._bar.sight, self._future_s)
        option = charts.trend_options(self._board, names, self._future_s, shown, self._look, self._past)
        self._trend.show(option)
        self._keys.set_content(charts.legend(option))


class Views:
    """Which part of the page is shown, as its address says behind a #; only that is brought up to date."""

    def __init__(self, names: Sequence[str], changed: Callable[[], None]) -> None:
        self.shown = names[0]
        self._names = names
        self._changed = changed
        self._parts: dict[str, ui.element] = {}
        with ui.element("nav").classes("views").props('aria-label="views"'):
            self._buttons = {name: _button(name, partial(self._choose, name)) for name in names}

    def view(self, name: str) -> ui.element:
        """The part of this name, to be filled."""
        self._parts[name] = ui.element("div").classes(f"board {name.split(maxsplit=1)[0].lower()}")
        return self._parts[name]

    def refresh(self, *, old: bool) -> None:
        """Show what is to be shown; ``old`` where it is the last that was known."""
        for name, part in self._parts.items():
            part.set_visibility(name == self.shown)
            part.classes(add="old") if old else part.classes(remove="old")
            self._buttons[name].props(f"aria-pressed={str(name == self.shown).lower()}")

    def follow(self, address: str) -> None:
        """Show what an address names; the first where it names nothing."""
        self.shown = next((name for name in self._names if _anchor(name) == address), self._names[0])

    def show(self, name: str) -> None:
        """Show a part, and have the address of the page name it."""
        if name != self.shown:
            self.shown = name
            ui.run_javascript(f"history.pushState(null, '', '#{_anchor(name)}')")

    def _choose(self, name: str) -> None:
        self.show(name)
        self._changed()


class Faults:
    """Buttons that make a simulated plant fail; there only while a simulated plant says it is."""

    def __init__(self, board: Board, feed: Feed, visit: Visit) -> None:
        self._board = board
        self._feed = feed
        self._visit = visit
        self._buttons: dict[str, ui.button] = {}
        with ui.element("div").classes("panel") as self._panel:
            ui.label("Simulated plant: faults").classes("title")
            self._row = ui.element("div").classes("faults")
        self._panel.set_visibility(False)

    def refresh(self) -> None:
        """Follow the plant's status."""
        simulator = self._board.simulator
        self._panel.set_visibility(simulator is not None and self._visit.may_order)
        if simulator is None:
            return
        if tuple(self._buttons) != simulator.faults:
            self._build(simulator.faults)
        for name, button in self._buttons.items():
            button.classes(add="on") if simulator.active.get(name) else button.classes(remove="on")

    def _build(self, names: tuple[str, ...]) -> None:
        self._row.clear()
        with self._row:
            self._buttons = {name: _button(name.replace("_", " "), self._toggle(name)) for name in names}
            _button("clear all", lambda: self._send({"op": "clear"}))

    def _toggle(self, name: str) -> Callable[[], None]:
        def toggle() -> None:
            simulator = self._board.simulator
            if simulator and simulator.active.get(name):
                self._send({"op": "clear", "name": name})
            else:
                self._send({"op": "fault", "name": name, "severity": 1.0, "ramp_s": FAULT_RAMP_S})

        return toggle

    def _send(self, order: dict[str, str | float]) -> None:
        if self._visit.may_order:
            self._feed.command(self._board.name, order)


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _button(text: str, action: Callable[[], None]) -> ui.button:
    return ui.button(text, on_click=action, color=None).props("flat dense no-caps")


def _column() -> ui.element:
    return ui.element("div").classes("column-of-panels")


def _panel(title: str) -> ui.html:
    with ui.element("div").classes("panel"):
        ui.label(title).classes("title")
        return ui.html("", sanitize=False)
