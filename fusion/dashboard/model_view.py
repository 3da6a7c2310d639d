"""The view of the model: what it is, what its limits rest on, how it drifts, which there are, and which to use."""

from __future__ import annotations

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
from fusion.dashboard.model_facts import compared, facts_of, learned, may_text, proof, trial_of
from fusion.dashboard.panels import empty, table
from fusion.dashboard.words import duration, figure, flag_text, sense_text, when_text
from fusion.errors import ConfigError
from fusion.health import PlantState
from fusion.model_store import Choice, ModelStore
from fusion.publish.orders import ModelOrderMessage
from fusion.records import NS_PER_S

DRIFTS = ("relieved", "uncalibrated", "clock", "knows little", "state not judged")
ANSWER_S = 6.0
READY_S = 120.0
REPORT = "report.html"


class ModelView:
    """One open page's; without a folder of models, what the daemon says of the one in use."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit, models: Path | None) -> None:
        self._board, self._store = board, ModelStore(models) if models else None
        with ui.element("div").classes("column-of-panels"):
            self._now = panel("The model in use")
            self._learned = panel("What it has learned")
        with ui.element("div").classes("column-of-panels"):
            self._choice = ModelChoice(board, feed, operator, visit, self._store) if self._store else None
            self._models = panel("Models of this plant, newest first")

    def refresh(self, look: Look) -> None:
        """Follow the board and the folder."""
        name = running(self._store, self._board)
        self._now.set_content(in_use(self._board, name))
        self._learned.set_content(learned(facts_of(self._store.folder / name) if self._store and name else None))
        self._models.set_content(listed_models(self._store, self._board, look))
        if self._choice is not None:
            self._choice.refresh()


class ModelChoice:
    """Which model the daemon is to use, as somebody orders it; says what became of the order."""

    def __init__(self, board: Board, feed: Feed, operator: Operator, visit: Visit, store: ModelStore) -> None:
        self._board, self._feed, self._operator, self._visit, self._store = board, feed, operator, visit, store
        self._sent: tuple[str, float, int] | None = None
        self._newest = self._before = ""
        with ui.element("div").classes("panel") as self._panel:
            ui.label("Put another model to use").classes("title")
            with ui.element("div").classes("orders") as self._form:
                self._name = ui.select([], label="model to use", on_change=self._compare)
                self._name.props("dense outlined options-dense").classes("choice")
                ui.button("Use it", on_click=self._accept, color=None).props("flat dense no-caps")
                self._back = ui.button("", on_click=self._go_back, color=None).props("flat dense no-caps")
            self._who = ui.html(empty("an engineer's login puts another model to use"), sanitize=False)
            self._outcome = ui.label("").classes("note").props('role="status"')
            self._compared = ui.html("", sanitize=False)

    def refresh(self) -> None:
        """Offer what there is besides the model in use: a new one first, and a button back to the one before."""
        try:
            offered, before = others(self._store), previous(self._store)
        except ConfigError:
            offered, before = [], ""
        if self._name.options != offered:
            kept = self._name.value if self._name.value in offered else None
            self._name.set_options(offered, value=kept or untried(self._store, offered))
        self._before = before
        self._back.set_text(f"Go back to {before}")
        self._back.set_visibility(bool(before))
        self._panel.set_visibility(bool(offered))
        self._form.set_visibility(self._visit.may_choose)
        self._who.set_visibility(not self._visit.may_choose)
        self._compare()
        self._hear()

    def _compare(self) -> None:
        """Show the model that is chosen beside the one in use."""
        used, name = running(self._store, self._board), self._name.value
        if not name or not used or name == used:
            self._compared.set_content("")
            return
        chosen, present = self._store.folder / name, self._store.folder / used
        self._compared.set_content(compared((name, facts_of(chosen), trial_of(chosen)), (used, facts_of(present))))

    def _accept(self) -> None:
        if self._name.value is None:
            self._outcome.set_text("Choose a model first.")
        else:
            self._send(self._name.value)

    def _go_back(self) -> None:
        if self._before:
            self._send(self._before)

    def _send(self, name: str) -> None:
        hindrance = put_to_use(self._board, self._feed, self._operator, self._visit, name)
        if not hindrance:
            self._sent = name, time.monotonic(), self._board.refusals("model")
        self._outcome.set_text(hindrance or f"{name}: sent")

    def _hear(self) -> None:
        """Say what became of the order: the daemon uses it, has taken the order, or counts one more refusal."""
        if self._sent is None:
            return
        name, sent_s, refused = self._sent
        waited_s = time.monotonic() - sent_s
        if self._board.refusals("model") > refused:
            self._end(f"{name}: refused by the daemon; {self._why_refused(name)}")
        elif running(self._store, self._board) == name:
            self._end(f"{name} is in use")
        elif chosen(self._store) == name:
            self._outcome.set_text(f"{name} is put to use; it takes over between two ticks once it is ready")
            if waited_s > READY_S:
                self._end(f"{name}: put to use, but the daemon does not use it yet; the head of the page says why")
        elif waited_s > ANSWER_S:
            self._end(f"{name}: sent, but the daemon has not answered")

    def _why_refused(self, name: str) -> str:
        """The reason that the daemon wrote down, where the page may read it."""
        acts = reversed(self._board.acts.acts)
        why = next((act.text for act in acts if act.what == "refused" and f"model {name}" in act.text), "")
        return why.partition("reason ")[2] or "its log says why"

    def _end(self, text: str) -> None:
        self._sent = None
        self._outcome.set_text(text)


def put_to_use(board: Board, feed: Feed, operator: Operator, visit: Visit, name: str) -> str:
    """Order that a model is used; what stands in the way, or "" when the order is on its way."""
    if not visit.may_choose:
        return "Nothing was sent: this login may not choose the model; an engineer's may."
    if hindrance := hindrance_of(board, feed, operator, visit):
        return hindrance
    feed.choose(board.name, ModelOrderMessage(model=name, by=operator.name))
    return ""


def others(store: ModelStore) -> list[str]:
    """The models that were not chosen, newest first.

    Raises:
        ConfigError: where the file that says which is in use is damaged.
    """
    history = store.history()
    return [name for name in reversed(store.names()) if not history or name != history[-1].model]


def previous(store: ModelStore) -> str:
    """The model that was in use before, "" without one.

    Raises:
        ConfigError: where the file that says which is in use is damaged.
    """
    history, names = [choice.model for choice in store.history()], store.names()
    return next((name for name in reversed(history) if name != history[-1] and name in names), "")


def untried(store: ModelStore, offered: list[str]) -> str | None:
    """The newest model, where nobody has used it yet; None where there is nothing new.

    Raises:
        ConfigError: where the file that says which is in use is damaged.
    """
    used = {choice.model for choice in store.history()}
    return next((name for name in offered[:1] if name not in used and name == store.names()[-1]), None)


def chosen(store: ModelStore | None) -> str:
    """The model that was chosen last, "" without any."""
    try:
        current = store.current if store else None
    except ConfigError:
        return ""
    return current.name if current else ""


def running(store: ModelStore | None, board: Board) -> str:
    """The model that the daemon runs on, by its id; that which was chosen where no model there says its id."""
    if store is None:
        return ""
    model_id = board.health.model_id if board.health else ""
    known = {name: facts.model_id for name in store.names() if (facts := facts_of(store.folder / name))}
    if not known or not model_id:
        return chosen(store)
    now = chosen(store)  # of two copies, the one that was chosen
    return now if known.get(now) == model_id else next((n for n, found in known.items() if found == model_id), "")


def in_use(board: Board, name: str = "") -> str:
    """What the daemon says of its model, which is kept under this name."""
    health = board.health
    if health is None:
        return empty("no full message from the daemon yet")
    waits = health.reason if health.plant_state == PlantState.LEARNING else "not now"
    drift = [flag_text(flag) for flag in health.flags if flag.partition(":")[0] in DRIFTS]
    rows = [
        ("model", " ".join(filter(None, (name, health.model_id))) or "none yet"),
        ("learning", health.learning or waits),
        ("may", may_text(health.licence or "unknown") + (f"; now {health.mode}" if health.mode else "")),
        ("limits rest on", proof(health.calibrated_hours)),
        ("drift", "; ".join(drift) or "none seen"),
        ("judged", judged(board)),
        ("up for", duration(int((health.uptime_s or 0) * NS_PER_S))),
    ]
    return table(("", ""), rows)


def judged(board: Board) -> str:
    """Each sense with its surprise now."""
    found = [
        f"{sense_text(s.modality or s.name)} {figure(s.value / s.limit)} of its limit"
        for s in board.modalities()
        if s.value is not None and s.limit
    ]
    return ", ".join(found) or "nothing yet"


def listed_models(store: ModelStore | None, board: Board, look: Look) -> str:
    """Each model with its use, its verdict and its report, and what to type to change that."""
    if store is None:
        return empty("this page is not told where models are kept (--models)")
    try:
        used = {choice.model: choice for choice in store.history()}
    except ConfigError as error:
        return empty(str(error))
    now = running(store, board), chosen(store)
    rows = "".join(_model_row(store, name, used.get(name), now, board, look) for name in reversed(store.names()))
    head = "<tr><th>model</th><th>put to use</th><th>tried on what was kept back</th><th></th></tr>"
    note = f"<div><b>{escape(store.note)}</b></div>" if store.note else ""
    folder = escape(str(store.folder))
    orders = (
        f'<div class="muted">The same from a terminal: <code>fusion model accept NAME --models {folder}</code>; '
        f"back to the one before: <code>fusion model rollback --models {folder}</code></div>"
    )
    return note + (f"<table>{head}{rows}</table>" if rows else empty("none yet")) + orders


def _model_row(
    store: ModelStore, name: str, used: Choice | None, now: tuple[str, str], board: Board, look: Look
) -> str:
    here, wanted = now
    state = " (in use)" if name == here else " (chosen, not in use yet)" if name == wanted else ""
    when = f"{when_text(used.t_ns, board.now_ns, look.zone)} by {used.by}" if used else "never"
    there = (store.folder / name / REPORT).is_file()
    report = f'<a href="{report_path(name)}" target="_blank">report</a>' if there else ""
    cells = (f"{name}{state}", when, verdict(store.folder / name))
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}<td>{report}</td></tr>"


def report_path(name: str) -> str:
    """Where this page serves the report of a training."""
    return f"/model/{name}/report"


def verdict(folder: Path) -> str:
    """What the trial of a model has found."""
    trial = trial_of(folder)
    return "no trial" if trial is None else f"{'taken' if trial.taken else 'not taken'}: {trial.reason}"
