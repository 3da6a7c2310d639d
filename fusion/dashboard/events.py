"""Alarms as a whole: what has stood, how often, how much that asks of an operator, and what was like it before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusion.alarms import MarkKind
from fusion.dashboard.acts import Act
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.records import NS_PER_S, AnomalyState

TEN_MIN_NS, HOUR_NS, DAY_NS = 600 * NS_PER_S, 3_600 * NS_PER_S, 86_400 * NS_PER_S
KNOWN = 2000
CHATTERS = 3
STALE_NS = DAY_NS
FLOOD = 10
SIMILAR_SHOWN = 5
LEADING = 3
LOADS = ((1.0, "very likely acceptable"), (2.0, "manageable"), (5.0, "likely over-demanding"))
UNACCEPTABLE = "very likely unacceptable"
"""Average number of alarms in ten minutes and what it asks of one operator. Source: EEMUA 191, table 4."""


@dataclass(frozen=True, slots=True)
class Event:
    """One alarm that stood or stands (no end), its verdict, and the signals that it blamed, the first most."""

    id: str
    t_ns: int
    end_ns: int | None
    verdict: str
    signals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """How many alarms there were: in the last ten minutes, at most in any ten, on average, and in the last day."""

    lately: int
    peak: int
    average: float
    day: int
    hours: float

    @property
    def verdict(self) -> str:
        """What the average asks of one operator."""
        return next((text for limit, text in LOADS if self.average <= limit), UNACCEPTABLE)


def known(board: Board, archive: Archive | None) -> list[Event]:
    """The newest events that the recordings or the page itself know of, newest first."""
    found = {
        mark.name: Event(mark.name, mark.onset_ns, mark.end_ns, mark.verdict, mark.signals)
        for mark in (archive.all_marks() if archive else ())
        if mark.kind is MarkKind.ALARM
    }
    for anomaly in board.events.values():
        over = anomaly.id not in board.anomalies
        end_ns = anomaly.t_ns if over or anomaly.state == AnomalyState.CLEARED else None
        signals = tuple(blame.signal for blame in anomaly.top_signals)
        found[anomaly.id] = Event(anomaly.id, anomaly.t_onset_ns, end_ns, anomaly.kind, signals)
    return sorted(found.values(), key=lambda event: -event.t_ns)[:KNOWN]


def load(events: Sequence[Event], since_ns: int, now_ns: int) -> Load:
    """What they ask of an operator in the last day; on average since ``since_ns`` where that is later.

    Some that began before are known as well: those that stand.
    """
    begin_ns = max(since_ns, now_ns - DAY_NS)
    times = sorted(event.t_ns for event in events if now_ns - DAY_NS <= event.t_ns <= now_ns)
    tens = max(1.0, (now_ns - begin_ns) / TEN_MIN_NS)
    return Load(
        lately=sum(t_ns > now_ns - TEN_MIN_NS for t_ns in times),
        peak=max((sum(t <= other < t + TEN_MIN_NS for other in times) for t in times), default=0),
        average=sum(t_ns >= begin_ns for t_ns in times) / tens,
        day=len(times),
        hours=(now_ns - begin_ns) / HOUR_NS,
    )


def chattering(events: Iterable[Event], now_ns: int) -> dict[str, int]:
    """Signals that were blamed first three times or more within an hour of the last day, and how often that day."""
    times: dict[str, list[int]] = defaultdict(list)
    for event in sorted(events, key=lambda e: e.t_ns):
        if event.signals and event.t_ns > now_ns - DAY_NS:
            times[event.signals[0]].append(event.t_ns)
    return {
        name: len(raised)
        for name, raised in times.items()
        if any(late - soon < HOUR_NS for soon, late in zip(raised, raised[CHATTERS - 1 :], strict=False))
    }


def stale(events: Iterable[Event], now_ns: int) -> list[Event]:
    """Those that have stood for more than a day."""
    return [event for event in events if event.end_ns is None and now_ns - event.t_ns > STALE_NS]


def similar(event: Event, events: Iterable[Event]) -> list[Event]:
    """Earlier ones that blamed the same signals, the most alike first and of those the newest."""
    mine = set(event.signals[:LEADING])
    scored = [
        (len(mine & set(other.signals[:LEADING])) + (other.signals[:1] == event.signals[:1]), other.t_ns, other)
        for other in events
        if other.t_ns < event.t_ns and mine & set(other.signals[:LEADING])
    ]
    return [other for _, _, other in sorted(scored, key=lambda s: s[:2], reverse=True)[:SIMILAR_SHOWN]]


def said_of(event: Event, archive: Archive | None, now_ns: int) -> str:
    """What people have marked while it stood."""
    marks = archive.marks(event.t_ns, now_ns if event.end_ns is None else event.end_ns) if archive else []
    people = [mark for mark in marks if mark.kind is not MarkKind.ALARM]
    return "; ".join(f"{m.kind}: {m.name}" + (f" ({m.by})" if m.by else "") for m in people)


def by_person(acts: Iterable[Act], now_ns: int) -> dict[str, int]:
    """What each person has done about alarms in the last day."""
    return dict(Counter(a.by for a in acts if a.what == "order" and a.by and a.t_ns > now_ns - DAY_NS).most_common())
