"""The view of alarms as a whole: their load, what chatters or is stale, what was done by whom, and what was before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape

from nicegui import ui

from fusion.dashboard import events
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.events import Event, Load
from fusion.dashboard.look import Look
from fusion.dashboard.panels import empty, table
from fusion.dashboard.words import duration, figure, kind_word, listed, when_text

EVENTS_SHOWN = 40
ACTS_SHOWN = 100


class AlarmRecord:
    """One open page's; ``show`` has the trends look at a moment."""

    def __init__(self, board: Board, archive: Archive | None, show: Callable[[int], None]) -> None:
        self._board, self._archive, self._show = board, archive, show
        self._listed: list[tuple[str, str, str, str]] | None = None
        with ui.element("div").classes("column-of-panels"):
            self._load = panel("How much alarms ask of the operator")
            self._trouble = panel("Chattering and stale")
        with ui.element("div").classes("column-of-panels"), ui.element("div").classes("panel grow"):
            ui.label("What has stood, newest first").classes("title")
            self._events = ui.element("div").classes("events")
        with ui.element("div").classes("column-of-panels"):
            self._acts = panel("What was done, by whom and when", "scroll tall")

    def refresh(self, look: Look) -> None:
        """Follow the board."""
        board, now_ns = self._board, self._board.now_ns
        found = events.known(board, self._archive)
        span_ns = self._archive.span_ns() if self._archive else None
        since_ns = span_ns[0] if span_ns else board.begun_ns
        self._load.set_content(load_table(events.load(found, since_ns, now_ns), self._people()))
        self._trouble.set_content(trouble(found, now_ns, look))
        self._acts.set_content(acts_table(board, look))
        self._list(found[:EVENTS_SHOWN], found, look)

    def _people(self) -> dict[str, int]:
        return events.by_person(self._board.acts.acts, self._board.now_ns)

    def _list(self, shown: list[Event], every: list[Event], look: Look) -> None:
        now_ns = self._board.now_ns
        rows = [event_row(event, every, self._archive, now_ns, look) for event in shown]
        if rows == self._listed:
            return
        self._listed = rows
        self._events.clear()
        with self._events:
            if not rows:
                ui.html(empty("no alarm is known"), sanitize=False)
            for event, (when, what, said, before) in zip(shown, rows, strict=True):
                with ui.element("div").classes("event"):
                    go = ui.button(when, on_click=partial(self._show, event.t_ns), color=None)
                    go.props(f'flat dense no-caps aria-label="look at {when}"')
                    lines = [f"<b>{escape(what)}</b>", escape(said), f'<span class="muted">{escape(before)}</span>']
                    ui.html("<br>".join(filter(_has_text, lines)), sanitize=False)


def _has_text(line: str) -> bool:
    return bool(line) and not line.endswith('<span class="muted"></span>')


def panel(title: str, classes: str = "") -> ui.html:
    """A titled panel of text."""
    with ui.element("div").classes("panel"):
        ui.label(title).classes("title")
        return ui.html("", sanitize=False).classes(classes)


def event_row(
    event: Event, every: list[Event], archive: Archive | None, now_ns: int, look: Look
) -> tuple[str, str, str, str]:
    """When, what, what people said of it, and what was like it before."""
    lasted = f"lasted {duration(event.end_ns - event.t_ns)}" if event.end_ns is not None else "stands"
    what = f"{', '.join(event.signals[:3]) or event.id}: {kind_word(event.verdict or 'unknown')}, {lasted}"
    alike = events.similar(event, every)
    before = [f"{when_text(other.t_ns, now_ns, look.zone)} {_short(other, archive, now_ns)}" for other in alike[:2]]
    more = f" and {len(alike) - 2} more" if len(alike) > 2 else ""
    return (
        when_text(event.t_ns, now_ns, look.zone),
        what,
        events.said_of(event, archive, now_ns),
        f"similar: {'; '.join(before)}{more}" if before else "",
    )


def _short(event: Event, archive: Archive | None, now_ns: int) -> str:
    return events.said_of(event, archive, now_ns) or ", ".join(event.signals[:2])


def load_table(load: Load, people: dict[str, int]) -> str:
    """Numbers of alarms beside what one operator can take."""
    rows = [
        ("in the last 10 min", f"{load.lately}", f"more than {events.FLOOD} are a flood"),
        ("most in any 10 min", f"{load.peak}", "flood" if load.peak > events.FLOOD else "no flood"),
        ("average in 10 min", figure(load.average), load.verdict),
        ("in the last day", f"{load.day}", f"known of {duration(round(load.hours * events.HOUR_NS))} of it"),
    ]
    said = listed([f"{name} {count}" for name, count in people.items()]) or "nobody yet"
    note = f'<div class="muted">Levels for one operator: EEMUA 191. Orders in the last day: {escape(said)}.</div>'
    return table(("alarms", "#number", "judged"), rows) + note


def trouble(found: list[Event], now_ns: int, look: Look) -> str:
    """What chatters, and what has stood for more than a day."""
    chatter = events.chattering(found, now_ns)
    old = events.stale(found, now_ns)
    rows = [
        *((name, f"{count} in a day", "chatters: thrice or more in an hour") for name, count in chatter.items()),
        *(
            (
                ", ".join(e.signals[:2]) or e.id,
                duration(now_ns - e.t_ns),
                f"stale: since {when_text(e.t_ns, now_ns, look.zone)}",
            )
            for e in old
        ),
    ]
    return table(("signal", "#", "why"), rows) if rows else empty("nothing chatters, nothing is stale")


def acts_table(board: Board, look: Look) -> str:
    """The newest acts."""
    log = board.acts
    rows = [
        (when_text(a.t_ns, board.now_ns, look.zone), a.by or "-", a.what, f"{a.id} {a.text}".strip())
        for a in list(log.acts)[: -ACTS_SHOWN - 1 : -1]
    ]
    note = (
        ""
        if log.whole
        else '<div class="muted">only what this page has heard: it may not read the daemon\'s audit</div>'
    )
    return note + (table(("when", "who", "what", ""), rows) if rows else empty("nothing yet"))
