"""Alarms as the operator meets them, what may be ordered of them, and what is said of stretches of time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fusion.records import Anomaly, AnomalyState


class AlarmState(StrEnum):
    """Where an alarm stands for the operator; ``suppressed`` is by design, by a rule. Source: ISA-18.2."""

    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned_unacknowledged"
    NORMAL = "normal"
    SHELVED = "shelved"
    SUPPRESSED = "suppressed"


ASIDE = (AlarmState.SHELVED, AlarmState.SUPPRESSED)
"""States in which an alarm that stands calls nobody."""


class Priority(StrEnum):
    """How urgent an alarm is, the least first. Source: ISA-18.2."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


PRIORITIES = tuple(Priority)


class OrderKind(StrEnum):
    """What an operator may do with an alarm, or say of it.

    ``normal`` says that what it shows is how the plant is from now on, ``fault`` and ``maintenance`` what it was.
    """

    ACKNOWLEDGE = "acknowledge"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    NORMAL = "normal"
    FAULT = "fault"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmOrder:
    """An operator's word on the alarm of the anomaly ``id``; shelved ``for_s``."""

    id: str
    order: OrderKind
    by: str
    for_s: float = 0.0


class MarkKind(StrEnum):
    """What a stretch of time was."""

    FAULT = "fault"
    MAINTENANCE = "maintenance"
    ALARM = "alarm"
    GOOD = "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkOrder:
    """What somebody says of a stretch [UTC ns]; without a beginning of now, or of what has this name and no end."""

    name: str
    kind: MarkKind
    by: str
    t_from_ns: int | None = None
    t_to_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeOrder:
    """What advice may do from now on: observe, shadow, advise or supervised."""

    mode: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrder:
    """Which of the models that are kept is to be used from now on."""

    model: str
    by: str


Order = AlarmOrder | MarkOrder | ModeOrder | ModelOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One anomaly as the operator meets it: what was done with it, when, and by whom.

    ``called`` is what somebody said that it was. ``suppressed_by`` is the state of the plant in which it is no alarm,
    "" where it is one. ``priority`` is the highest that it has had.
    """

    anomaly: Anomaly
    raised_ns: int
    cleared_ns: int | None = None
    acknowledged_ns: int | None = None
    acknowledged_by: str = ""
    shelved_until_ns: int | None = None
    shelved_by: str = ""
    accepted_by: str = ""
    called: MarkKind | None = None
    called_by: str = ""
    suppressed_by: str = ""
    priority: Priority = Priority.LOW

    @property
    def active(self) -> bool:
        """Whether the anomaly stands."""
        return self.anomaly.state is not AnomalyState.CLEARED

    def state(self, t_ns: int) -> AlarmState:
        """State at a time, which matters to a shelved alarm only."""
        if self.suppressed_by:
            return AlarmState.SUPPRESSED if self.active else AlarmState.NORMAL
        if self.shelved_until_ns is not None and t_ns < self.shelved_until_ns:
            return AlarmState.SHELVED
        if self.active:
            return AlarmState.UNACKNOWLEDGED if self.acknowledged_ns is None else AlarmState.ACKNOWLEDGED
        return AlarmState.RETURNED if self.acknowledged_ns is None else AlarmState.NORMAL
