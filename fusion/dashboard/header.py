"""The head of the page: the plant at a glance, in a word, a shape and a reason; colour only for what is abnormal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from html import escape

from fusion.alarms import PRIORITIES, AlarmState
from fusion.dashboard.alarms import entries
from fusion.dashboard.board import SILENT_AFTER_S, Board
from fusion.dashboard.explain import headline
from fusion.dashboard.look import PLAIN, Look
from fusion.dashboard.words import clock_text, flag_text, when_text
from fusion.health import PlantState
from fusion.records import NS_PER_S

FLAGS_SHOWN = 4
WORDS = {
    PlantState.NO_DATA: "NO DATA",
    PlantState.ALARM: "ALARM",
    PlantState.DEGRADED: "DEGRADED",
    PlantState.LEARNING: "LEARNING",
    PlantState.WARMING_UP: "WARMING UP",
    PlantState.NORMAL: "NORMAL",
}
SHAPES = {
    PlantState.NO_DATA: '<path d="M4 4 L20 20 M20 4 L4 20"/>',
    PlantState.ALARM: '<path d="M12 1 L23 12 L12 23 L1 12Z" class="fill"/><path d="M12 6 V13 M12 16 V18" class="cut"/>',
    PlantState.DEGRADED: '<path d="M12 3 L22 21 H2 Z"/><path d="M12 10 V15 M12 17 V18.5"/>',
    PlantState.LEARNING: '<path d="M3 19 C9 19 9 6 14 6 C18 6 18 12 21 12"/><path d="M3 21 H21"/>',
    PlantState.WARMING_UP: '<path d="M6 3 H18 L12 12 L18 21 H6 L12 12 Z"/>',
    PlantState.NORMAL: '<circle cx="12" cy="12" r="8"/>',
}


@dataclass(frozen=True, slots=True)
class Glance:
    """The plant at a glance: ``alarms`` stand and are not put aside."""

    state: PlantState
    reason: str
    alarms: int = 0

    @property
    def text(self) -> str:
        """The state as a word."""
        return f"{WORDS[self.state]} {self.alarms}" if self.alarms else WORDS[self.state]


def glance(board: Board, broker: str = "") -> Glance:
    """How the plant is, from the daemon's last word; ``broker`` says what is wrong with the connection, if anything.

    An alarm that was told after that word counts. An overload that goes on is told whatever the daemon thinks of it.
    """
    if blind := broker or silence(board) or _unsaid(board):
        return Glance(PlantState.NO_DATA, blind.partition(": ")[0])
    said = _said(board)
    speaking = [entry for entry in entries(board) if entry.standing and not entry.aside]
    if speaking:
        first = min(speaking, key=lambda entry: (-PRIORITIES.index(entry.priority), entry.t_onset_ns))
        return Glance(PlantState.ALARM, headline(board, first.anomaly, first.kind), len(speaking))
    if said.state is PlantState.NORMAL and board.skipped_lately:
        return Glance(PlantState.DEGRADED, said.reason)
    return said


def _said(board: Board) -> Glance:
    health = board.health
    states = {state.value: state for state in PlantState}
    if health is None or health.plant_state not in states:
        return Glance(PlantState.NO_DATA, "the daemon does not say how the plant is")
    return Glance(states[health.plant_state], health.reason)


def _unsaid(board: Board) -> str:
    if board.told:
        return ""
    return "waiting for the daemon to say how the plant is" if board.daemon else "no message from the daemon yet"


def silence(board: Board, look: Look = PLAIN) -> str:
    """A sentence when the daemon is not heard, and since when, else ""."""
    heard = f", last heard at {since(board.silent_s, look)}" if board.silent_s is not None else ""
    if board.daemon == "offline":
        return f"The daemon is offline{heard}: what is shown is the last that was known."
    if board.silent_s is not None and board.silent_s > SILENT_AFTER_S:
        return f"The daemon has been silent for {board.silent_s:.0f} s{heard}: what is shown is old."
    return ""


def since(ago_s: float, look: Look) -> str:
    """The time of so many seconds ago, by the clock on the wall."""
    now_ns = time.time_ns()
    return when_text(now_ns - int(ago_s * NS_PER_S), now_ns, look.zone)


def header(board: Board, broker: str = "") -> str:
    """State of the plant with its reason, then the plant, licence and daemon."""
    now = glance(board, broker)
    health = board.health
    licence = (health.licence if health else "") or (board.advice.licence if board.advice else "") or "unknown"
    parts = [
        f'<span class="state {now.state.value}" role="status"><svg viewBox="0 0 24 24" aria-hidden="true">'
        f"{SHAPES[now.state]}</svg>{escape(now.text)}</span>",
        f'<span class="why">{escape(_reason(board, now))}</span>',
        f'<span class="plant">{escape(board.name or "no plant yet")}</span>',
        f"<span>licence <b>{escape(licence)}</b></span>",
        "" if board.daemon == "online" else f"<span>daemon <b>{escape(board.daemon or 'not seen')}</b></span>",
        *(
            f'<span class="note">{escape(flag_text(flag))}</span>'
            for flag in [f for f in (health.flags if health else []) if f != now.reason][:FLAGS_SHOWN]
        ),
    ]
    return "".join(parts)


def _reason(board: Board, now: Glance) -> str:
    """Why, and what else the operator should not overlook."""
    words = [now.reason]
    if now.state is not PlantState.NO_DATA and board.skipped_lately and "skipped" not in now.reason:
        words.append(f"overload: {board.skipped_lately} ticks skipped in the last minute")
    states = [entry.state for entry in entries(board)]
    for state, text in (
        (AlarmState.UNACKNOWLEDGED, "unacknowledged"),
        (AlarmState.RETURNED, "returned, not yet seen"),
        (AlarmState.SHELVED, "shelved"),
        (AlarmState.SUPPRESSED, "suppressed"),
    ):
        if count := states.count(state):
            words.append(f"{count} {text}")
    return "; ".join(word for word in words if word)


def clock(board: Board, look: Look = PLAIN) -> str:
    """The daemon's time, in the zone of whoever looks."""
    return clock_text(board.now_ns, look.zone)
