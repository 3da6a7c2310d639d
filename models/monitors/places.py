"""Residuals judged place by place, of which the largest counts: what cells and perception share.

Each place of a medium has a normal spread of its own. Shape letters: T ticks, N places, K columns of a place, C = N K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fusion.plant import Plant
from fusion.records import Energy, Origin, Statistic
from models.monitors.averaged import AverageCarry, Limits, averaged, recover
from models.monitors.distance import SHRINKAGE
from models.monitors.piece import CLIP
from models.monitors.residual import SPEEDS, WARM_UP_TICKS, Largest, Residual, signals_of
from models.scaling import Bools, Floats

AVERAGES = tuple(speed for speed in SPEEDS if not speed.relative)
FASTEST = max(speed.alpha for speed in AVERAGES)
QUANTILE = 0.995  # of a place's distance when normal: its limit
DULL = 1e-6  # spread of a feature that never moves
SPREADS = 2.58  # normal spreads in a fresh limit, as of whole media


@dataclass(frozen=True, slots=True)
class Judge:
    """The normal spread of averaged residuals by place: ``mean`` [C], ``precision`` [N, K, K], ``limit`` [N]."""

    mean: Floats
    precision: Floats
    limit: Floats

    @classmethod
    def fit(cls, values: Floats, places: int) -> Judge:
        """From normal averages [T, C]; a column that never moves is ignored, a place of such columns not judged."""
        mean = values.mean(0)
        centred = (values - mean).reshape(len(values), places, -1).transpose(1, 0, 2)
        covariance = centred.transpose(0, 2, 1) @ centred / max(len(values), 1)
        eye = np.eye(covariance.shape[-1])
        variance = covariance * eye
        still = np.diagonal(covariance, axis1=1, axis2=2) < DULL**2
        shrunk = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * variance
        precision = np.linalg.inv(shrunk + still[:, None, :] * eye) * ~(still[:, None, :] | still[:, :, None])
        bare = cls(mean, precision, np.ones(places))
        usual = np.quantile(bare.distances(values), QUANTILE, axis=0)
        return cls(mean, precision, np.where(usual > 0.0, usual, np.inf))

    def distances(self, values: Floats) -> Floats:
        """How far each place [T, N] is off, over its own limit."""
        places = len(self.limit)
        centred = (values - self.mean).reshape(len(values), places, -1).transpose(1, 0, 2)
        squared = ((centred @ self.precision) * centred).sum(2).T
        return np.asarray(squared / self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """What is normal of the residuals of one medium.

    ``judges`` are by speed; ``loud`` is the quantile of the largest place when normal, at the fastest average.
    """

    limits: Limits
    judges: Mapping[float, Judge]
    loud: float

    @classmethod
    def of(cls, told: Sequence[Floats], places: int) -> Normal:
        """From residuals [T, C] of normal runs."""
        made = [averaged(part, np.ones(len(part), bool), AverageCarry(), speeds=AVERAGES) for part in told]
        settled = slice(min(WARM_UP_TICKS, min(len(part) for part in told) // 2), None)
        smooth = {s.alpha: np.concatenate([m.smooth[s.alpha][settled] for m in made]) for s in AVERAGES}
        fresh = np.concatenate([m.fresh[settled] for m in made])
        judges = {alpha: Judge.fit(values, places) for alpha, values in smooth.items()}
        loud = float(np.quantile(largest(judges[FASTEST].distances(smooth[FASTEST])), QUANTILE))
        return cls(limits=Limits.fit(fresh, smooth, QUANTILE), judges=judges, loud=loud)

    def factors(self, smooth: Mapping[float, Floats]) -> dict[float, Floats]:
        """The largest place [T] at each speed, over its limit."""
        return {alpha: largest(judge.distances(smooth[alpha])) for alpha, judge in self.judges.items()}


@dataclass(slots=True)
class PlacesCarry:
    """What a stream leaves behind: averages of the residuals by medium.

    ``fresh`` [T, C] and ``largest`` [T] are those of the last piece: means of the last ticks over their limits, and the
    largest place over what is normal of it.
    """

    residuals: dict[str, AverageCarry] = field(default_factory=dict)
    fresh: dict[str, Floats] = field(default_factory=dict)
    largest: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """A generator of the largest place of each medium; what its residuals are is for those who inherit to say."""

    energies: tuple[Energy, ...]
    plant: Plant
    fields: Mapping[str, Normal]

    @property
    def media(self) -> tuple[str, ...]:
        """Those whose places are heard."""
        return tuple(dict.fromkeys(energy.source for energy in self.energies))

    def words(self, medium: str, column: int) -> str:
        """The words on the wire for a column [C] of a medium's residuals."""
        raise NotImplementedError

    def recover(self, carry: PlacesCarry) -> None:
        """Forget what a fault has left in the averages."""
        for medium, left in carry.residuals.items():
            recover(left, self.fields[medium].limits)

    def stands_out(self, medium: str, carry: PlacesCarry) -> list[tuple[float, str]]:
        """By tick of the last piece, how many normal spreads a column of the worst place is off, and its words.

        Nothing, "", where no place is out of the ordinary.
        """
        found = []
        for over, size in zip(carry.fresh[medium], carry.largest[medium], strict=True):
            column = int(np.abs(over).argmax())
            found.append((float(over[column]) * SPREADS, self.words(medium, column) if size > 1.0 else ""))
        return found

    def judged(self, told: Mapping[str, tuple[Floats, Bools]], ticks: int, carry: PlacesCarry) -> list[Residual]:
        """The largest place of each medium at each speed; updates ``carry``.

        ``told`` are the residuals [T, C] of each medium, zero where they are not known [T].
        """
        values: dict[tuple[str, float], Floats] = {}
        for medium, (residual, known) in told.items():
            normal, left = self.fields[medium], carry.residuals.setdefault(medium, AverageCarry())
            made = averaged(residual, known, left, normal.limits, AVERAGES)
            factors = normal.factors(made.smooth)
            carry.fresh[medium] = made.fresh / normal.limits.fresh
            carry.largest[medium] = factors[FASTEST] / normal.loud
            values |= {(medium, alpha): np.where(known, factor, np.nan) for alpha, factor in factors.items()}
        return [
            Residual(e, Largest(values[e.source, e.speed][:, None], partial(self._blame, e.source, ticks)))
            for e in self.energies
        ]

    def _blame(self, medium: str, ticks: int) -> Floats:
        """Shares [T, G]: all of an energy is its medium's."""
        signals = signals_of(self.plant)
        return np.tile(np.array([signal == medium for signal in signals], float), (ticks, 1))


def in_spreads(values: Floats, centre: Floats, scale: Floats) -> Floats:
    """Values [T, I] about their centre in normal spreads, clipped."""
    return np.clip((values - centre) / scale, -CLIP, CLIP)


def largest(distances: Floats) -> Floats:
    """The largest [T] of the places [T, N]."""
    return np.asarray(distances.max(1, initial=0.0))


def energies_of(families: Mapping[str, str], plant: Plant) -> tuple[Energy, ...]:
    """Of each medium, the largest place at each speed, in its family."""
    return tuple(
        Energy(
            name=f"{family}.{medium}.{speed.label}",
            origin=Origin.ACROSS,
            family=family,
            source=medium,
            modality=plant.by_name[medium].modality,
            statistic=Statistic.LARGEST,
            speed=speed.alpha,
        )
        for medium, family in families.items()
        for speed in AVERAGES
    )
