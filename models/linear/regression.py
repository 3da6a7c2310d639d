"""Closed forms: second moments that add up over runs, ridge regression, canonical variates, held-out error.

Nothing here knows what the columns mean. Shape letters: N rows, P inputs, S outputs, R rank.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from models.scaling import Floats


@dataclass(frozen=True, slots=True)
class Moments:
    """Uncentred second moments of inputs with a last column of ones [P + 1] and outputs [S]; additive over runs.

    ``still`` [S] are those of the outputs before anything was taken off them: the squared error of predicting zero.
    """

    xx: Floats
    xy: Floats
    yy: Floats
    rows: int
    still: Floats

    @classmethod
    def of(cls, inputs: Floats, outputs: Floats, known: Floats | float = 0.0) -> Moments:
        """From rows [N, P] and [N, S]; ``known`` [N, S] is taken off the outputs."""
        x = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
        left = outputs - known
        return cls(x.T @ x, x.T @ left, (left**2).sum(0), len(x), (outputs**2).sum(0))

    @classmethod
    def total(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all rows together."""
        names = cls.__dataclass_fields__
        return functools.reduce(lambda a, b: cls(*(getattr(a, n) + getattr(b, n) for n in names)), parts)

    def mapped(self, matrix: Floats) -> Moments:
        """The moments of ``inputs @ matrix``; ``matrix`` [P + 1, R + 1] keeps the column of ones."""
        return Moments(matrix.T @ self.xx @ matrix, matrix.T @ self.xy, self.yy, self.rows, self.still)

    def error(self, weights: Floats) -> Floats:
        """Mean squared error [S] of ``inputs @ weights``."""
        fitted = (weights * self.xy).sum(0)
        squared = (weights * (self.xx @ weights)).sum(0)
        return np.asarray(np.maximum(self.yy - 2 * fitted + squared, 0.0) / max(self.rows, 1))

    def persistence_error(self) -> Floats:
        """Mean squared output [S]: the error of predicting zero."""
        return self.still / max(self.rows, 1)


def ridge(moments: Moments, penalties: Iterable[float]) -> list[Floats]:
    """Weights [P + 1, S] for each penalty, relative to the variance of each input; the constant is not penalised."""
    n = max(moments.rows, 1)
    xx, xy = moments.xx / n, moments.xy / n
    mean, offset = xx[-1, :-1], xy[-1]
    covariance = xx[:-1, :-1] - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    deviation = np.where(deviation > 1e-9, deviation, np.inf)
    values, vectors = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    projected = vectors.T @ ((xy[:-1] - np.outer(mean, offset)) / deviation[:, None])
    made = []
    for penalty in penalties:
        slope = (vectors @ (projected / (np.maximum(values, 0.0) + penalty)[:, None])) / deviation[:, None]
        made.append(np.concatenate([slope, (offset - mean @ slope)[None]]))
    return made


def canonical_directions(past: Floats, future: Floats, known: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Directions [P, P'] in the past that best predict the future once what is known is removed, and correlations.

    Arguments are second moments' row data: [N, P], [N, F], [N, K]; all are standardised here by the regularised
    inverse roots. Source: Larimore 1990, canonical variate analysis, with partial covariances.
    """
    known = np.concatenate([known, np.ones((len(known), 1))], 1)
    joint = np.concatenate([past, future], 1)
    joint = joint - known @ _solve(known.T @ known, known.T @ joint)
    covariance = joint.T @ joint / len(joint)
    p = past.shape[1]
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    scale = np.where(scale > 1e-5, scale, np.inf)
    correlation = covariance / np.outer(scale, scale)
    root_past, root_future = (_inverse_root(correlation[s, s], penalty) for s in (slice(p), slice(p, None)))
    _, strength, directions = np.linalg.svd(root_future @ correlation[p:, :p] @ root_past, full_matrices=False)
    return (root_past @ directions.T) / scale[:p, None], strength


def _solve(square: Floats, right: Floats) -> Floats:
    jitter = 1e-9 * np.trace(square) / len(square)
    return np.asarray(np.linalg.solve(square + jitter * np.eye(len(square)), right))


def _inverse_root(matrix: Floats, penalty: float) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors / np.sqrt(np.maximum(values, 0.0) + penalty)) @ vectors.T)
