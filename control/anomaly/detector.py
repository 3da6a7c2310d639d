"""From surprise to events: raised after an on-delay, held while it lasts, cleared once the plant is well.

An event covers the senses in which it began and those that join within a short time. What later becomes strange in
other senses, or in signals that have nothing to do with it, is another event, also while the first stands. Onset, kind
and blame are an event's own. Knows no model: rows of raw energies come in, anomalies go out.
Shape letters: E energies, G signals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from control.anomaly.belonging import Belonging, either
from control.anomaly.calibration import STRANGE, Calibration, Surprise
from control.anomaly.event import Event, blend, first_blamed, told
from control.anomaly.evidence import Contributions, EvidenceConfig, Finding, blame_signals, by_group, find, partakers
from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.records import NS_PER_S, Anomaly, AnomalyKind, AnomalyState, Origin

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
UNCALIBRATED = "uncalibrated:"
SETTLING = "settling"
CLOCK = "clock:"
LATE = "began to arrive late, or its clock to differ"
STANDING = "it stood when judging began: a fault, or a new operating level, which you may accept as normal"
FOREIGN = (
    "it stood when judging began, far beyond all that the model was trained on: another operating point rather than a "
    "fault, of which the model can tell little; train on normal time that is like it, or accept it as normal"
)
REMEMBERING = (Origin.AHEAD, Origin.LAW, Origin.LATER)  # what they compare reaches back minutes, whatever their speed
FEWEST_TICKS = {
    "join_s": 5, "decide_s": 5, "blind_s": 10, "residue_s": 50, "largest_gap_s": 1.5, "evidence_s": 5, "settling_s": 10
}  # fmt: skip
"""The least that a delay lasts on a plant of a long step: what energies remember are ticks, whatever their length."""
FAST = 0.04  # weight of the newest tick from which an average has forgotten a fault within half a minute
EARLIER = 50  # events of the past among which one that looks the same is looked for


@dataclass(kw_only=True, slots=True)
class DetectorConfig:
    """Delays and hysteresis of the life cycle; the on-delay is that of the calibration.

    Cleared below ``deadband`` of the limit for ``off_delay_s``: all energies of the event's senses, or the fast ones
    where they had been above, for the slow ones remember the fault longer than it lasts. Within ``join_s`` of its
    raise another sense or signal joins an event. Kind and blame follow the moment at which it stands out most for
    ``decide_s``; later they are revised only where it stands out ``revise`` times as much, or where a sign of life or
    a clock flag within ``join_s`` shows that the signal blamed first is itself at fault. Held events are reported
    every ``update_s``. An event whose energies are all absent stays open for ``blind_s``. What slow energies still
    hold of an event that was cleared raises nothing for ``residue_s``.

    While the flag ``settling`` is given, for ``settling_s`` after a move of the operator, energies of the origins in
    ``settling`` are judged by a limit larger by ``settling_factor``: a move takes the whole plant somewhere else, while
    relations, balances and senses still have to agree.

    No delay is shorter than ``FEWEST_TICKS`` of the plant.
    """

    deadband: float = 0.7
    off_delay_s: float = 30.0
    join_s: float = 120.0
    decide_s: float = 60.0
    revise: float = 1.5
    update_s: float = 30.0
    blind_s: float = 600.0
    residue_s: float = 600.0
    largest_gap_s: float = 5.0
    evidence_s: float = 30.0
    settling_s: float = 60.0
    settling_factor: float = 3.0
    settling: tuple[str, ...] = (str(Origin.AHEAD), str(Origin.LATER))
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)

    def __post_init__(self) -> None:
        """Reject a hysteresis that is none."""
        if not 0 < self.deadband < 1:
            raise ConfigError(f"detector.deadband: {self.deadband} must be between 0 and 1")
        for name in ("settling_factor", "revise"):
            if getattr(self, name) < 1:
                raise ConfigError(f"detector.{name}: {getattr(self, name)} must be at least 1")
        if unknown := set(self.settling) - set(Origin):
            accepted = ", ".join(Origin)
            raise ConfigError(f"detector.settling: {min(unknown)!r} is not accepted; expected some of {accepted}")
        delays = (
            "off_delay_s",
            "join_s",
            "decide_s",
            "update_s",
            "blind_s",
            "residue_s",
            "largest_gap_s",
            "evidence_s",
            "settling_s",
        )
        for name in delays:
            if getattr(self, name) <= 0:
                raise ConfigError(f"detector.{name}: {getattr(self, name)} must be positive")

    def of_step(self, step_s: float) -> DetectorConfig:
        """The delays of a plant with a step of so many seconds."""
        return replace(self, **{name: max(getattr(self, name), n * step_s) for name, n in FEWEST_TICKS.items()})


class Detector:
    """Follows the energies tick by tick; ``open`` are the events that stand, ``sequence`` how many there ever were."""

    def __init__(
        self, config: DetectorConfig, calibration: Calibration, plant: Plant, model_id: str, sequence: int = 0
    ) -> None:
        self._config = config = config.of_step(calibration.step_s)
        self._calibration = calibration
        self._plant = plant
        self._model_id = model_id
        self.sequence = sequence
        self._open: list[Event] = []
        self._closed: deque[Anomaly] = deque(maxlen=EARLIER)
        self._above_since_ns: int | None = None
        self._last_ns: int | None = None
        self._first_ns: int | None = None
        self._contributions: Contributions | None = None
        self._factor: Floats | None = None
        self._blame: Floats | None = None
        energies = calibration.energies
        self._group = np.array([str(energy.modality) for energy in energies])
        self._fast = np.array([e.speed >= FAST and e.origin not in REMEMBERING for e in energies], bool)
        self._alive = np.array([e.origin is Origin.ALIVE for e in energies], bool)
        self._residue_until_ns = np.zeros(len(energies), np.int64)
        self._clocks: dict[str, int] = {}
        self._belonging = Belonging(plant)
        self.surprise: Surprise | None = None
        settling = [energy.origin in config.settling for energy in energies]
        self._relief = np.where(settling, config.settling_factor, 1.0)

    @property
    def open(self) -> tuple[Anomaly, ...]:
        """Events that stand, oldest first, as last reported."""
        return tuple(o.anomaly for o in self._open)

    @property
    def attentive(self) -> bool:
        """Whether contributions are wanted with the next row: something is open or near its limit."""
        near = self._factor is not None and bool((self._factor >= self._config.evidence.faint).any())
        return near or bool(self._open)

    def step(
        self,
        t_ns: int,
        energies_row: Floats,
        contributions: Contributions | None = None,
        flags: Sequence[str] = (),
    ) -> list[Anomaly]:
        """Take the raw energies [E] of a tick (NaN where absent) and tell what changed.

        Flags: ``uncalibrated:<modality>`` excludes the energies of a modality, ``settling`` widens the limit of fast
        energies, ``clock:<signal>`` says that stamps or arrivals of a signal are not what they were. Returned are
        events raised, held (at a slow rate) and cleared, in that order of age.
        """
        factor = self._judge(energies_row, flags)
        if self._last_ns is None or t_ns - self._last_ns > self._config.largest_gap_s * NS_PER_S:
            self._above_since_ns = None
        self._remember(t_ns, factor, contributions)
        if self._first_ns is None and np.isfinite(factor).any():
            self._first_ns = t_ns
        changes = [change for o in list(self._open) for change in self._follow(o, t_ns, self._part(o, factor))]
        changes += self._watch(t_ns, factor, contributions)
        doubted = (flag.removeprefix(CLOCK) for flag in flags if flag.startswith(CLOCK))
        self._clocks = {name: self._clocks.get(name, t_ns) for name in doubted}
        changes += self._explained(t_ns, factor)
        self._last_ns = t_ns
        return changes

    def resume(self, anomalies: Sequence[Anomaly]) -> None:
        """Take over events that were open before a restart."""
        for a in anomalies:
            if a.state is not AnomalyState.CLEARED and a.id not in {o.anomaly.id for o in self._open}:
                known = Event(a, set(a.by_modality), a.t_onset_ns, a.t_ns, a.t_ns, loud=True)
                signs = {e.name for e in self._calibration.energies if e.origin is Origin.ALIVE}
                known.dead = not signs.isdisjoint(name for name, _ in a.energies)
                known.best = max((factor for _, factor in a.energies), default=0.0)
                known.explained = first_blamed(a) if a.revision.endswith(LATE) else ""
                self._open.append(known)

    def own(self, anomaly_id: str) -> Bools:
        """The energies [E] of the senses of an open event; none where it does not stand."""
        groups = next((o.groups for o in self._open if o.anomaly.id == anomaly_id), set())
        return np.isin(self._group, sorted(groups))

    def _judge(self, row: Floats, flags: Sequence[str]) -> Floats:
        """Factors [E] of the limit, NaN where an energy takes no part."""
        outside = {f.removeprefix(UNCALIBRATED) for f in flags if f.startswith(UNCALIBRATED)}
        masked = np.isin(self._group, sorted(outside))
        self.surprise = self._calibration.score(np.where(masked, np.nan, row))
        return self.surprise.factor / self._relief if SETTLING in flags else self.surprise.factor

    def _remember(self, t_ns: int, factor: Floats, contributions: Contributions | None) -> None:
        """Running averages of the evidence, so that an event is judged on more than its last tick."""
        step_s = 1.0 if self._last_ns is None else (t_ns - self._last_ns) / NS_PER_S
        alpha = min(max(step_s, 0.0) / self._config.evidence_s, 1.0) if self._above_since_ns or self._open else 1.0
        self._factor = blend(self._factor, np.nan_to_num(factor), alpha)
        if contributions is not None:
            self._contributions = contributions

    # --- a new one

    def _watch(self, t_ns: int, factor: Floats, contributions: Contributions | None) -> list[Anomaly]:
        """Raise once what no open event covers has been above the limit for the on-delay."""
        self._residue_until_ns[np.nan_to_num(factor) < self._config.deadband] = 0
        free = np.where(self._residue_until_ns > t_ns, np.nan, self._uncovered(factor, contributions))
        peaks = by_group(free, self._group.tolist())
        if max(peaks.values(), default=0.0) < 1:
            self._above_since_ns = None
            return []
        if self._above_since_ns is None:
            self._above_since_ns = t_ns
            self._factor = np.nan_to_num(factor)
            self._blame = None
        if contributions is not None:
            blame = blame_signals(free, contributions, self._config.evidence)
            self._blame = blend(self._blame, blame, self._evidence_alpha()) if blame.any() else self._blame
        needed_s = self._calibration.on_delay_s - self._calibration.step_s
        if t_ns - self._above_since_ns < needed_s * NS_PER_S:
            return []
        onset_ns, self._above_since_ns = self._above_since_ns, None
        groups = {group for group, value in peaks.items() if value >= 1}
        return [self._raise(t_ns, onset_ns, groups, free)]

    def _uncovered(self, factor: Floats, contributions: Contributions | None) -> Floats:
        """Factors [E] without what open events explain: their senses, but for signals that they have no part in.

        Within ``join_s`` of its raise an event takes what comes; later, only what its signals and their neighbours in
        the plant's graph contribute.
        """
        free = factor.copy()
        for o in self._open:
            own = self._mine(o)
            young = self._last_ns is None or self._last_ns - o.raised_ns <= self._config.join_s * NS_PER_S
            if young or contributions is None or o.signals is None:
                free[own] = np.nan
                continue
            inside, outside = self._belonging.shares(o.signals, contributions)
            free[own] = np.where(outside > inside, free * (1.0 - inside), np.nan)[own]
        return free

    def _mine(self, o: Event) -> Bools:
        """The energies [E] of an event's senses; signs of life only where it is of a sense that has died."""
        return np.isin(self._group, sorted(o.groups)) & (~self._alive | o.dead)

    def _part(self, o: Event, factor: Floats) -> Floats:
        """Factors [E] as far as they are an event's own, where others stand in the same senses."""
        shared = any(other is not o and other.groups & o.groups for other in self._open)
        if not shared or self._contributions is None:
            return factor
        inside, outside = self._belonging.shares(o.signals, self._contributions)
        return np.where(inside >= outside, factor, 0.0)

    def _raise(self, t_ns: int, onset_ns: int, groups: set[str], free: Floats) -> Anomaly:
        """Join a young event or open a new one; a sense that has died joins nothing."""
        dead = bool((np.nan_to_num(free[self._alive]) >= 1).any())
        for o in self._open:
            if groups - o.groups and not dead and t_ns - o.raised_ns <= self._config.join_s * NS_PER_S:
                o.groups |= groups
                o.signals = either(o.signals, self._blamed(free))
                own = self._own(groups)
                o.factor = own if o.factor is None else np.maximum(o.factor, own)
                o.best = 0.0
                self._decide(o, t_ns)
                return self._tell(o, t_ns, AnomalyState.HELD)
        self.sequence += 1
        fresh = Event(self._blank(onset_ns, t_ns), set(groups), t_ns, t_ns, t_ns, dead=dead)
        fresh.factor = np.where(np.isin(self._group, sorted(groups)), np.nan_to_num(free), 0.0)
        fresh.blame, fresh.signals = self._blame, self._blamed(free)
        fresh.loud = bool((fresh.factor[self._fast] >= 1).any())
        self._open.append(fresh)
        self._decide(fresh, t_ns)
        fresh.anomaly = replace(fresh.anomaly, earlier=self._looks_like(fresh.anomaly))
        if self._first_ns is not None and onset_ns - self._first_ns <= self._calibration.on_delay_s * NS_PER_S:
            foreign = float(np.median(free[np.isfinite(free) & self._mine(fresh)])) >= STRANGE
            fresh.anomaly = replace(fresh.anomaly, revision=FOREIGN if foreign else STANDING)
        return self._tell(fresh, t_ns, AnomalyState.RAISED)

    def _explained(self, t_ns: int, factor: Floats) -> list[Anomaly]:
        """Events that blame first what is shown to be wrong about when they were raised are the instrument's."""
        wrong = self._signs(factor)
        changes = []
        for o in self._open:
            blamed = first_blamed(o.anomaly)
            if o.dead or o.anomaly.kind is not AnomalyKind.PROCESS or blamed not in wrong:
                continue
            shown_ns, why = wrong[blamed]
            if abs(shown_ns - o.raised_ns) <= self._config.join_s * NS_PER_S:
                o.explained = blamed
                said = f"an instrument, not the process: {blamed} {why}"
                o.anomaly = replace(o.anomaly, kind=AnomalyKind.SENSOR, revision=said)
                changes.append(self._tell(o, t_ns, AnomalyState.HELD))
        return changes

    def _signs(self, factor: Floats) -> dict[str, tuple[int, str]]:
        """What is wrong with signals now, by name: since when, and in words."""
        found = {name: (since_ns, LATE) for name, since_ns in self._clocks.items()}
        known = self._contributions
        for sign in (o for o in self._open if o.dead):
            shown = np.where(self._alive & self._mine(sign), np.nan_to_num(self._part(sign, factor)), 0.0)
            if known is not None and (shown >= 1).any():
                blame = blame_signals(shown, known, self._config.evidence)
                at_least = self._config.evidence.agreeing * float(blame.max())
                names = (name for name, share in zip(known.signals, blame, strict=True) if share >= at_least)
                found |= dict.fromkeys(names, (sign.raised_ns, f"itself shows a fault, see {sign.anomaly.id}"))
        return found

    def _blamed(self, factor: Floats) -> Bools | None:
        """The signals [G] that take part in factors [E]; None where that is not known."""
        if self._contributions is None:
            return None
        config = self._config.evidence
        return partakers(blame_signals(factor, self._contributions, config), config)

    def _looks_like(self, anomaly: Anomaly) -> str:
        """The id of the latest event of the same kind that blames the same signal most; "" without one."""
        first = [blame.signal for blame in anomaly.top_signals[:1]]
        for old in self._closed:
            if old.kind is anomaly.kind and [blame.signal for blame in old.top_signals[:1]] == first:
                return old.id
        return ""

    def _blank(self, onset_ns: int, t_ns: int) -> Anomaly:
        at = datetime.fromtimestamp(onset_ns / NS_PER_S, tz=UTC).strftime("%Y%m%dT%H%M%S")
        return Anomaly(
            id=f"{self._plant.name}-{at}-{self.sequence}",
            t_onset_ns=onset_ns,
            t_ns=t_ns,
            state=AnomalyState.RAISED,
            p_value=1.0,
            kind=AnomalyKind.UNKNOWN,
            by_modality={},
            top_signals=(),
            energies=(),
            model_id=self._model_id,
        )

    # --- one that stands

    def _follow(self, o: Event, t_ns: int, factor: Floats) -> list[Anomaly]:
        """Hold, report or clear an event by the factors of its own senses."""
        own = self._mine(o) & np.isfinite(factor)
        fast = own & self._fast
        o.loud |= bool((factor[fast] >= 1).any())
        judged = fast if o.loud and fast.any() else own
        if own.any():
            o.seen_ns = t_ns
        if float(factor[judged].max(initial=0.0)) >= self._config.deadband:
            o.below_since_ns = None
            self._gather(o, np.where(own, np.nan_to_num(factor), 0.0), t_ns)
        elif own.any() and o.below_since_ns is None:
            o.below_since_ns = t_ns
        if self._is_over(o, t_ns):
            return [self._close(o, t_ns, own & (np.nan_to_num(factor) >= self._config.deadband))]
        if t_ns - o.told_ns >= self._config.update_s * NS_PER_S:
            return [self._tell(o, t_ns, AnomalyState.HELD)]
        return []

    def _is_over(self, o: Event, t_ns: int) -> bool:
        blind = t_ns - o.seen_ns >= self._config.blind_s * NS_PER_S
        since = o.below_since_ns
        return blind or (since is not None and t_ns - since >= self._config.off_delay_s * NS_PER_S)

    def _close(self, o: Event, t_ns: int, residue: Bools) -> Anomaly:
        self._residue_until_ns[residue] = t_ns + round(self._config.residue_s * NS_PER_S)
        self._open.remove(o)
        gone = self._tell(o, t_ns, AnomalyState.CLEARED)
        self._closed.appendleft(gone)
        return gone

    def _gather(self, o: Event, factor: Floats, t_ns: int) -> None:
        """Average the evidence of an event, and see whether it stands out more than ever."""
        alpha = self._evidence_alpha()
        o.factor = blend(o.factor, factor, alpha)
        if self._contributions is not None:
            blame = blame_signals(factor, self._contributions, self._config.evidence)
            o.blame = blend(o.blame, blame, alpha) if blame.any() else o.blame
            if t_ns - o.raised_ns <= self._config.join_s * NS_PER_S:
                o.signals = either(o.signals, partakers(blame, self._config.evidence))
        self._decide(o, t_ns)

    def _decide(self, o: Event, t_ns: int) -> None:
        """Kind and blame of the moment at which the event stands out most, with the reason of a late revision."""
        strength = 0.0 if o.factor is None else float(o.factor.max(initial=0.0))
        young = t_ns - o.raised_ns <= self._config.decide_s * NS_PER_S
        if o.factor is None or strength <= o.best * (1.0 if young else self._config.revise):
            return
        found = self._finding(o)
        if not found.energies:
            return
        o.best = strength
        before, o.anomaly = o.anomaly, told(o, found)
        if not young and (before.kind is not o.anomaly.kind or first_blamed(before) != first_blamed(o.anomaly)):
            name, size = found.energies[0]
            said = f"{before.kind} at {first_blamed(before)} -> {o.anomaly.kind} at {first_blamed(o.anomaly)}"
            o.anomaly = replace(o.anomaly, revision=f"{said}: {name} rose to {size:.1f} times its limit")

    def _tell(self, o: Event, t_ns: int, state: AnomalyState) -> Anomaly:
        """The event as it is known now; one that was taken over keeps its evidence until it stands out more."""
        p_value = min(o.anomaly.p_value, self.surprise.p_value if self.surprise else 1.0)
        o.told_ns = t_ns
        o.anomaly = replace(o.anomaly, t_ns=t_ns, state=state, p_value=p_value)
        return o.anomaly

    def _own(self, groups: set[str]) -> Floats:
        """Recent factors [E] of the energies of some groups, zero for the others."""
        return np.where(np.isin(self._group, sorted(groups)), 0.0 if self._factor is None else self._factor, 0.0)

    def _finding(self, o: Event) -> Finding:
        known = self._contributions
        blame = o.blame if o.blame is not None else np.zeros(len(known.signals) if known else 0)
        if known is not None and blame.any():
            blame = np.where(self._belonging.may_be_blamed(known.signals, o.groups), blame, 0.0)
        return find(
            np.zeros(len(self._group)) if o.factor is None else o.factor,
            self._calibration.energies,
            blame,
            known,
            self._config.evidence,
        )

    def _evidence_alpha(self) -> float:
        return min(self._calibration.step_s / self._config.evidence_s, 1.0)
