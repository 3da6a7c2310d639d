"""Alarms as the operator meets them: what stands, what was done with it, and the text of one card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import zip_longest

from fusion.alarms import ASIDE, PRIORITIES, AlarmState, Priority
from fusion.dashboard import explain
from fusion.dashboard.board import Board, exceeds
from fusion.dashboard.look import PLAIN, Look
from fusion.dashboard.words import (
    SPREADS,
    duration,
    flag_text,
    kind_text,
    kind_word,
    percent,
    reading,
    revision_text,
    sense_text,
    signals_text,
    signed,
    spreads,
    when_text,
    with_unit,
)
from fusion.health import PlantState
from fusion.publish.messages import AlarmOut, AnomalyMessage, BlameOut
from fusion.records import AnomalyState

SIGNALS_SHOWN = 6
CALLED = {"fault": "a fault", "maintenance": "maintenance", "good": "normal"}
WAITING_FLAGS = ("settling", "warming_up", "transition")
RANK = (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED, AlarmState.RETURNED, *ASIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One alarm of the list; ``anomaly`` is its evidence, ``alarm`` its life, and either may be unknown."""

    id: str
    state: AlarmState
    standing: bool
    anomaly: AnomalyMessage | None
    alarm: AlarmOut | None

    @property
    def shelved(self) -> bool:
        """Whether the operator has put it aside for a while."""
        return self.state is AlarmState.SHELVED

    @property
    def aside(self) -> bool:
        """Whether it calls nobody: put aside by an operator, or no alarm in this state of the plant."""
        return self.state in ASIDE

    @property
    def priority(self) -> Priority:
        """How urgent it is; in between while the daemon has not said."""
        said = self.alarm.priority if self.alarm else ""
        return Priority(said) if said in PRIORITIES else Priority.MEDIUM

    @property
    def kind(self) -> str:
        """What kind of event it is."""
        return self.anomaly.kind if self.anomaly else self.alarm.kind if self.alarm else ""

    @property
    def t_onset_ns(self) -> int:
        """When it began."""
        return self.anomaly.t_onset_ns if self.anomaly else self.alarm.t_onset_ns if self.alarm else 0


def entries(board: Board) -> list[Entry]:
    """Every alarm that is not normal: those nobody has seen first, what is put aside last; in each the urgent first."""
    found = [_entry(board, key) for key in {**board.anomalies, **board.alarms}]
    listed = [entry for entry in found if entry.state is not AlarmState.NORMAL]
    return sorted(listed, key=lambda e: (RANK.index(e.state), -PRIORITIES.index(e.priority), -e.t_onset_ns))


def _entry(board: Board, key: str) -> Entry:
    alarm, standing = board.alarms.get(key), key in board.anomalies
    anomaly = board.anomalies.get(key) or board.evidence.get(key)
    return Entry(id=key, state=_state(alarm, standing=standing), standing=standing, anomaly=anomaly, alarm=alarm)


def _state(alarm: AlarmOut | None, *, standing: bool) -> AlarmState:
    """State of an alarm; whether it stands is known from the anomalies, so that no message has to wait for another."""
    if alarm is not None and alarm.state == AlarmState.SHELVED:
        return AlarmState.SHELVED
    if alarm is not None and alarm.state == AlarmState.SUPPRESSED:
        return AlarmState.SUPPRESSED if standing else AlarmState.NORMAL
    seen = alarm is not None and alarm.t_acknowledged_ns is not None
    if standing:
        return AlarmState.ACKNOWLEDGED if seen else AlarmState.UNACKNOWLEDGED
    return AlarmState.NORMAL if seen else AlarmState.RETURNED


# -- one card


def card(board: Board, entry: Entry, look: Look = PLAIN) -> str:
    """All that is said of one alarm."""
    return head(board, entry, look) + body(board, entry, look)


def head(board: Board, entry: Entry, look: Look) -> str:
    """Its state, since when, what was done with it; a sentence, and what to do next."""
    anomaly = entry.anomaly
    done = escape(_life(board, entry, look))
    told = f"<span>{_since(board, entry, look)}{f' - <b>{done}</b>' if done else ''}</span>"
    sentence = f'<b class="sentence">{escape(explain.evidence(board, anomaly, entry.kind))}</b>'
    return f'<div class="line">{glyph(entry)}{told}</div><div>{sentence}</div>' + (
        _list({"do next": explain.action(board, anomaly)}) if anomaly else ""
    )


def body(board: Board, entry: Entry, look: Look) -> str:
    """What was expected and seen, why that is an alarm, and what was like it."""
    anomaly = entry.anomaly
    if anomaly is None:
        return ""
    name = f'<div class="muted small">{escape(kind_text(anomaly.kind))}; no. {escape(anomaly.id)}</div>'
    return _evidence(board, anomaly) + _explained(board, anomaly, look) + name


def glyph(entry: Entry) -> str:
    """The state of an alarm as a shape with a word, filled while unacknowledged, hollow after; and how urgent it is."""
    shape = {
        AlarmState.UNACKNOWLEDGED: ("bad", "new alarm"),
        AlarmState.ACKNOWLEDGED: ("seen", "alarm"),
        AlarmState.RETURNED: ("returned", "returned"),
        AlarmState.SHELVED: ("aside", "shelved"),
        AlarmState.SUPPRESSED: ("aside", "suppressed"),
    }
    level, text = shape[entry.state]
    urgency = f'<span class="priority {entry.priority}">{entry.priority}</span>' if entry.standing else ""
    return f'<span class="badge {level}">{text}</span>{urgency}'


def _since(board: Board, entry: Entry, look: Look) -> str:
    now_ns = board.now_ns
    began = when_text(entry.t_onset_ns, now_ns, look.zone)
    if entry.standing:
        return f"since {began} ({duration(now_ns - entry.t_onset_ns)})"
    ended_ns = _ended_ns(entry)
    return f"from {began}" + (
        f" to {when_text(ended_ns, now_ns, look.zone)}, well again" if ended_ns else ", well again"
    )


def _ended_ns(entry: Entry) -> int | None:
    if entry.alarm and entry.alarm.t_cleared_ns is not None:
        return entry.alarm.t_cleared_ns
    return entry.anomaly.t_ns if entry.anomaly and entry.anomaly.state == AnomalyState.CLEARED else None


def _life(board: Board, entry: Entry, look: Look) -> str:
    """What was done with an alarm, by whom and when."""
    alarm, now_ns = entry.alarm, board.now_ns
    words = []
    if alarm and entry.shelved:
        until = f" until {when_text(alarm.t_shelved_until_ns, now_ns, look.zone)}" if alarm.t_shelved_until_ns else ""
        words.append(f"Shelved{until}" + (f" by {alarm.shelved_by}" if alarm.shelved_by else ""))
    if alarm and alarm.t_acknowledged_ns is not None:
        by = f" by {alarm.acknowledged_by}" if alarm.acknowledged_by else ""
        words.append(f"Acknowledged{by} at {when_text(alarm.t_acknowledged_ns, now_ns, look.zone)}")
    elif entry.state is AlarmState.RETURNED:
        words.append("Returned, not yet seen")
    if alarm and alarm.accepted_by:
        words.append(f"Accepted as normal by {alarm.accepted_by}")
    elif alarm and alarm.called:
        words.append(f"Called {CALLED.get(alarm.called, alarm.called)} by {alarm.called_by}")
    if alarm and alarm.suppressed_by:
        words.append(f"No alarm while {alarm.suppressed_by}")
    return " - ".join(words)


def _explained(board: Board, anomaly: AnomalyMessage, look: Look) -> str:
    """Why it is an alarm, which senses see it, and what was like it before."""
    former = board.evidence.get(anomaly.earlier)
    before = anomaly.earlier
    if former:
        lasted = f", lasted {duration(former.t_ns - former.t_onset_ns)}" if former.state == AnomalyState.CLEARED else ""
        before = f"{when_text(former.t_onset_ns, board.now_ns, look.zone)}: {signals_text(former)}{lasted} ({before})"
    lines = {
        "why": "; ".join(explain.reasons(board, anomaly)),
        "seen by": explain.senses(board, anomaly),
        "similar": before,
        "note": revision_text(anomaly.revision),
    }
    return _list(lines)


def _list(lines: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{key}</dt><dd>{escape(text)}</dd>" for key, text in lines.items() if text)
    return f"<dl>{rows}</dl>"


def _evidence(board: Board, anomaly: AnomalyMessage) -> str:
    blamed = anomaly.top_signals[:SIGNALS_SHOWN]
    if not blamed:
        return ""
    rows = "".join(
        f"<tr><td>{escape(board.named(b.signal))}<div>{_reads(board, b)}</div></td>"
        f"<td class=num>{percent(b.share)}</td></tr>"
        for b in blamed
    )
    return f"<table><tr><th>what was expected and what was seen</th><th class=num>share</th></tr>{rows}</table>"


def _reads(board: Board, b: BlameOut) -> str:
    if b.unit == SPREADS:
        return ", ".join(filter(None, [escape(explain.place_of(board, b).text), f"<b>{spreads(b.residual)}</b> off"]))
    off = escape(with_unit(signed(b.residual), b.unit))
    if b.seen is None or b.expected is None:
        return f"<b>{off}</b> from what is expected"
    seen, expected = (escape(with_unit(reading(value), b.unit)) for value in (b.seen, b.expected))
    return f"seen <b>{seen}</b>, expected <b>{expected}</b> <small>{off}</small>"


# -- what stands beside the cards


@dataclass(frozen=True, slots=True)
class Accused:
    """What an event says of one tag: since when until when (None: it stands), and what was expected of it and when."""

    since_ns: int
    until_ns: int | None
    expected: tuple[tuple[int, float | None], ...]


def accused(board: Board, picked: str = "") -> dict[str, Accused]:
    """Tags that standing alarms blame, or the one that was picked out; the first of each alarm first."""
    listed = entries(board)
    picked = picked if any(e.id == picked for e in listed) else ""
    blamed = [
        [(b.signal, _accused(board, e, b.signal)) for b in e.anomaly.top_signals]
        for e in listed
        if e.anomaly and (e.id == picked if picked else e.standing and not e.aside)
    ]
    found: dict[str, Accused] = {}
    for rank in zip_longest(*blamed):
        for name, said in filter(None, rank):
            if name in board.tags:
                found.setdefault(name, said)
    return found


def _accused(board: Board, entry: Entry, signal: str) -> Accused:
    course = board.expected.get(entry.id, {}).get(signal, ())
    return Accused(entry.t_onset_ns, _ended_ns(entry), tuple(course))


def calm(board: Board, old: bool = False) -> str:
    """A line where no alarm is listed, else ""; ``old`` where the daemon is not heard now."""
    if entries(board):
        return ""
    if board.health is None:
        return '<div class="muted">nothing is known of alarms: no full message from the daemon yet</div>'
    when = "" if board.told and not old else " when the daemon was last heard"
    if board.health.plant_state == PlantState.LEARNING:
        return '<div class="muted">nothing is judged yet: there is no model</div>'
    return f'<div class="calm">No open alarm{when}</div>'


def cleared(board: Board, look: Look = PLAIN) -> str:
    """Those that are over, in one table; what nobody has seen yet stands above as a card."""
    waiting = {entry.id for entry in entries(board)}
    rows = "".join(
        f"<tr><td>{escape(when_text(a.t_onset_ns, board.now_ns, look.zone))}</td><td>{escape(kind_word(a.kind))}</td>"
        f"<td>{escape(signals_text(a))}</td><td class=num>{duration(a.t_ns - a.t_onset_ns)}</td></tr>"
        for a in board.cleared
        if a.id not in waiting
    )
    head = "<tr><th>over: since</th><th>kind</th><th>signals</th><th class=num>lasted</th></tr>"
    return f'<table class="quiet">{head}{rows}</table>' if rows else ""


def unexplained(board: Board) -> str:
    """One line for each modality above its limit that no open anomaly has part in, with the reason if it is known."""
    covered = {name for a in board.anomalies.values() for name, share in a.by_modality.items() if share}
    names = [s.modality or s.name for s in board.modalities() if exceeds(s)]
    return "".join(
        f'<div class="unexplained">{escape(sense_text(name))}: {escape(_why(board, name))}</div>'
        for name in names
        if name not in covered
    ) or ("" if board.modalities() else '<div class="muted">nothing is judged yet</div>')


def _why(board: Board, name: str) -> str:
    heard_ns = board.energy.t_ns if board.energy else board.now_ns
    above = f"above the limit for {duration(heard_ns - board.above_ns.get(name, heard_ns))}"
    health = board.health
    if health is None:
        return f"{above}, no event yet"
    if health.plant_state == PlantState.WARMING_UP:
        words = [flag_text("warming_up"), health.reason]
        return f"{above}, no event: {words[1] if words[0] in words[1] else ', '.join(filter(None, words))}"
    flag = next((f for f in health.flags if f in (f"uncalibrated:{name}", f"relieved:{name}", *WAITING_FLAGS)), "")
    return f"{above}, no event: {flag_text(flag)}" if flag else f"{above}, no event yet"
