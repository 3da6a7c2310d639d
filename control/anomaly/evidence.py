"""What the energies say about an anomaly: which modality and signal, and whether plant or sensor.

Asks of an energy what its record says, never what it is called. Knows no life cycle and no time.
Shape letters: E energies, G signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.records import AnomalyKind, Energy, Origin, SignalBlame, Statistic

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEAST_SHARE = 1e-3  # of the blame, below which a signal is not named


@dataclass(kw_only=True, slots=True)
class EvidenceConfig:
    """The shares that decide.

    Another modality agrees from ``agreeing`` of the strongest one's factor. What energies say of the instrument,
    averaged by their weight, decides from ``alone``. Factors below ``faint`` of the limit are no evidence.
    Energies that compare modalities say best which one is wrong: they count ``locating`` times in the blame. A signal
    takes part in an event from a blame of ``partaking``, or from half the largest where many share it.
    """

    agreeing: float = 0.6
    alone: float = 0.7
    faint: float = 0.5
    locating: float = 1.5
    partaking: float = 0.1
    top_signals: int = 5
    top_energies: int = 8

    def __post_init__(self) -> None:
        """Reject shares that are none."""
        for name in ("agreeing", "alone", "faint", "partaking"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"evidence.{name}: {getattr(self, name)} must be in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """Who made the energies of one tick: ``shares`` [E, G] by energy and signal, ``residual`` [G] in their units.

    ``sensor`` [E] is how far, 0 to 1, an energy speaks of an instrument rather than of the plant; NaN: it does not say.
    ``seen`` [G] are the values of tags, NaN for media, of which ``where`` [G] names what stands out.
    """

    signals: tuple[str, ...]
    shares: Floats
    residual: Floats
    sensor: Floats | None = None
    seen: Floats | None = None
    where: tuple[str, ...] = ()

    def blamed(self, signal: int, share: float) -> SignalBlame:
        """One signal with its part in the event."""
        residual, seen = float(self.residual[signal]), None
        if self.seen is not None and np.isfinite(self.seen[signal]):
            seen = float(self.seen[signal])
        return SignalBlame(
            signal=self.signals[signal],
            residual=residual,
            share=share,
            seen=seen,
            expected=None if seen is None else seen - residual,
            where=self.where[signal] if self.where else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Evidence summed up, in the words of an ``Anomaly``."""

    kind: AnomalyKind
    by_modality: Mapping[str, float]
    top_signals: tuple[SignalBlame, ...]
    energies: tuple[tuple[str, float], ...]


def weights(factor: Floats, config: EvidenceConfig) -> Floats:
    """Weight [E] of each energy as evidence: the square of what its factor has above faint."""
    return np.asarray(np.maximum(np.nan_to_num(factor) - config.faint, 0.0) ** 2)


def blame_signals(factor: Floats, contributions: Contributions, config: EvidenceConfig) -> Floats:
    """Blame [G] of the signals, summing to one where there is any: shares weighted by their energies."""
    blamed = weights(factor, config) @ np.nan_to_num(contributions.shares)
    total = float(blamed.sum())
    return np.asarray(blamed / total if total > 0 else blamed)


def partakers(blame: Floats, config: EvidenceConfig) -> Bools:
    """The signals [G] that take part in what they are blamed for; none where nothing is."""
    return np.asarray((blame > 0) & (blame >= min(config.partaking, 0.5 * float(blame.max(initial=0.0)))))


def find(
    factor: Floats,
    energies: Sequence[Energy],
    blame: Floats,
    contributions: Contributions | None,
    config: EvidenceConfig,
) -> Finding:
    """Sum up factors [E] of the limit and the blame [G] of the signals of ``contributions``."""
    top = _top_signals(blame, contributions, config)
    locating = np.array([config.locating if compares_senses(energy) else 1.0 for energy in energies])
    by_modality = _by_modality(factor * locating, [str(energy.modality) for energy in energies], config)
    order = [int(e) for e in np.argsort(-np.nan_to_num(factor), kind="stable")[: config.top_energies]]
    return Finding(
        kind=decide_kind(factor, energies, None if contributions is None else contributions.sensor, config),
        by_modality=by_modality,
        top_signals=top,
        energies=tuple((energies[e].name, round(float(factor[e]), 4)) for e in order if factor[e] >= config.faint),
    )


def decide_kind(
    factor: Floats, energies: Sequence[Energy], sensor: Floats | None, config: EvidenceConfig
) -> AnomalyKind:
    """Plant or sensor, by the first rule that applies.

    1. A sign of life at its limit: SENSOR (a dead stream says so itself).
    2. Several modalities agree: PROCESS (two senses do not fail together).
    3. The energies at their limit that can tell say that an instrument explains them: SENSOR.
    4. Anything else at its limit: PROCESS. With nothing there: UNKNOWN.
    """
    dead = np.array([energy.origin is Origin.ALIVE for energy in energies], bool)
    if (np.nan_to_num(factor[dead]) >= 1).any():
        return AnomalyKind.SENSOR
    modality = [str(energy.modality) for energy in energies]
    peaks = by_group(factor, modality)
    peak = max(peaks.values(), default=0.0)
    if peak < config.faint:
        return AnomalyKind.UNKNOWN
    agreeing = [m for m, value in peaks.items() if value >= config.agreeing * peak and value >= 1]
    if len(agreeing) > 1 or sensor is None:
        return AnomalyKind.PROCESS
    own = np.array([m == max(peaks, key=lambda name: peaks[name]) for m in modality])
    told = own & np.isfinite(sensor) & (np.nan_to_num(factor) >= 1)
    if not told.any():
        return AnomalyKind.PROCESS
    mean = float(np.average(sensor[told], weights=np.log1p(factor[told])))
    return AnomalyKind.SENSOR if mean >= config.alone else AnomalyKind.PROCESS


def by_group(factor: Floats, modality: Sequence[str]) -> dict[str, float]:
    """Largest factor of each modality that has a present energy."""
    peaks: dict[str, float] = {}
    for value, name in zip(factor, modality, strict=True):
        if np.isfinite(value):
            peaks[name] = max(peaks.get(name, 0.0), float(value))
    return peaks


def compares_senses(energy: Energy) -> bool:
    """Whether an energy holds all of one sense against the others."""
    return energy.origin is Origin.ACROSS and energy.statistic is Statistic.T2


def _by_modality(factor: Floats, modality: Sequence[str], config: EvidenceConfig) -> dict[str, float]:
    """Shares that sum to one, from the strongest energy of each modality."""
    peaks = by_group(factor, modality)
    strength = {m: float(weights(np.array([value]), config)[0]) for m, value in peaks.items()}
    total = sum(strength.values())
    return {m: value / total for m, value in strength.items() if value > 0} if total > 0 else {}


def _top_signals(blame: Floats, contributions: Contributions | None, config: EvidenceConfig) -> tuple[SignalBlame, ...]:
    if contributions is None or not blame.any():
        return ()
    order = [int(g) for g in np.argsort(-blame, kind="stable")[: config.top_signals] if blame[g] >= LEAST_SHARE]
    total = float(blame[order].sum())
    return tuple(contributions.blamed(g, float(blame[g]) / total) for g in order)
