"""The alarm list: what was raised, who has seen it, what is shelved; survives a restart as JSON.

States follow ISA-18.2: an alarm is active or returned to normal, acknowledged or not, and may be shelved for a time.
Decides nothing about the plant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from control.anomaly.rules import AlarmRules, Suppression, Urgency
from fusion.alarms import PRIORITIES, Alarm, AlarmOrder, AlarmState, MarkKind, OrderKind
from fusion.errors import ConfigError
from fusion.records import NS_PER_S, Anomaly, AnomalyState

FORMAT = "fusion-alarms/1"


@dataclass(kw_only=True, slots=True)
class AlarmConfig:
    """How many finished alarms are kept, how many of those are shown, and for how long one may be shelved at most.

    An alarm that stands is always kept and shown. Of the finished ones those that nobody acknowledged go last.
    ``suppress`` says in which states of the plant what is no alarm, ``priorities`` what is how urgent.
    """

    keep: int = 500
    shown: int = 100
    longest_shelf_s: float = 28_800.0
    suppress: list[Suppression] = field(default_factory=list)
    priorities: list[Urgency] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reject what keeps nothing."""
        if self.keep < 1 or self.shown < 1 or not 0 < self.longest_shelf_s < 1e9:
            raise ConfigError("alarms: keep and shown must be at least 1 and longest_shelf_s positive, below 1e9")


class AlarmLog:
    """Alarms by anomaly id, oldest first."""

    def __init__(self, config: AlarmConfig | None = None) -> None:
        self._config = config or AlarmConfig()
        self._alarms: dict[str, Alarm] = {}

    @classmethod
    def of(cls, alarms: Iterable[Alarm], config: AlarmConfig | None = None) -> AlarmLog:
        """A list of these."""
        made = cls(config)
        made._alarms = {alarm.anomaly.id: alarm for alarm in alarms}
        return made

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All that are kept."""
        return tuple(self._alarms.values())

    @property
    def active(self) -> tuple[Alarm, ...]:
        """Those whose anomaly stands."""
        return tuple(a for a in self._alarms.values() if a.active)

    def standing(self, t_ns: int) -> tuple[Alarm, ...]:
        """All that are active, and the newest of those that are not but somebody has yet to see to, oldest first."""
        rest = [a for a in self._alarms.values() if not a.active and a.state(t_ns) is not AlarmState.NORMAL]
        return tuple(sorted((*self.active, *rest[-self._config.shown :]), key=lambda a: a.raised_ns))

    def record(self, anomalies: Iterable[Anomaly]) -> tuple[Alarm, ...]:
        """Take the changes that the detector told; returned are the alarms that were raised by them or returned."""
        changed: dict[str, Alarm] = {}
        for anomaly in anomalies:
            old = self._alarms.get(anomaly.id)
            new = self._next(old, anomaly)
            self._alarms[anomaly.id] = new
            if old is None or old.active != new.active:
                changed[anomaly.id] = new
        self._trim()
        return tuple(changed.values())

    def judge(self, rules: AlarmRules) -> tuple[Alarm, ...]:
        """Have those that stand be what the rules say; returned are those that this has changed."""
        changed = []
        for old in self.active:
            priority = max(old.priority, rules.priority(old.anomaly), key=PRIORITIES.index)
            new = replace(old, suppressed_by=rules.suppressed_by(old.anomaly), priority=priority)
            if new != old:
                self._alarms[old.anomaly.id] = new
                changed.append(new)
        return tuple(changed)

    def obey(self, order: AlarmOrder, t_ns: int) -> Alarm | None:
        """Do what an operator says; None where that changes nothing.

        Raises:
            ConfigError: where no such alarm is kept, nobody has signed, or it is to be shelved for no time.
        """
        by = " ".join(order.by.split())[:80]
        if not by:
            raise ConfigError(f"alarm {order.id!r}: by is empty; expected the name of who orders {order.order}")
        old = self._known(order.id)
        new = self._obeyed(old, order, by, t_ns)
        self._alarms[order.id] = new
        return None if new == old else new

    def acknowledge(self, anomaly_id: str, by: str, t_ns: int) -> Alarm:
        """Note who has seen it first.

        Raises:
            ConfigError: where no such alarm is kept.
        """
        if self._known(anomaly_id).acknowledged_ns is not None:
            return self._alarms[anomaly_id]
        return self._change(anomaly_id, acknowledged_ns=t_ns, acknowledged_by=by)

    def shelve(self, anomaly_id: str, until_ns: int, t_ns: int, by: str = "") -> Alarm:
        """Set it aside until a time, cut at the longest shelf; a time not after ``t_ns`` takes it back.

        Raises:
            ConfigError: where no such alarm is kept.
        """
        if until_ns <= t_ns:
            return self._change(anomaly_id, shelved_until_ns=None, shelved_by="")
        latest_ns = t_ns + round(self._config.longest_shelf_s * NS_PER_S)
        return self._change(anomaly_id, shelved_until_ns=min(until_ns, latest_ns), shelved_by=by)

    def unshelve_due(self, t_ns: int) -> tuple[Alarm, ...]:
        """Take back what was shelved until now; returned are those alarms."""
        due = [a for a in self._alarms.values() if a.shelved_until_ns is not None and a.shelved_until_ns <= t_ns]
        return tuple(self.shelve(a.anomaly.id, t_ns, t_ns) for a in due)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; the inverse of ``from_dict``."""
        return {"format": FORMAT, "alarms": [plain_alarm(a) for a in self._alarms.values()]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], config: AlarmConfig | None = None) -> AlarmLog:
        """Rebuild the list after a restart.

        Raises:
            ConfigError: where the data are not an alarm list of this format.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ConfigError(f"alarms: format is not accepted; expected {FORMAT!r}")
        try:
            return cls.of(msgspec.convert(data.get("alarms"), list[Alarm]), config)
        except msgspec.ValidationError as error:
            raise ConfigError(f"alarms: {error}") from error

    def _next(self, old: Alarm | None, anomaly: Anomaly) -> Alarm:
        """What becomes of an alarm; one that is raised, also after its end, has been seen by nobody."""
        cleared_ns = anomaly.t_ns if anomaly.state is AnomalyState.CLEARED else None
        if old is None or (not old.active and cleared_ns is None):
            return Alarm(anomaly=anomaly, raised_ns=anomaly.t_ns, cleared_ns=cleared_ns)
        return replace(old, anomaly=anomaly, cleared_ns=cleared_ns)

    def _obeyed(self, old: Alarm, order: AlarmOrder, by: str, t_ns: int) -> Alarm:
        key = order.id
        match order.order:
            case OrderKind.ACKNOWLEDGE:
                return self.acknowledge(key, by, t_ns)
            case OrderKind.SHELVE:
                if not order.for_s > 0:
                    raise ConfigError(f"alarm {key!r}: for_s: {order.for_s} must be positive; expected seconds")
                for_ns = round(min(order.for_s, self._config.longest_shelf_s) * NS_PER_S)
                return self.shelve(key, t_ns + for_ns, t_ns, by)
            case OrderKind.UNSHELVE:
                return old if old.shelved_until_ns is None else self.shelve(key, t_ns, t_ns)
            case OrderKind.NORMAL:
                self.acknowledge(key, by, t_ns)
                return old if old.accepted_by else self._change(key, accepted_by=by, called=MarkKind.GOOD, called_by=by)
            case OrderKind.FAULT | OrderKind.MAINTENANCE:
                if old.accepted_by:
                    raise ConfigError(
                        f"alarm {key!r}: {old.accepted_by} has taken it for normal; mark the time instead"
                    )
                self.acknowledge(key, by, t_ns)
                kind = MarkKind(order.order)
                return old if old.called is kind else self._change(key, called=kind, called_by=by)

    def _trim(self) -> None:
        """Let finished alarms go beyond what is kept, those that were seen first."""
        done = [(a.acknowledged_ns is None, key) for key, a in self._alarms.items() if not a.active]
        for _, key in sorted(done, key=lambda item: item[0])[: max(0, len(done) - self._config.keep)]:
            del self._alarms[key]

    def _known(self, anomaly_id: str) -> Alarm:
        if anomaly_id not in self._alarms:
            known = ", ".join(list(self._alarms)[-5:]) or "none"
            raise ConfigError(f"alarm {anomaly_id!r} is not known; the latest are: {known}")
        return self._alarms[anomaly_id]

    def _change(self, anomaly_id: str, **values: Any) -> Alarm:
        self._alarms[anomaly_id] = replace(self._known(anomaly_id), **values)
        return self._alarms[anomaly_id]


def plain_alarm(alarm: Alarm) -> dict[str, Any]:
    """An alarm as plain values that JSON can hold, but for numbers that are not finite."""
    made: dict[str, Any] = msgspec.to_builtins(alarm, enc_hook=_number)
    return made


def _number(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"an alarm cannot hold {type(value).__name__}")
