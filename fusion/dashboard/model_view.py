"""The view of the model: what it is, what its limits rest on, how it drifts, which there are, and which to use."""

from __future__ import annotations

import json
import time
from html import escape
from pathlib import Path

from nicegui import ui

from fusion.dashboard.access import Visit
from fusion.dashboard.advice_view import hindrance_of
from fusion.dashboard.alarm_record import panel
from fusion.dashboard.board import Board
from fusion.dashboard.cards import Operator
from fusion.dashboard.feed import Feed
from fusion.dashboard.look import Look
from fusion.dashboard.panels import empty, table
from fusion.dashboard.words import duration, figure, flag_text, sense_text, when_text
from fusion.errors import ConfigError
from fusion.health import PlantState
from fusion.model_store import VERDICT, ModelStore
from fusion.publish.orders import ModelOrderMessage
from fusion.records import NS_PER_S

CONFIDENT_EVENTS = 3.0
"""No event in n hours excludes more than three in n hours, with 95 % confidence. Source: the rule of three."""
DRIFTS = ("relieved", "uncalibrated", "clock")
ANSWER_S = 6.0


class ModelView:
    """One open page's; without a folder of models, what the daemon says of the one in use."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit, models: Path | None) -> None:
        self._board, self._store = board, ModelStore(models) if models else None
        with ui.element("div").classes("column-of-panels"):
            self._now = panel("The model in use")
        with ui.element("div").classes("column-of-panels"):
            self._models = panel("Models of this plant, newest first")
            self._choice = ModelChoice(board, feed, operator, visit, self._store) if self._store else None

    def refresh(self, look: Look) -> None:
        """Follow the board and the folder."""
        self._now.set_content(in_use(self._board))
        self._models.set_content(listed_models(self._store, self._board, look))
        if self._choice is not None:
            self._choice.refresh()


class ModelChoice:
    """Which model the daemon is to use, as somebody orders it; says what became of the order."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit, store: ModelStore) -> None:
        self._board, self._feed, self._operator, self._visit, self._store = board, feed, operator, visit, store
        self._sent: tuple[str, float, int] | None = None
        with ui.element("div").classes("orders") as self._form:
            self._name = ui.select([], label="model to use").props("dense outlined options-dense").classes("choice")
            ui.button("Use it", on_click=self._send, color=None).props("flat dense no-caps")
        self._outcome = ui.label("").classes("note").props('role="status"')

    def refresh(self) -> None:
        """Offer what there is besides the model in use, the one before it first."""
        try:
            offered = others(self._store)
            used = self._store.current
        except ConfigError:
            offered, used = [], None
        if self._name.options != offered:
            self._name.set_options(offered, value=self._name.value if self._name.value in offered else None)
        self._form.set_visibility(bool(offered) and self._visit.may_choose)
        self._hear(used.name if used else "")

    def _send(self) -> None:
        if (name := self._name.value) is None:
            self._outcome.set_text("Choose a model first.")
        elif not self._visit.may_choose:
            self._outcome.set_text("Nothing was sent: this login may not choose the model; an engineer's may.")
        elif hindrance := hindrance_of(self._board, self._feed, self._operator, self._visit):
            self._outcome.set_text(hindrance)
        else:
            self._feed.choose(self._board.name, ModelOrderMessage(model=name, by=self._operator.name))
            self._sent = name, time.monotonic(), self._board.refusals("model")
            self._outcome.set_text(f"{name}: sent")

    def _hear(self, used: str) -> None:
        """Say what became of the order: the folder says that it is in use, or the daemon counts one more refusal."""
        if self._sent is None:
            return
        name, sent_s, refused = self._sent
        if used == name:
            self._end(f"{name} is put to use; it takes over between two ticks")
        elif self._board.refusals("model") > refused:
            self._end(f"{name}: refused by the daemon; its log says why")
        elif time.monotonic() - sent_s > ANSWER_S:
            self._end(f"{name}: sent, but the daemon does not use it yet")

    def _end(self, text: str) -> None:
        self._sent = None
        self._outcome.set_text(text)


def others(store: ModelStore) -> list[str]:
    """The models that are not in use: the one that was in use before, then the newest first.

    Raises:
        ConfigError: where the file that says which is in use is damaged.
    """
    history = [choice.model for choice in store.history()]
    before = next((name for name in reversed(history) if name != history[-1]), None)
    rest = [name for name in reversed(store.names()) if not history or name != history[-1]]
    return sorted(rest, key=lambda name: name != before)


def in_use(board: Board) -> str:
    """What the daemon says of its model."""
    health = board.health
    if health is None:
        return empty("no full message from the daemon yet")
    learning = health.plant_state == PlantState.LEARNING
    drift = [flag_text(flag) for flag in health.flags if flag.partition(":")[0] in DRIFTS]
    rows = [
        ("model", health.model_id or "none yet"),
        ("learning", health.reason if learning else "not now"),
        ("may", f"{health.licence or 'unknown'}{f'; now {health.mode}' if health.mode else ''}"),
        ("limits rest on", proof(health.calibrated_hours)),
        ("drift", "; ".join(drift) or "none seen"),
        ("judged", judged(board)),
        ("up for", duration(int((health.uptime_s or 0) * NS_PER_S))),
    ]
    return table(("", ""), rows)


def proof(hours: float | None) -> str:
    """How many hours of normal operation are behind the limits, and what that can prove."""
    if not hours:
        return "nothing yet"
    most = CONFIDENT_EVENTS / hours * 24
    return (
        f"{figure(hours)} h of normal operation; fewer than {figure(most)} false alarms a day cannot be proven by them"
    )


def judged(board: Board) -> str:
    """Each sense with its surprise now."""
    found = [
        f"{sense_text(s.modality or s.name)} {figure(s.value / s.limit)} of its limit"
        for s in board.modalities()
        if s.value is not None and s.limit
    ]
    return ", ".join(found) or "nothing yet"


def listed_models(store: ModelStore | None, board: Board, look: Look) -> str:
    """Each model with its verdict and use, and what to type to change that."""
    if store is None:
        return empty("this page is not told where models are kept (--models)")
    try:
        used = {choice.model: choice for choice in store.history()}
        current = store.current
    except ConfigError as error:
        return empty(str(error))
    rows = [
        (
            f"{name}{' (in use)' if current is not None and current.name == name else ''}",
            f"{when_text(used[name].t_ns, board.now_ns, look.zone)} by {used[name].by}" if name in used else "never",
            verdict(store.folder / name),
        )
        for name in reversed(store.names())
    ]
    note = f"<div><b>{escape(store.note)}</b></div>" if store.note else ""
    folder = escape(str(store.folder))
    orders = (
        f'<div class="muted">The same from a terminal: <code>fusion model accept NAME --models {folder}</code>; '
        f"back to the one before: <code>fusion model rollback --models {folder}</code></div>"
    )
    return (
        note
        + (table(("model", "put to use", "tried on what was kept back"), rows) if rows else empty("none yet"))
        + orders
    )


def verdict(folder: Path) -> str:
    """What the trial of a model has found."""
    try:
        said = json.loads((folder / VERDICT).read_text())
        return f"{'taken' if said['taken'] else 'not taken'}: {said['reason']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "no trial"
