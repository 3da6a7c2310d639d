"""The upper tail of a distribution, extrapolated: exponential, or generalised Pareto where the data insist.

Source: Hosking and Wallis (1987), probability-weighted moments of the generalised Pareto distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LARGEST_SHAPE = 0.3  # heavier tails have no third moment, and a few hours cannot tell
_SHRINK = 30  # exceedances at which the shape is believed by half


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Exceedances of ``start``: ``rate`` of them (per tick or per hour), of size ``scale`` and ``shape`` >= 0."""

    start: float
    rate: float
    scale: float
    shape: float

    def rate_above(self, levels: Floats) -> Floats:
        """Expected rate of exceeding each level; ``rate`` for levels below ``start``."""
        excess = np.maximum(np.asarray(levels, np.float64) - self.start, 0.0) / self.scale
        if self.shape < 1e-6:
            return np.asarray(self.rate * np.exp(-excess))
        return np.asarray(self.rate * (1 + self.shape * excess) ** (-1 / self.shape))

    def level(self, rate: float) -> float:
        """Level exceeded at ``rate``; never below ``start``."""
        ratio = max(self.rate / rate, 1.0)
        if self.shape < 1e-6:
            return self.start + self.scale * math.log(ratio)
        return self.start + self.scale * float(ratio**self.shape - 1) / self.shape


def fit_tail(values: Floats, quantile: float, rate: float) -> Tail:
    """Tail of ``values`` above their ``quantile``, where all values together come at ``rate``.

    The shape is shrunk towards the exponential where there are few exceedances, and never negative: a finite end
    point read from a few hours would be an illusion. Of ``n`` exceedances the scale is not known either: what is
    predicted of the next is heavier by a shape of ``1 / n``, which is exact for the exponential under the prior
    ``1 / scale``.
    """
    start = float(np.quantile(values, quantile))
    excess = np.sort(values[values > start] - start)
    share = len(excess) / len(values)
    if not len(excess):
        return Tail(start=start, rate=rate / len(values), scale=max(abs(start), 1.0) * 1e-3, shape=0.0)
    shape = min(max(_shape(excess), 0.0), _LARGEST_SHAPE) * len(excess) / (len(excess) + _SHRINK)
    scale = max(float(excess.mean()) * (1 - shape), 1e-12)
    return Tail(start=start, rate=rate * share, scale=scale, shape=shape + 1 / len(excess))


def _shape(excess: Floats) -> float:
    """Shape by probability-weighted moments of increasing exceedances."""
    position = (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
    first, second = float(excess.mean()), float(((1 - position) * excess).mean())
    spread = first - 2 * second
    return 2 - first / spread if spread > 0 else 0.0
