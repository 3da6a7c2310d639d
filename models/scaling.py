"""Scaled and back: robust statistics of training data, part of the checkpoint.

Scaled values live only inside ``models``. Shape letters: T ticks, S tags, A actions, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NORMAL_IQR = 1.349  # interquartile range of a standard normal
NORMAL_1_TO_99 = 4.653
MANY_TAGS = 200  # above which every tag from the past of every other costs too much, and too many rows to learn
FACTORS = 32
FACTOR_ROWS = 20_000
FACTOR_CLIP = 8.0


class Run(Protocol):
    """What a scaler needs of ``models.ticks.Ticks``."""

    @property
    def tags(self) -> Floats:
        """Tags [T, S]."""

    @property
    def observed(self) -> Bools:
        """Which of them are observed [T, S]."""

    @property
    def media(self) -> Mapping[str, Floats]:
        """Features [T, F] by signal."""

    @property
    def present(self) -> Mapping[str, Bools]:
        """Which ticks have them [T]."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """Column-wise ``(x - centre) / scale``; robust, so that faults in training data do not set the scale."""

    centre: Floats
    scale: Floats

    @classmethod
    def fit(cls, values: Floats, observed: Bools | None = None) -> Scaler:
        """Median and IQR / 1.349 of the observed finite values [T, F] of each column.

        Where the IQR says almost nothing (a signal that rests and rarely moves) the range of 1 to 99 % is taken, then
        the standard deviation, and one where the column is constant or never observed.
        """
        seen = np.isfinite(values) if observed is None else np.isfinite(values) & observed
        pairs = [_centre_and_scale(values[seen[:, i], i]) for i in range(values.shape[1])]
        centre, scale = np.array(pairs, np.float64).reshape(-1, 2).T
        return cls(np.ascontiguousarray(centre), np.ascontiguousarray(scale))

    @classmethod
    def of_ranges(cls, low: Sequence[float], high: Sequence[float]) -> Scaler:
        """Engineering ranges to -1..1."""
        a, b = np.array(low, np.float64), np.array(high, np.float64)
        return cls((a + b) / 2, (b - a) / 2)

    def scaled(self, values: Floats) -> Floats:
        """Engineering to scaled units; the last axis is F."""
        return (values - self.centre) / self.scale

    def engineering(self, values: Floats) -> Floats:
        """Scaled to engineering units; the last axis is F."""
        return values * self.scale + self.centre


def _centre_and_scale(values: Floats) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    lowest, low, centre, high, highest = np.percentile(values, [1, 25, 50, 75, 99])
    tiny = 1e-9 * max(1.0, abs(float(centre)))
    spread, wide = float(high - low) / NORMAL_IQR, float(highest - lowest) / NORMAL_1_TO_99
    if spread <= max(tiny, 0.1 * wide):
        spread = wide if wide > tiny else float(values.std())
    return float(centre), spread if spread > tiny else 1.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """The scalers of a model: tags [S], actions [A] by engineering range, media features [F] by signal.

    ``factors`` [S, K] are the leading principal directions of the scaled tags where there are many, else None.
    """

    tags: Scaler
    action: Scaler
    media: Mapping[str, Scaler]
    factors: Floats | None = None

    @classmethod
    def fit(cls, runs: Sequence[Run], plant: Plant) -> Scaling:
        """From training runs only."""
        if not runs:
            raise ConfigError("scaling: at least one training run is required")
        tags = Scaler.fit(np.concatenate([r.tags for r in runs]), np.concatenate([r.observed for r in runs]))
        media = {name: _media_scaler([r for r in runs if name in r.media], name) for name in _media_names(runs)}
        return cls(tags, action_scaler(plant), media, factors_of(runs, tags))


def factors_of(runs: Sequence[Run], scaler: Scaler) -> Floats | None:
    """Leading principal directions [S, K] of scaled tags, for unit variance along each; None for few tags."""
    if len(scaler.centre) <= MANY_TAGS:
        return None
    rows = np.concatenate([r.tags for r in runs])
    rows = scaler.scaled(rows[:: max(1, len(rows) // FACTOR_ROWS)]).clip(-FACTOR_CLIP, FACTOR_CLIP)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    return np.asarray(vectors[:, : -FACTORS - 1 : -1] / np.sqrt(np.maximum(values[: -FACTORS - 1 : -1], 1e-9)))


def action_scaler(plant: Plant) -> Scaler:
    """Engineering ranges of the manipulated signals to -1..1."""
    limits = [(s.low, s.high) for s in plant.actions]
    return Scaler.of_ranges([a for a, _ in limits if a is not None], [b for _, b in limits if b is not None])


def _media_names(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for run in runs for name in run.media))


def _media_scaler(runs: Sequence[Run], name: str) -> Scaler:
    return Scaler.fit(np.concatenate([r.media[name][r.present[name]] for r in runs]))
