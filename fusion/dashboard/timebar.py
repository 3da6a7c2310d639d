"""The time of one open page: now or then, how long a stretch, and a day to scrub through."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments

from fusion.dashboard.board import Board
from fusion.dashboard.look import Look
from fusion.dashboard.sight import Sight
from fusion.dashboard.words import duration, when_text
from fusion.records import NS_PER_S

LENGTHS = {"15 min": 900.0, "1 h": 3_600.0, "4 h": 14_400.0, "24 h": 86_400.0}
DAY_MIN = 24 * 60
STEP = 0.5
CLOSER = 0.5
THROTTLE_S = 0.1
HANDS_OFF_S = 2.0
PER_MIN_NS = 60 * NS_PER_S


class TimeBar:
    """Buttons and a slider; ``moved`` is called when what is looked at has changed."""

    def __init__(self, board: Board, moved: Callable[[], None]) -> None:
        self.sight = Sight(board.window_s)
        self._board, self._moved = board, moved
        self._scrubbed_s = 0.0
        with ui.element("div").classes("timebar").props('role="group" aria-label="time"'):
            self._live = _press("Pause", self._toggle)
            _press("\N{BLACK LEFT-POINTING TRIANGLE}", lambda: self._step(-STEP), "earlier")
            _press("\N{BLACK RIGHT-POINTING TRIANGLE}", lambda: self._step(STEP), "later")
            _press("+", lambda: self._zoom(CLOSER), "closer")
            _press("\N{MINUS SIGN}", lambda: self._zoom(1 / CLOSER), "wider")
            self._lengths = {s: _press(text, partial(self._length, s)) for text, s in LENGTHS.items()}
            self._slider = ui.slider(min=-DAY_MIN, max=0, step=1, value=0).classes("scrub")
            self._slider.props('dense aria-label="minutes before now"')
            self._slider.on("update:model-value", self._scrub, throttle=THROTTLE_S)

    def refresh(self) -> None:
        """Follow the time."""
        now_ns, sight = self._board.now_ns, self.sight
        self._live.set_text("Pause" if sight.live else "Back to now")
        self._live.classes(remove="on" if sight.live else None, add=None if sight.live else "on")
        for length_s, button in self._lengths.items():
            button.props(f"aria-pressed={str(length_s == sight.length_s).lower()}")
        at_ns = now_ns if sight.at_ns is None else sight.at_ns
        if time.monotonic() - self._scrubbed_s > HANDS_OFF_S:  # never pull it out of somebody's hand
            self._slider.set_value(max(-DAY_MIN, -round((now_ns - at_ns) / PER_MIN_NS)))

    def show(self, sight: Sight) -> None:
        """Look at something else."""
        self.sight = sight
        self._moved()

    def pointed(self, event: GenericEventArguments) -> None:
        """Somebody points to a moment in a chart."""
        if (t_ns := _ns(event.args, "t")) is not None:
            self.show(self.sight.at(t_ns, self._board.now_ns))

    def zoomed(self, event: GenericEventArguments) -> None:
        """Somebody has moved a chart."""
        since_ns, until_ns = _ns(event.args, "from"), _ns(event.args, "to")
        if since_ns is not None and until_ns is not None and since_ns < until_ns:
            self.show(self.sight.between(since_ns, until_ns, self._board.now_ns))

    def _toggle(self) -> None:
        now_ns, sight = self._board.now_ns, self.sight
        self.show(sight.paused(now_ns) if sight.live else Sight(self._board.window_s))

    def _step(self, share: float) -> None:
        self.show(self.sight.moved(share, self._board.now_ns))

    def _zoom(self, factor: float) -> None:
        self.show(self.sight.long(self.sight.length_s * factor, self._board.now_ns))

    def _length(self, length_s: float) -> None:
        self.show(self.sight.long(length_s, self._board.now_ns))

    def _scrub(self, event: GenericEventArguments) -> None:
        if isinstance(event.args, int | float):
            self._scrubbed_s = time.monotonic()
            now_ns = self._board.now_ns
            at_ns = now_ns + round(event.args * PER_MIN_NS)
            self.show(self.sight.followed() if event.args >= 0 else self.sight.at(at_ns, now_ns))


def sight_text(sight: Sight, now_ns: int, look: Look) -> str:
    """What is looked at, in words."""
    length = duration(round(sight.length_s * NS_PER_S))
    if sight.at_ns is None:
        return f"now, the last {length}"
    ago = duration(now_ns - sight.at_ns)
    return f"{when_text(sight.at_ns, now_ns, look.zone)}, {ago} ago; {length} shown"


def _ns(said: Any, name: str) -> int | None:
    value = said.get(name) if isinstance(said, dict) else None
    return round(value * 1_000_000) if isinstance(value, int | float) and abs(value) < 1e14 else None


def _press(text: str, action: Callable[[], None], label: str = "") -> ui.button:
    button = ui.button(text, on_click=action, color=None).props("flat dense no-caps")
    return button.props(f'aria-label="{label}"') if label else button
