"""Rules of a site for its alarms: in which states of the plant some are none, and how urgent the others are.

"Suppressed by design" in the words of ISA-18.2: while the mill stands, what stands out in it calls nobody. The anomaly
stands all the same, on record and for whoever looks; what still stands once the state is over becomes an alarm then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fusion.alarms import Priority
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant
from fusion.records import NS_PER_S, Anomaly, AnomalyKind, Frame


@dataclass(kw_only=True, slots=True)
class Suppression:
    """While ``tag`` has one of the values ``equals``, or is ``above`` or ``below``, alarms of a part are suppressed.

    The part are ``signals`` and whatever belongs to ``equipment``; without either it is all of the plant. It stays so
    for ``after_s`` more, in which the plant settles; ``because`` names the state in words. A tag that is bad, too old
    or not there suppresses nothing.
    """

    tag: str
    equals: list[float] = field(default_factory=list)
    above: float | None = None
    below: float | None = None
    signals: list[str] = field(default_factory=list)
    equipment: list[str] = field(default_factory=list)
    after_s: float = 0.0
    because: str = ""

    def __post_init__(self) -> None:
        """Reject what never holds, and what says in two ways when it does."""
        ways = bool(self.equals), self.above is not None, self.below is not None
        if sum(ways) != 1:
            raise ConfigError(f"alarms.suppress: of {self.tag!r}: say one of equals, above and below")
        if not 0 <= self.after_s < math.inf:
            raise ConfigError(f"alarms.suppress: after_s of {self.tag!r} must not be negative: {self.after_s}")

    def holds(self, value: float) -> bool:
        """Whether the plant is in this state."""
        if self.above is not None:
            return value > self.above
        if self.below is not None:
            return value < self.below
        return value in self.equals

    @property
    def reason(self) -> str:
        """The state in words."""
        limits = {"above": self.above, "below": self.below}
        said = [f"{word} {limit:g}" for word, limit in limits.items() if limit is not None]
        state = f"{self.tag} is {said[0] if said else ' or '.join(f'{value:g}' for value in self.equals)}"
        return f"{self.because} ({state})" if self.because else state


@dataclass(kw_only=True, slots=True)
class Urgency:
    """How urgent alarms are of ``signals`` and of whatever belongs to ``equipment``; without either, of all."""

    priority: Priority
    signals: list[str] = field(default_factory=list)
    equipment: list[str] = field(default_factory=list)


class AlarmRules:
    """What the rules say of anomalies, from tick to tick; each is about what an anomaly blames most.

    Raises:
        ConfigError: where a rule names what the plant does not have.
    """

    def __init__(
        self, suppress: Sequence[Suppression] = (), priorities: Sequence[Urgency] = (), plant: Plant | None = None
    ) -> None:
        self._suppress = [(rule, _part(rule, plant, "alarms.suppress", [rule.tag])) for rule in suppress]
        self._priorities = [(rule.priority, _part(rule, plant, "alarms.priorities")) for rule in priorities]
        self._until_ns = [0] * len(suppress)
        self._now_ns = 0

    def see(self, frame: Frame) -> None:
        """Note in which states the plant is."""
        self._now_ns, values = frame.t_ns, frame.values
        for i, (rule, _) in enumerate(self._suppress):
            value = values.get(rule.tag)
            if isinstance(value, float) and rule.holds(value):
                self._until_ns[i] = frame.t_ns + round(rule.after_s * NS_PER_S)

    def suppressed_by(self, anomaly: Anomaly) -> str:
        """The state of the plant in which an anomaly is no alarm, now; "" where it is one."""
        blamed = _blamed(anomaly)
        for (rule, part), until_ns in zip(self._suppress, self._until_ns, strict=True):
            if until_ns >= self._now_ns > 0 and (part is None or blamed in part):
                return rule.reason
        return ""

    def priority(self, anomaly: Anomaly) -> Priority:
        """How urgent an anomaly is: by the first rule about it; else one of an instrument is less so than any other."""
        blamed = _blamed(anomaly)
        usual = Priority.LOW if anomaly.kind is AnomalyKind.SENSOR else Priority.MEDIUM
        return next((priority for priority, part in self._priorities if part is None or blamed in part), usual)


def _blamed(anomaly: Anomaly) -> str:
    return anomaly.top_signals[0].signal if anomaly.top_signals else ""


def _part(
    rule: Suppression | Urgency, plant: Plant | None, key: str, tags: Sequence[str] = ()
) -> frozenset[str] | None:
    """The signals of the part that a rule is about; None for all."""
    if plant is None:
        raise ConfigError(f"{key}: needs the plant that its names are of")
    process = {signal.name for signal in plant.signals if signal.modality is Modality.PROCESS}
    places = {signal.equipment for signal in plant.signals} - {""}
    for part, given, known in (
        ("tag", tags, process),
        ("signals", rule.signals, {signal.name for signal in plant.signals}),
        ("equipment", rule.equipment, places),
    ):
        for name in given:
            if name not in known:
                accepted = ", ".join(sorted(known)) or "none; the plant file names no equipment"
                raise ConfigError(f"{key}: {part}: {name!r} is not accepted; expected one of: {accepted}")
    if not rule.signals and not rule.equipment:
        return None
    belonging = {signal.name for signal in plant.signals if signal.equipment in rule.equipment}
    return frozenset(belonging | set(rule.signals))
