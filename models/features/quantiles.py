"""Quantiles of values that are sorted already, by numpy's linear rule: one sort pays for all of them.

``numpy.percentile`` sorts anew for every call and takes longer to prepare than to compute on the few values of a tick.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MEDIAN = np.array([0.5])


def quantiles(ordered: NDArray[Any], shares: Array) -> NDArray[Any]:
    """Quantiles [..., Q] at ``shares`` [Q] (0..1) of values [..., N] that ascend along the last axis; N is not zero."""
    last = ordered.shape[-1] - 1
    place = last * shares
    below = place.astype(np.intp)
    return _between(ordered[..., below], ordered[..., np.minimum(below + 1, last)], place - below)


def median(values: NDArray[Any]) -> float:
    """Median of values [N] in any order; zero of none."""
    return float(quantiles(np.sort(values), MEDIAN)[0]) if len(values) else 0.0


def row_quantiles(ordered: Array, shares: Array) -> Array:
    """Quantiles [R, Q] of each row [R, N] that ascends up to its NaN, which do not count; zero where all are NaN."""
    last = np.count_nonzero(~np.isnan(ordered), axis=1)[:, None] - 1
    place = np.maximum(last, 0) * shares
    below = place.astype(np.intp)
    above = np.minimum(below + 1, np.maximum(last, 0))
    low, high = np.take_along_axis(ordered, below, 1), np.take_along_axis(ordered, above, 1)
    return np.where(last < 0, 0.0, _between(low, high, place - below))


def _between(low: NDArray[Any], high: NDArray[Any], share: Array) -> NDArray[Any]:
    """Interpolation from the nearer end and in the type of the values, as numpy does: equal to the last bit."""
    step, kind = high - low, low.dtype
    near, far = share.astype(kind), (1 - share).astype(kind)
    return np.asarray(np.where(share < 0.5, low + step * near, high - step * far))
