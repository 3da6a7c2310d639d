"""From surprise to anomalies: raised after an on-delay, held while it lasts, cleared below a deadband.

One anomaly covers the modalities in which it began and those that join within a short time; a modality that becomes
strange later, on its own, opens another. Knows no model: rows of raw energies come in, anomalies go out.
Shape letters: E energies, G signals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from control.anomaly.calibration import Calibration, Surprise
from control.anomaly.evidence import Contributions, EvidenceConfig, Finding, blame_signals, by_group, find
from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.records import NS_PER_S, Anomaly, AnomalyKind, AnomalyState, Origin

Floats = NDArray[np.float64]
UNCALIBRATED = "uncalibrated:"
SETTLING = "settling"


@dataclass(kw_only=True, slots=True)
class DetectorConfig:
    """Delays and hysteresis of the life cycle; the on-delay is that of the calibration.

    Cleared below ``deadband`` of the limit for ``off_delay_s``. Within ``rejoin_s`` of its end a new raise in the same
    modality continues the old anomaly; within ``join_s`` of its raise another modality joins it. Held anomalies are
    reported every ``update_s``. An anomaly whose energies are all absent stays open for ``blind_s``. While the flag
    ``settling`` is given, for ``settling_s`` after a move of the operator, energies of the origins in ``settling`` are
    judged by a limit larger by ``settling_factor``: a move takes the whole plant somewhere else, while relations,
    balances and senses still have to agree.
    """

    deadband: float = 0.7
    off_delay_s: float = 30.0
    join_s: float = 120.0
    rejoin_s: float = 300.0
    update_s: float = 30.0
    blind_s: float = 600.0
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
        if self.settling_factor < 1:
            raise ConfigError(f"detector.settling_factor: {self.settling_factor} must be at least 1")
        if unknown := set(self.settling) - set(Origin):
            accepted = ", ".join(Origin)
            raise ConfigError(f"detector.settling: {min(unknown)!r} is not accepted; expected some of {accepted}")
        delays = (
            "off_delay_s",
            "join_s",
            "rejoin_s",
            "update_s",
            "blind_s",
            "largest_gap_s",
            "evidence_s",
            "settling_s",
        )
        for name in delays:
            if getattr(self, name) <= 0:
                raise ConfigError(f"detector.{name}: {getattr(self, name)} must be positive")


@dataclass(slots=True)
class _Open:
    """An anomaly in progress; ``factor`` [E] and ``blame`` [G] are averages of its evidence."""

    anomaly: Anomaly
    groups: set[str]
    raised_ns: int
    told_ns: int
    seen_ns: int
    factor: Floats | None = None
    blame: Floats | None = None
    below_since_ns: int | None = None


class Detector:
    """Follows the energies tick by tick; ``open`` are the anomalies that stand."""

    def __init__(self, config: DetectorConfig, calibration: Calibration, plant: Plant, model_id: str) -> None:
        self._config = config
        self._calibration = calibration
        self._plant = plant
        self._model_id = model_id
        self._open: list[_Open] = []
        self._closed: list[_Open] = []
        self._above_since_ns: int | None = None
        self._last_ns: int | None = None
        self._contributions: Contributions | None = None
        self._factor: Floats | None = None
        self._blame: Floats | None = None
        self.surprise: Surprise | None = None
        settling = [energy.origin in config.settling for energy in calibration.energies]
        self._relief = np.where(settling, config.settling_factor, 1.0)

    @property
    def open(self) -> tuple[Anomaly, ...]:
        """Anomalies that stand, oldest first, as last reported."""
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
        energies. Returned are anomalies raised, held (at a slow rate) and cleared, in that order of age.
        """
        factor = self._judge(energies_row, flags)
        largest_gap_s = max(self._config.largest_gap_s, 1.5 * self._calibration.step_s)
        if self._last_ns is None or t_ns - self._last_ns > largest_gap_s * NS_PER_S:
            self._above_since_ns = None
        self._remember(t_ns, factor, contributions)
        peaks = by_group(factor, self._calibration.modality)
        changes = [change for o in list(self._open) for change in self._follow(o, t_ns, factor, peaks)]
        changes += self._watch(t_ns, factor, peaks)
        self._last_ns = t_ns
        return changes

    def resume(self, anomalies: Sequence[Anomaly]) -> None:
        """Take over anomalies that were open before a restart."""
        for a in anomalies:
            if a.state is not AnomalyState.CLEARED and a.id not in {o.anomaly.id for o in self._open}:
                self._open.append(_Open(a, set(a.by_modality), a.t_onset_ns, a.t_ns, a.t_ns))

    def _judge(self, row: Floats, flags: Sequence[str]) -> Floats:
        """Factors [E] of the limit, NaN where an energy takes no part."""
        outside = {f.removeprefix(UNCALIBRATED) for f in flags if f.startswith(UNCALIBRATED)}
        masked = [m in outside for m in self._calibration.modality]
        self.surprise = self._calibration.score(np.where(masked, np.nan, row))
        return self.surprise.factor / self._relief if SETTLING in flags else self.surprise.factor

    def _remember(self, t_ns: int, factor: Floats, contributions: Contributions | None) -> None:
        """Running averages of the evidence, so that an anomaly is judged on more than its last tick."""
        step_s = 1.0 if self._last_ns is None else (t_ns - self._last_ns) / NS_PER_S
        alpha = min(max(step_s, 0.0) / self._config.evidence_s, 1.0) if self._above_since_ns or self._open else 1.0
        self._factor = _blend(self._factor, np.nan_to_num(factor), alpha)
        if contributions is not None:
            self._contributions = contributions
            blame = blame_signals(factor, contributions, self._config.evidence)
            self._blame = _blend(self._blame, blame, alpha) if blame.any() else self._blame

    # --- a new one

    def _watch(self, t_ns: int, factor: Floats, peaks: dict[str, float]) -> list[Anomaly]:
        """Raise once the groups that no open anomaly covers have been above the limit for the on-delay."""
        held = set().union(*(o.groups for o in self._open)) if self._open else set()
        free = {group: value for group, value in peaks.items() if group not in held}
        if max(free.values(), default=0.0) < 1:
            self._above_since_ns = None
            return []
        if self._above_since_ns is None:
            self._above_since_ns = t_ns
            self._factor = np.nan_to_num(factor)
        needed_s = self._calibration.on_delay_s - self._calibration.step_s
        if t_ns - self._above_since_ns < needed_s * NS_PER_S:
            return []
        onset_ns, self._above_since_ns = self._above_since_ns, None
        groups = {group for group, value in free.items() if value >= self._config.deadband}
        return [self._raise(t_ns, onset_ns, groups)]

    def _raise(self, t_ns: int, onset_ns: int, groups: set[str]) -> Anomaly:
        """Join a young anomaly, continue a recent one, or open a new one."""
        for o in self._open:
            if t_ns - o.raised_ns <= self._config.join_s * NS_PER_S:
                o.groups |= groups
                o.factor = self._own(groups) if o.factor is None else np.maximum(o.factor, self._own(groups))
                return self._tell(o, t_ns, AnomalyState.HELD)
        horizon_ns = t_ns - round(self._config.rejoin_s * NS_PER_S)
        self._closed = [o for o in self._closed if o.anomaly.t_ns >= horizon_ns]
        for o in self._closed:
            if o.groups & groups:
                self._closed.remove(o)
                o.groups |= groups
                o.raised_ns, o.seen_ns, o.below_since_ns, o.factor = t_ns, t_ns, None, None
                self._open.append(o)
                return self._tell(o, t_ns, AnomalyState.RAISED)
        fresh = _Open(self._blank(onset_ns, t_ns, groups), set(groups), t_ns, t_ns, t_ns)
        self._open.append(fresh)
        return self._tell(fresh, t_ns, AnomalyState.RAISED)

    def _blank(self, onset_ns: int, t_ns: int, groups: set[str]) -> Anomaly:
        at = datetime.fromtimestamp(onset_ns / NS_PER_S, tz=UTC).strftime("%Y%m%dT%H%M%S")
        return Anomaly(
            id=f"{self._plant.name}-{at}-{'-'.join(sorted(groups)) or 'none'}",
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

    def _follow(self, o: _Open, t_ns: int, factor: Floats, peaks: dict[str, float]) -> list[Anomaly]:
        """Hold, report or clear an open anomaly by the factors of its own groups."""
        present = [peaks[group] for group in o.groups if group in peaks]
        peak = max(present, default=math.nan)
        if present:
            o.seen_ns = t_ns
        if peak >= self._config.deadband:
            o.below_since_ns = None
            own = np.array([m in o.groups for m in self._calibration.modality])
            self._gather(o, np.where(own, np.nan_to_num(factor), 0.0))
        elif present and o.below_since_ns is None:
            o.below_since_ns = t_ns
        if self._is_over(o, t_ns):
            self._open.remove(o)
            self._closed.append(o)
            return [self._tell(o, t_ns, AnomalyState.CLEARED)]
        if t_ns - o.told_ns >= self._config.update_s * NS_PER_S:
            return [self._tell(o, t_ns, AnomalyState.HELD)]
        return []

    def _is_over(self, o: _Open, t_ns: int) -> bool:
        blind = t_ns - o.seen_ns >= self._config.blind_s * NS_PER_S
        since = o.below_since_ns
        return blind or (since is not None and t_ns - since >= self._config.off_delay_s * NS_PER_S)

    def _gather(self, o: _Open, factor: Floats) -> None:
        alpha = min(self._calibration.step_s / self._config.evidence_s, 1.0)
        o.factor = _blend(o.factor, factor, alpha)
        if self._blame is not None:
            o.blame = _blend(o.blame, self._blame, alpha)

    def _tell(self, o: _Open, t_ns: int, state: AnomalyState) -> Anomaly:
        """The anomaly as it is known now; a resumed one keeps its old evidence until there is new."""
        if o.factor is None and state is not AnomalyState.CLEARED:
            o.factor, o.blame = self._own(o.groups), self._blame
        found = self._finding(o)
        p_value = min(o.anomaly.p_value, self.surprise.p_value if self.surprise else 1.0)
        o.told_ns = t_ns
        o.anomaly = replace(o.anomaly, t_ns=t_ns, state=state, p_value=p_value)
        if found is not None and found.energies:
            o.anomaly = replace(
                o.anomaly,
                kind=found.kind,
                by_modality=found.by_modality,
                top_signals=found.top_signals or o.anomaly.top_signals,
                energies=found.energies,
            )
        return o.anomaly

    def _own(self, groups: set[str]) -> Floats:
        """Recent factors [E] of the energies of some groups, zero for the others."""
        mask = np.array([m in groups for m in self._calibration.modality])
        return np.where(mask, 0.0 if self._factor is None else self._factor, 0.0)

    def _finding(self, o: _Open) -> Finding | None:
        if o.factor is None:
            return None
        known = self._contributions
        blame = o.blame if o.blame is not None else np.zeros(len(known.signals) if known else 0)
        return find(o.factor, self._calibration.energies, blame, known, self._config.evidence)


def _blend(old: Floats | None, new: Floats, alpha: float) -> Floats:
    return new if old is None or len(old) != len(new) else np.asarray(old + alpha * (new - old))
