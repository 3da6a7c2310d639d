"""Marks: what people and alarms say of stretches of time, in a journal that only grows.

The last mark of a name holds. A mark without an end lasts until now; what is marked ``good`` is normal, whatever an
alarm that it covers has said.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fusion.alarms import Alarm, MarkKind, MarkOrder
from fusion.errors import ConfigError
from fusion.plain import decode, plain
from fusion.recordings.recording import LAST_NS, MARKED, NORMAL, Event
from fusion.records import Anomaly, AnomalyState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One stretch [UTC ns] and who said what of it; ``verdict`` is process or sensor, where that is known."""

    name: str
    kind: MarkKind
    onset_ns: int
    end_ns: int | None = None
    by: str = ""
    verdict: str = ""
    modalities: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject a mark that nobody could find again, or that ends before it begins."""
        if not self.name.strip():
            raise ConfigError("mark: a name is missing; say in a word or two what happened")
        if self.end_ns is not None and self.end_ns < self.onset_ns:
            raise ConfigError(f"mark {self.name!r}: it ends before it begins")

    def overlaps(self, t0_ns: int, t1_ns: int) -> bool:
        """Whether any of a span [UTC ns] lies in it."""
        return self.onset_ns <= t1_ns and t0_ns <= (LAST_NS if self.end_ns is None else self.end_ns)

    def covers(self, other: Mark) -> bool:
        """Whether all of another mark lies in it."""
        end_ns = LAST_NS if other.end_ns is None else other.end_ns
        return self.onset_ns <= other.onset_ns and end_ns <= (LAST_NS if self.end_ns is None else self.end_ns)

    def event(self) -> Event:
        """The mark as ground truth of a recording."""
        return Event(
            name=self.name,
            onset_ns=self.onset_ns,
            end_ns=self.end_ns,
            nuisance=self.kind is MarkKind.GOOD,
            ignore=self.kind in (MarkKind.MAINTENANCE, MarkKind.ALARM),
            kind=self.verdict,
            modalities=self.modalities,
            signals=self.signals,
        )


def alarm_mark(anomaly: Anomaly) -> Mark:
    """An anomaly as a mark, which lasts until it is cleared."""
    cleared = anomaly.state is AnomalyState.CLEARED
    return Mark(
        name=anomaly.id,
        kind=MarkKind.ALARM,
        onset_ns=anomaly.t_onset_ns,
        end_ns=anomaly.t_ns if cleared else None,
        verdict=str(anomaly.kind),
        modalities=tuple(anomaly.by_modality),
        signals=tuple(blame.signal for blame in anomaly.top_signals),
    )


def called_mark(alarm: Alarm) -> Mark | None:
    """What somebody called an alarm as a mark of its time; None where nobody did."""
    if alarm.called is None:
        return None
    name = f"alarm {alarm.anomaly.id}"
    return replace(alarm_mark(alarm.anomaly), name=name, kind=alarm.called, end_ns=alarm.cleared_ns, by=alarm.called_by)


def marks_of(text: str, place: str) -> dict[str, Mark]:
    """The last mark of each name in the text of a journal; what is none is said and left out."""
    found: dict[str, Mark] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            mark = decode(json.loads(line), Mark)
        except (ValueError, ConfigError) as error:
            log.warning("%s: line %d is no mark and left out (%s)", place, number, error)
        else:
            found[mark.name] = mark
    return found


class Journal:
    """The marks of a folder of recordings, one JSON line each."""

    def __init__(self, file: Path) -> None:
        self._file = file
        text = file.read_text() if file.is_file() else ""
        if text and not text.endswith("\n"):  # a process was killed while it wrote
            with file.open("a") as stream:
                stream.write("\n")
        self._marks = marks_of(text, str(file))

    def add(self, mark: Mark) -> None:
        """Append a mark; it is on the disk when this returns.

        Raises:
            OSError: where the disk takes it not.
        """
        with self._file.open("a") as stream:
            stream.write(json.dumps(plain(mark)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._marks[mark.name] = mark

    def named(self, name: str) -> Mark | None:
        """The mark that has a name."""
        return self._marks.get(name)

    def ordered(self, order: MarkOrder, now_ns: int) -> Mark:
        """The mark that an order asks for.

        Raises:
            ConfigError: where it has no name or nobody says so, or it ends before it begins.
        """
        if not order.by.strip():
            raise ConfigError(f"mark {order.name!r}: by is missing; say who says so")
        before = self.named(order.name)
        begun_ns = now_ns if before is None or before.end_ns is not None else before.onset_ns
        onset_ns = begun_ns if order.t_from_ns is None else order.t_from_ns
        return Mark(name=order.name, kind=order.kind, onset_ns=onset_ns, end_ns=order.t_to_ns, by=order.by)

    def within(self, t0_ns: int, t1_ns: int) -> list[Mark]:
        """The marks that hold in a span [UTC ns], but for alarms in what somebody called good."""
        return holding(list(self._marks.values()), t0_ns, t1_ns)

    def kinds(self, t0_ns: int, t1_ns: int) -> set[MarkKind]:
        """What kinds of marks hold in a span [UTC ns]."""
        return {mark.kind for mark in self.within(t0_ns, t1_ns)}

    def forget(self, before_ns: int) -> None:
        """Keep in mind no mark that was over before a time [UTC ns]; all of them stay in the file."""
        self._marks = {
            name: mark for name, mark in self._marks.items() if mark.end_ns is None or mark.end_ns >= before_ns
        }


def holding(marks: Sequence[Mark], t0_ns: int, t1_ns: int) -> list[Mark]:
    """The marks that hold in a span [UTC ns], but for alarms in what somebody called good."""
    here = [mark for mark in marks if mark.overlaps(t0_ns, t1_ns)]
    good = [mark for mark in here if mark.kind is MarkKind.GOOD]
    return [m for m in here if m.kind is not MarkKind.ALARM or not any(g.covers(m) for g in good)]


def kind_of(marks: Sequence[Mark]) -> str:
    """What a recording with these marks shows: ``normal``, or ``marked``, of which the rest may be trained on."""
    return NORMAL if all(mark.kind is MarkKind.GOOD for mark in marks) else MARKED
