"""Alarms as the operator meets them: what stands, what was done with it, and the text of one card."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import zip_longest

from fusion.alarms import AlarmState
from fusion.dashboard.board import Board, exceeds
from fusion.dashboard.words import (
    SPREADS,
    blame_text,
    duration,
    figure,
    flag_text,
    kind_text,
    percent,
    reading,
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
ENERGIES_SHOWN = 4
WAITING_FLAGS = ("settling", "warming_up")
RANK = (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED, AlarmState.RETURNED, AlarmState.SHELVED)


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
    def kind(self) -> str:
        """What kind of event it is."""
        return self.anomaly.kind if self.anomaly else self.alarm.kind if self.alarm else ""

    @property
    def t_onset_ns(self) -> int:
        """When it began."""
        return self.anomaly.t_onset_ns if self.anomaly else self.alarm.t_onset_ns if self.alarm else 0


def entries(board: Board) -> list[Entry]:
    """Every alarm that is not normal: those nobody has seen first, the shelved last, and the newest first in each."""
    found = [_entry(board, key) for key in {**board.anomalies, **board.alarms}]
    listed = [entry for entry in found if entry.state is not AlarmState.NORMAL]
    return sorted(listed, key=lambda e: (RANK.index(e.state), -e.t_onset_ns))


def _entry(board: Board, key: str) -> Entry:
    alarm, standing = board.alarms.get(key), key in board.anomalies
    anomaly = board.anomalies.get(key) or board.evidence.get(key)
    return Entry(id=key, state=_state(alarm, standing=standing), standing=standing, anomaly=anomaly, alarm=alarm)


def _state(alarm: AlarmOut | None, *, standing: bool) -> AlarmState:
    """State of an alarm; whether it stands is known from the anomalies, so that no message has to wait for another."""
    if alarm is not None and alarm.state == AlarmState.SHELVED:
        return AlarmState.SHELVED
    seen = alarm is not None and alarm.t_acknowledged_ns is not None
    if standing:
        return AlarmState.ACKNOWLEDGED if seen else AlarmState.UNACKNOWLEDGED
    return AlarmState.NORMAL if seen else AlarmState.RETURNED


# -- one card


def card(board: Board, entry: Entry) -> str:
    """One alarm: a sentence, since when, what was done with it, and its evidence."""
    anomaly = entry.anomaly
    told = f'<div>{_since(board, entry)} - <span class="life">{escape(_life(board, entry))}</span></div>'
    head = f'<div class="line">{glyph(entry)}<b class="sentence">{escape(_sentence(board, entry))}</b></div>'
    if anomaly is None:
        return head + told
    return head + told + _history(board, anomaly) + _evidence(board, anomaly) + _origin(anomaly)


def glyph(entry: Entry) -> str:
    """The state of an alarm as a shape with a word: filled while unacknowledged, hollow after."""
    shape = {
        AlarmState.UNACKNOWLEDGED: ("bad", "new alarm"),
        AlarmState.ACKNOWLEDGED: ("seen", "alarm"),
        AlarmState.RETURNED: ("returned", "returned"),
        AlarmState.SHELVED: ("aside", "shelved"),
    }
    level, text = shape[entry.state]
    return f'<span class="badge {level}">{text}</span>'


def _sentence(board: Board, entry: Entry) -> str:
    blamed = entry.anomaly.top_signals if entry.anomaly else []
    what = kind_text(entry.kind)
    return f"{what}: {blame_text(blamed[0], board.named(blamed[0].signal))}" if blamed else what


def _since(board: Board, entry: Entry) -> str:
    now_ns = board.now_ns
    began = when_text(entry.t_onset_ns, now_ns)
    if entry.standing:
        return f"since {began} ({duration(now_ns - entry.t_onset_ns)})"
    ended_ns = _ended_ns(entry)
    return f"from {began}" + (f" to {when_text(ended_ns, now_ns)}, well again" if ended_ns else ", well again")


def _ended_ns(entry: Entry) -> int | None:
    if entry.alarm and entry.alarm.t_cleared_ns is not None:
        return entry.alarm.t_cleared_ns
    return entry.anomaly.t_ns if entry.anomaly and entry.anomaly.state == AnomalyState.CLEARED else None


def _life(board: Board, entry: Entry) -> str:
    """What was done with an alarm, by whom and when."""
    alarm, now_ns = entry.alarm, board.now_ns
    words = []
    if alarm and entry.shelved:
        until = f" until {when_text(alarm.t_shelved_until_ns, now_ns)}" if alarm.t_shelved_until_ns else ""
        words.append(f"Shelved{until}" + (f" by {alarm.shelved_by}" if alarm.shelved_by else ""))
    if alarm and alarm.t_acknowledged_ns is not None:
        by = f" by {alarm.acknowledged_by}" if alarm.acknowledged_by else ""
        words.append(f"Acknowledged{by} at {when_text(alarm.t_acknowledged_ns, now_ns)}")
    elif entry.state is AlarmState.RETURNED:
        words.append("Returned, not yet seen")
    elif entry.state is AlarmState.UNACKNOWLEDGED:
        words.append("Unacknowledged")
    if alarm and alarm.accepted_by:
        words.append(f"Accepted as normal by {alarm.accepted_by}")
    return " - ".join(words)


def _history(board: Board, anomaly: AnomalyMessage) -> str:
    lines = []
    if anomaly.earlier:
        former = board.evidence.get(anomaly.earlier)
        when = f"since {when_text(former.t_onset_ns, board.now_ns)}, {signals_text(former)} " if former else ""
        lines.append(f"Seen before: {when}({anomaly.earlier})" if when else f"Seen before: {anomaly.earlier}")
    if anomaly.revision:
        lines.append(f"Revised: {anomaly.revision}")
    return "".join(f"<div>{escape(line)}</div>" for line in lines)


def _evidence(board: Board, anomaly: AnomalyMessage) -> str:
    blamed = anomaly.top_signals[:SIGNALS_SHOWN]
    if not blamed:
        return ""
    rows = "".join(_blame(board, b) for b in blamed)
    head = (
        "<tr><th>signal</th><th class=num>expected</th><th class=num>seen</th><th class=num>difference</th>"
        "<th class=num>share</th></tr>"
    )
    return f"<table>{head}{rows}</table>"


def _blame(board: Board, b: BlameOut) -> str:
    name = f"<td><b>{escape(b.signal)}</b> {escape(board.description(b.signal))}</td>"
    share = f"<td class=num>{percent(b.share)}</td>"
    if b.unit == SPREADS:
        what = f"{escape(b.where)}, {spreads(b.residual)}" if b.where else spreads(b.residual)
        return f"<tr>{name}<td class=where colspan=3>{what}</td>{share}</tr>"
    return (
        f"<tr>{name}<td class=num>{escape(_with_its(b.expected, b.unit))}</td>"
        f"<td class=num><b>{escape(_with_its(b.seen, b.unit))}</b></td>"
        f"<td class=num>{escape(with_unit(signed(b.residual), b.unit))}</td>{share}</tr>"
    )


def _with_its(value: float | None, unit: str) -> str:
    return "-" if value is None else with_unit(reading(value), unit)


def _origin(anomaly: AnomalyMessage) -> str:
    """For the engineer: senses, probability and the energies that raised it."""
    ranked = sorted(anomaly.by_modality.items(), key=lambda item: -(item[1] or 0))
    senses = ", ".join(f"{escape(name)} {percent(share)}" for name, share in ranked)
    energies = ", ".join(f"{escape(e.name)} x{figure(e.factor)}" for e in anomaly.energies[:ENERGIES_SHOWN])
    return (
        f'<div class="muted small">senses: {senses or "-"}; by chance p {figure(anomaly.p_value)}; '
        f"raised by {energies or '-'}; {escape(anomaly.id)}</div>"
    )


# -- what stands beside the cards


def accused(board: Board) -> list[str]:
    """Tags that standing alarms blame, the first of each alarm first."""
    blamed = [
        [b.signal for b in e.anomaly.top_signals if b.signal in board.tags]
        for e in entries(board)
        if e.anomaly and e.standing and not e.shelved
    ]
    return list(dict.fromkeys(name for rank in zip_longest(*blamed) for name in rank if name))


def calm(board: Board) -> str:
    """A line where no alarm is listed, else ""."""
    if entries(board):
        return ""
    if board.health is None:
        return '<div class="muted">nothing is known of alarms: no full message from the daemon yet</div>'
    when = "" if board.told else " when the daemon was last heard"
    if board.health.plant_state == PlantState.LEARNING:
        return '<div class="muted">nothing is judged yet: there is no model</div>'
    return f'<div class="calm">No open alarm{when}</div>'


def cleared(board: Board) -> str:
    """Those that are over, in one table; what nobody has seen yet stands above as a card."""
    waiting = {entry.id for entry in entries(board)}
    rows = "".join(
        f"<tr><td>{escape(when_text(a.t_onset_ns, board.now_ns))}</td><td>{escape(a.kind)}</td>"
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
        f'<div class="unexplained">{escape(name)} {escape(_why(board, name))}</div>'
        for name in names
        if name not in covered
    )


def _why(board: Board, name: str) -> str:
    heard_ns = board.energy.t_ns if board.energy else board.now_ns
    above = f"above its limit for {duration(heard_ns - board.above_ns.get(name, heard_ns))}"
    health = board.health
    if health is None:
        return f"{above}, no event yet"
    if health.plant_state == PlantState.WARMING_UP:
        words = [flag_text("warming_up"), health.reason]
        return f"{above}, no event: {words[1] if words[0] in words[1] else ', '.join(filter(None, words))}"
    flag = next((f for f in health.flags if f in (f"uncalibrated:{name}", f"relieved:{name}", *WAITING_FLAGS)), "")
    return f"{above}, no event: {flag_text(flag)}" if flag else f"{above}, no event yet"
