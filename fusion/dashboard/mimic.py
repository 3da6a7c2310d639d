"""The plant at a glance: each signal where it belongs, its value, and what is wrong; below, sources and advice."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from nicegui.element import Element

from fusion.dashboard import alarms, explain
from fusion.dashboard.board import Board
from fusion.dashboard.layout import SEPARATORS, Group, groups, shared_path, shown
from fusion.dashboard.words import reading, unit_text
from fusion.plant import Modality, Signal

BLAMED = 3
Cell = tuple[str, int | None, str]
"""Value in words, its place between the limits [%], and what is wrong: "", blamed, beyond or absent."""


class Mimic(Element, component="mimic.js"):
    """The overview of one open page; ``picked`` is told of the signal that is pressed."""

    def __init__(self, board: Board, picked: Callable[[str], None]) -> None:
        super().__init__()
        self._board = board
        self._groups = groups(board.plant, board.setpoints.values()) if board.plant else []
        self._shared = shared_path(board.plant) if board.plant else ""
        self._sent: dict[str, Cell] | None = None
        self._laid: set[str] = set()
        self._ready = False
        self.on("ready", self._begin)
        self.on("pick", lambda e: picked(str(e.args.get("name", ""))) if isinstance(e.args, dict) else None)

    def _begin(self) -> None:
        self._ready, self._sent = True, None
        self.refresh()

    def refresh(self) -> None:
        """Send what is new; lay it out anew where something abnormal has no place."""
        if not self._ready:
            return
        now = cells(self._board)
        if self._sent is None or any(cell[2] and name not in self._laid for name, cell in now.items()):
            wrong = [name for name, cell in now.items() if cell[2]]
            laid = [_laid(group, wrong, self._shared) for group in self._groups]
            self._laid = {cell["name"] for group in laid for cell in group["cells"]}
            self._sent = {name: cell for name, cell in now.items() if name in self._laid}
            self.run_method("lay", laid, self._sent)
        elif change := {name: cell for name, cell in now.items() if self._sent.get(name, cell) != cell}:
            self._sent |= change
            self.run_method("change", change)


def label(group: Group, name: str, shared: str) -> str:
    """A signal's name without the path that all have, or that its group is called by."""
    short = name.removeprefix(shared)
    rest = short.removeprefix(group.title)
    return rest[1:] if rest != short and rest[:1] in tuple(SEPARATORS) and rest[1:] else short or name


def _laid(group: Group, wanted: list[str], shared: str) -> dict[str, Any]:
    here = shown(group, wanted)
    return {
        "title": group.title,
        "flows": group.flows,
        "more": len(group.signals) - len(here),
        "cells": [
            {"name": s.name, "label": label(group, s.name, shared), "title": f"{s.name} {s.description}".rstrip()}
            | {"unit": unit_text(s.unit)}
            for s in here
        ],
    }


def cells(board: Board) -> dict[str, Cell]:
    """Every signal as it is now."""
    blamed = {
        blame.signal
        for entry in alarms.entries(board)
        if entry.anomaly and entry.standing and not entry.aside
        for blame in entry.anomaly.top_signals[:BLAMED]
    }
    signals = board.plant.signals if board.plant else ()
    return {s.name: _cell(board, s, blamed=s.name in blamed) for s in signals if s.name not in board.setpoints.values()}


def _cell(board: Board, signal: Signal, *, blamed: bool) -> Cell:
    if signal.modality is not Modality.PROCESS:
        coverage = board.frame.coverage.get(signal.name) if board.frame else None
        text = "live" if coverage else "silent"
        return text, None, "blamed" if blamed else "" if coverage or board.frame is None else "absent"
    value = board.value(signal.name)
    if value is None:
        return "-", None, "blamed" if blamed else "absent" if board.frame else ""
    beyond = any(board.beyond(signal.name, value))
    return _said(board, signal.name, value), _share(signal, value), "blamed" if blamed else "beyond" if beyond else ""


def _said(board: Board, name: str, value: float) -> str:
    setpoint = board.setpoints.get(name)
    wanted = board.value(setpoint) if setpoint else None
    return reading(value) if wanted is None else f"{reading(value)} / {reading(wanted)}"


def _share(signal: Signal, value: float) -> int | None:
    if signal.low is None or signal.high is None:
        return None
    return round(100 * min(1.0, max(0.0, (value - signal.low) / (signal.high - signal.low))))


def below(board: Board, old: bool = False) -> str:
    """The sources, and the advice in one sentence; ``old`` where the daemon is not heard now."""
    if old:
        return "<div>Sources and advice: not known now; below is what was last heard</div>"
    sources = board.health.sources if board.health else []
    bad = [s for s in sources if not (s.alive and s.state == "live")]
    told = ", ".join(f'<b class="sick">{escape(s.name)} {escape(s.state)}</b>' for s in bad)
    good = f"{len(sources) - len(bad)} of {len(sources)} live"
    said = f"{good}: {told}" if bad else "all live" if sources else "none known yet"
    return f"<div>Sources: {said}</div><div>{escape(explain.advice_text(board, board.advice))}</div>"
