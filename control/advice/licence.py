"""Whether a model may steer, signal by signal, and why not: observe < shadow < advise < supervised.

Held-out error on quiet history does not tell a model that steers well from one that is worse than doing nothing:
exogenous moves, gains and errors on perturbed windows do. Knows no model: numbers and rollouts come in.
Shape letters: T ticks, A manipulated signals, S signals, P operating points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from control.advice.excitation import Excitation
from control.advice.gains import GainVerdict
from fusion.errors import ConfigError
from fusion.plain import plain
from fusion.plant import Plant


class Level(StrEnum):
    """What a model may do, in rising order: watch, plan in silence, advise, be followed unless somebody objects."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    ADVISE = "advise"
    SUPERVISED = "supervised"

    @property
    def rank(self) -> int:
        """0 for observe."""
        return list(Level).index(self)

    def allows(self, wanted: Level) -> bool:
        """Whether this level includes another."""
        return self.rank >= wanted.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """Errors of one controlled signal on perturbed windows, as ratios to that of persistence (RMSE, 1 is no skill).

    ``shuffled`` is the error with actions from elsewhere, raised as much as at the horizon where they matter most; it
    must be larger, or the model ignores actions.
    """

    model: float
    arx: float | None = None
    shuffled: float | None = None


@dataclass(kw_only=True, slots=True)
class LicenceConfig:
    """Thresholds of the first licence; ``ceiling`` is what a test without a shadow period can grant at most.

    ``largest_error`` lies between what models err that steer well (.33 to .66) and those that are worse than doing
    nothing (.80 to 1.19). ``arx_tolerance`` lets a model that falls back to ARX pass. Bands must cover a share in
    ``coverage``.
    """

    least_moves: int = 10
    least_span: float = 0.02
    largest_error: float = 0.6
    arx_tolerance: float = 1.02
    least_shuffled: float = 1.05
    coverage: tuple[float, float] = (0.85, 0.95)
    ceiling: Level = Level.ADVISE

    def __post_init__(self) -> None:
        """Reject thresholds that would pass anything."""
        if self.least_moves < 1 or self.least_span <= 0 or self.largest_error <= 0:
            raise ConfigError("licence: least_moves, least_span and largest_error must be positive")
        if self.arx_tolerance < 1 or self.least_shuffled < 1 or not 0 <= self.coverage[0] < self.coverage[1] <= 1:
            raise ConfigError("licence: arx_tolerance, least_shuffled >= 1 and 0 <= coverage low < high <= 1 expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalLicence:
    """Level of one manipulated signal, and what keeps it from a higher one."""

    signal: str
    level: Level
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """What a model may do with each manipulated signal. Drift demotes it by itself; nothing promotes it by itself."""

    signals: Mapping[str, SignalLicence] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """Highest level that some signal has."""
        return max((s.level for s in self.signals.values()), key=lambda level: level.rank, default=Level.OBSERVE)

    def allowed(self, level: Level = Level.ADVISE) -> tuple[str, ...]:
        """Signals whose level includes ``level``."""
        return tuple(name for name, s in self.signals.items() if s.level.allows(level))

    def demoted(self, level: Level, reason: str) -> Licence:
        """At most ``level`` for all signals from now on."""
        signals = {
            name: replace(s, level=level, reasons=(*s.reasons, reason)) if s.level.rank > level.rank else s
            for name, s in self.signals.items()
        }
        return replace(self, signals=signals, reasons=(*self.reasons, reason))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; the inverse of ``from_dict``."""
        signals = list(self.signals.values())
        values = {"level": self.level, "signals": signals, "reasons": self.reasons, "numbers": self.numbers}
        return {name: plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Licence:
        """Rebuild a licence from a checkpoint.

        Raises:
            ConfigError: where a part is missing or a level is unknown.
        """
        try:
            signals = [
                SignalLicence(signal=str(s["signal"]), level=Level(s["level"]), reasons=tuple(s["reasons"]))
                for s in data["signals"]
            ]
            reasons, numbers = tuple(data["reasons"]), dict(data["numbers"])
        except (KeyError, TypeError, ValueError) as error:
            accepted = ", ".join(level.value for level in Level)
            raise ConfigError(f"licence: {error} is missing or not accepted; levels are {accepted}") from error
        return cls(signals={s.signal: s for s in signals}, reasons=reasons, numbers=numbers)


def grant(
    plant: Plant,
    excitation: Mapping[str, Excitation],
    gains: Sequence[GainVerdict],
    skill: Mapping[str, Skill],
    *,
    coverage: float | None = None,
    config: LicenceConfig | None = None,
) -> Licence:
    """The licence that the evidence earns; a missing piece of evidence counts as failed.

    ``skill`` is by controlled signal, on perturbed windows; ``coverage`` that of the 90 % bands on the same.
    """
    config = config or LicenceConfig()
    common = _common_faults(skill, config)
    cap, cap_reasons = _cap(coverage, config)
    signals = {}
    for name in (s.name for s in plant.actions if s.max_rate is not None):
        blocking = [*common, *_unidentified(name, excitation.get(name), config)]
        doubtful = [*_gain_faults(name, gains), *_skill_faults(name, gains, skill, config)]
        level = Level.OBSERVE if blocking else Level.SHADOW if doubtful else cap
        signals[name] = SignalLicence(signal=name, level=level, reasons=(*blocking, *doubtful, *cap_reasons))
    evidence = {"excitation": excitation, "gains": gains, "skill": skill, "coverage": coverage}
    return Licence(signals=signals, reasons=(*common, *cap_reasons), numbers=plain(evidence))


def _common_faults(skill: Mapping[str, Skill], config: LicenceConfig) -> list[str]:
    """What speaks against the model as a whole: it does not know, or does not care, what the actions are.

    That shows on every signal: of some the actions may rightly be too slow to matter so soon.
    """
    known = [s.shuffled / s.model for s in skill.values() if s.shuffled is not None and s.model > 0]
    if not known:
        return ["no test with shuffled actions"]
    ratio = max(known)
    if not ratio >= config.least_shuffled:
        below = math.floor(100 * ratio) / 100 if math.isfinite(ratio) else ratio
        return [f"shuffled actions raise the error by a factor of {below:.2f} only, {config.least_shuffled} needed"]
    return []


def _unidentified(name: str, seen: Excitation | None, config: LicenceConfig) -> list[str]:
    if seen is None:
        return [f"{name}: no excitation report"]
    if seen.moves < config.least_moves:
        return [f"{name}: {seen.moves} exogenous moves in {seen.hours:.1f} h, {config.least_moves} needed: step test"]
    if seen.span < config.least_span:
        return [f"{name}: moves cover {seen.span:.1%} of the range, {config.least_span:.0%} needed: step test"]
    return []


def _gain_faults(name: str, gains: Sequence[GainVerdict]) -> list[str]:
    own = [g for g in gains if g.manipulated == name]
    if not any(g.sign for g in own):
        return [f"{name}: no gain is declared, so none can be checked"]
    return [g.reason for g in own if not g.passed]


def _skill_faults(
    name: str, gains: Sequence[GainVerdict], skill: Mapping[str, Skill], config: LicenceConfig
) -> list[str]:
    found = []
    for controlled in dict.fromkeys(g.controlled for g in gains if g.manipulated == name and g.sign):
        s = skill.get(controlled)
        if s is None:
            found.append(f"{controlled}: no error on perturbed windows")
        elif not s.model <= config.largest_error:
            found.append(f"{controlled}: error {s.model:.2f} of persistence, {config.largest_error} allowed")
        elif s.arx is not None and not s.model <= s.arx * config.arx_tolerance:
            found.append(f"{controlled}: error {s.model:.2f} is worse than ARX with {s.arx:.2f}")
    return found


def _cap(coverage: float | None, config: LicenceConfig) -> tuple[Level, list[str]]:
    """Highest level that bands permit."""
    low, high = config.coverage
    if coverage is not None and not (math.isfinite(coverage) and low <= coverage <= high):
        return Level.SHADOW, [f"90 % bands cover {coverage:.1%}, {low:.0%} to {high:.0%} expected"]
    return config.ceiling, []
