"""Exponentially weighted averages of a stream.

Shape letters: T ticks, C columns.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter  # type: ignore[import-untyped]

from models.scaling import Floats


def ewma(values: Floats, alpha: float, state: Floats | None = None) -> tuple[Floats, Floats]:
    """Exponentially weighted mean along T of [T, C] and its last row, the state; starts at the first value."""
    if not len(values):
        return values, values[:0].sum(0) if state is None else state
    start = values[0] if state is None else state
    smooth, _ = lfilter([alpha], [1.0, alpha - 1.0], values, axis=0, zi=(1.0 - alpha) * start[None])
    return np.asarray(smooth), np.asarray(smooth[-1])
