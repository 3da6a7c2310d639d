"""The view of the model: what it is, what its limits rest on, how it drifts, and which there are."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from nicegui import ui

from fusion.dashboard.alarm_record import panel
from fusion.dashboard.board import Board
from fusion.dashboard.look import Look
from fusion.dashboard.panels import empty, table
from fusion.dashboard.words import duration, figure, flag_text, sense_text, when_text
from fusion.errors import ConfigError
from fusion.health import PlantState
from fusion.model_store import VERDICT, ModelStore
from fusion.records import NS_PER_S

CONFIDENT_EVENTS = 3.0
"""No event in n hours excludes more than three in n hours, with 95 % confidence. Source: the rule of three."""
DRIFTS = ("relieved", "uncalibrated", "clock")


class ModelView:
    """One open page's; without a folder of models, what the daemon says of the one in use."""

    def __init__(self, board: Board, models: Path | None) -> None:
        self._board, self._store = board, ModelStore(models) if models else None
        with ui.element("div").classes("column-of-panels"):
            self._now = panel("The model in use")
        with ui.element("div").classes("column-of-panels"):
            self._models = panel("Models of this plant, newest first")

    def refresh(self, look: Look) -> None:
        """Follow the board and the folder."""
        self._now.set_content(in_use(self._board))
        self._models.set_content(listed_models(self._store, self._board, look))


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
        f'<div class="muted">To use another: <code>fusion model accept NAME --models {folder}</code>; '
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
