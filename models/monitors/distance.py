"""How far a vector lies from its normal spread, and which signal must be ignored to bring it back.

Shape letters: T ticks, C columns, G signals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.scaling import Floats

WIDER = 10.0  # times its spread, from which a column was not fitted but copied
OFTEN, OFTEN_NORMAL = 0.95, 3.84  # the share of later samples that count, and what is normal there: chi squared
SHRINKAGE = 0.1  # towards the diagonal: few independent ticks, many columns


@dataclass(frozen=True)
class Distance:
    """A Mahalanobis distance per column: squared, over C, so that normal data have about one.

    ``group`` [C] is the signal of each column, negative where a column belongs to none.
    """

    mean: Floats
    precision: Floats
    group: NDArray[np.int64]

    @classmethod
    def fit(cls, samples: Floats, group: NDArray[np.int64] | None = None, shrinkage: float = SHRINKAGE) -> Distance:
        """From normal samples [T, C]; a column that never moves is ignored."""
        mean = samples.mean(0) if len(samples) else np.zeros(samples.shape[1])
        centred = samples - mean
        covariance = centred.T @ centred / max(len(samples), 1)
        variance = np.diag(covariance).copy()
        alive = variance > 1e-10 * max(float(variance.max(initial=0.0)), 1e-12)
        covariance = (1 - shrinkage) * covariance + shrinkage * np.diag(variance)
        precision = np.zeros_like(covariance)
        kept = np.ix_(alive, alive)
        precision[kept] = np.linalg.inv(covariance[kept])
        groups = np.zeros(len(mean), np.int64) if group is None else group
        return cls(mean, precision, groups)

    def widened(self, later: Floats) -> Distance:
        """The distance in which no column is far tighter than on normal samples [T, C] that it was not fitted on.

        What follows exactly from the rest while it is fitted, the output of a controller that nobody touched, need not
        do so later: one such column would make all others unheard. A column that leaves its spread by ``WIDER`` is
        given the later one; others stay as they are.
        """
        variance = np.diag(np.linalg.pinv(self.precision, hermitian=True))
        known = (variance > 0) & (np.diag(self.precision) > 0)
        if not len(later) or not known.any():
            return self
        seen = np.quantile((later - self.mean) ** 2, OFTEN, axis=0) / OFTEN_NORMAL
        ratio = np.where(known, seen / np.where(known, variance, 1.0), 1.0)
        wider = np.where(ratio > WIDER**2, ratio, 1.0)
        if not (wider > 1.0).any():
            return self
        return replace(self, precision=self.precision / np.sqrt(np.outer(wider, wider)))

    def energy(self, values: Floats) -> Floats:
        """Distance [T] of [T, C]."""
        pulled = (values - self.mean) @ self.precision
        return np.asarray((pulled * (values - self.mean)).sum(1) / max(len(self.mean), 1))

    def contributions(self, values: Floats, groups: int) -> Floats:
        """The share [T, G] of the distance that vanishes if a signal is ignored; need not sum to one.

        A sensor that alone is wrong has a share near one. Source: Alcala and Qin 2009, reconstruction-based
        contributions, here by blocks.
        """
        centred = values - self.mean
        pulled = centred @ self.precision
        total = np.maximum((pulled * centred).sum(1), 1e-12)
        shares = np.zeros((len(values), groups))
        named, counts = np.unique(self.group[self.group >= 0], return_counts=True)
        if len(counts) and counts.max() == 1:
            shares[:, self.group[self.group >= 0]] = self.column_shares(values)[:, self.group >= 0]
            return np.clip(shares, 0.0, 1.0)
        for signal in named:
            columns = np.flatnonzero(self.group == signal)
            if len(columns) == len(self.group):
                shares[:, signal] = 1.0
                continue
            found = pulled[:, columns]
            shares[:, signal] = (found @ self._inverse(columns) * found).sum(1) / total
        return np.clip(shares, 0.0, 1.0)

    def block_share(self, values: Floats, columns: NDArray[np.bool_]) -> Floats:
        """The share [T] of the distance that vanishes if these columns [C] are ignored."""
        centred = values - self.mean
        pulled = centred @ self.precision
        found = pulled[:, columns]
        part = (found @ self._inverse(np.flatnonzero(columns)) * found).sum(1)
        return np.asarray(part / np.maximum((pulled * centred).sum(1), 1e-12))

    def _inverse(self, columns: NDArray[np.int64]) -> Floats:
        """Inverse of the block of the precision at some columns, computed once."""
        key = columns.tobytes()
        if key not in self._inverses:
            block = self.precision[np.ix_(columns, columns)]
            self._inverses[key] = np.asarray(np.linalg.pinv(block, hermitian=True), np.float64)
        return self._inverses[key]

    @cached_property
    def _inverses(self) -> dict[bytes, Floats]:
        return {}

    def column_shares(self, values: Floats) -> Floats:
        """The same share [T, C] for every single column."""
        centred = values - self.mean
        pulled = centred @ self.precision
        diagonal = np.diag(self.precision)
        total = np.maximum((pulled * centred).sum(1, keepdims=True), 1e-12)
        return np.asarray(np.where(diagonal > 0, pulled**2 / np.where(diagonal > 0, diagonal, 1.0), 0.0) / total)


def beyond_limit(later: Floats) -> Floats:
    """By how much [C] columns over their limits, on normal samples [T, C] they were not found on, leave them by far.

    One where they do not by ``WIDER``, and where nothing is known.
    """
    size = np.abs(later[np.isfinite(later).all(1)])
    often = np.quantile(size, OFTEN, axis=0) if len(size) else np.ones(later.shape[1])
    return np.where(often > WIDER, often, 1.0)


@dataclass(frozen=True, slots=True)
class T2:
    """A chart of vectors [T, C] and the distance that judges each row; rows of no distance are not calibrated."""

    values: Floats
    judges: tuple[tuple[NDArray[np.int64], Distance], ...]

    @classmethod
    def by(cls, values: Floats, distance: Distance) -> T2:
        """All rows judged by one distance."""
        return cls(values, ((np.arange(len(values)), distance),))

    def energy(self) -> Floats:
        """Distance [T]; NaN where there is no judge."""
        energy = np.full(len(self.values), np.nan)
        for rows, distance in self.judges:
            energy[rows] = distance.energy(self.values[rows])
        return energy

    def contributions(self, groups: int) -> Floats:
        """Shares [T, G]; zero where there is no judge."""
        shares = np.zeros((len(self.values), groups))
        for rows, distance in self.judges:
            shares[rows] = distance.contributions(self.values[rows], groups)
        return shares

    def block_share(self, columns: NDArray[np.bool_]) -> Floats:
        """Share [T] of some columns [C] in the distance; NaN where there is no judge."""
        share = np.full(len(self.values), np.nan)
        for rows, distance in self.judges:
            share[rows] = distance.block_share(self.values[rows], columns)
        return share
