"""Averages of a stream: exponentially weighted, and the long mean that tells what is usual on it.

Shape letters: T ticks, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter  # type: ignore[import-untyped]

from models.scaling import Bools, Floats


def ewma(values: Floats, alpha: float, state: Floats | None = None) -> tuple[Floats, Floats]:
    """Exponentially weighted mean along T of [T, C] and its last row, the state; starts at the first value."""
    if not len(values):
        return values, values[:0].sum(0) if state is None else state
    start = values[0] if state is None else state
    smooth, _ = lfilter([alpha], [1.0, alpha - 1.0], values, axis=0, zi=(1.0 - alpha) * start[None])
    return np.asarray(smooth), np.asarray(smooth[-1])


LONG_TICKS = 1800  # long against the growth of a fault, short against a shift


@dataclass(frozen=True, slots=True)
class Usual:
    """The mean [C] of a stream so far, over ``count`` ticks."""

    mean: Floats | None = None
    count: int = 0


def less_usual(values: Floats, usual: Usual, known: Bools | None = None) -> tuple[Floats, Usual]:
    """Values [T, C] less their mean over the stream so far, at most the last ``LONG_TICKS``, and what comes next.

    Rows that are not ``known`` [T] do not count towards the mean.
    """
    rows = np.arange(len(values)) if known is None else np.flatnonzero(known)
    start = np.zeros(values.shape[1]) if usual.mean is None else usual.mean
    if not len(rows):
        return values - start, usual
    counted = values[rows]
    young = min(max(LONG_TICKS - usual.count, 0), len(rows))
    seen = usual.count + np.arange(1, young + 1)[:, None]
    means = (start * usual.count + np.cumsum(counted[:young], 0)) / seen
    if young < len(rows):
        last = means[-1] if young else start
        means = np.concatenate([means, ewma(counted[young:], 1.0 / LONG_TICKS, last)[0]])
    place = np.searchsorted(rows, np.arange(len(values)), side="right")
    relative = values - np.concatenate([start[None], means])[place]
    return relative, Usual(means[-1], usual.count + len(rows))
