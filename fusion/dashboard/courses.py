"""Courses made small enough for a chart: the lowest and the highest of each stretch, and where nothing was."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

Data = list[list[float | None]]
Points = deque[tuple[int, float | None]]

NS_PER_MS = 1_000_000
POINTS_SHOWN = 450
GAP_STEPS = 3.5
STEPS_LOOKED_AT = 60


@dataclass(slots=True)
class Buckets:
    """Stretches of ``width_ns``, the first ``first`` widths after the epoch, so that one once shown stays as it is."""

    first: int
    width_ns: int
    step_ns: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def over(cls, t0_ns: int, t1_ns: int, count: int, step_ns: int) -> Self:
        """About ``count`` stretches of whole steps over a span."""
        width_ns = max(1, -(-(t1_ns - t0_ns) // (count * step_ns))) * step_ns
        first = t0_ns // width_ns
        nothing = np.full(t1_ns // width_ns - first + 1, np.nan)
        return cls(first, width_ns, step_ns, nothing, nothing.copy())

    def add(self, t_ns: NDArray[np.int64], value: NDArray[np.floating]) -> None:
        """Take values in order of time; NaN is none, and what lies outside is left."""
        at = t_ns // self.width_ns - self.first
        inside = (at >= 0) & (at < len(self.low))
        at, value = at[inside], value[inside].astype(np.float64)
        if not len(at):
            return
        starts = np.flatnonzero(np.diff(at, prepend=at[0] - 1))
        place = at[starts]
        self.low[place] = np.fmin(self.low[place], np.fmin.reduceat(value, starts))
        self.high[place] = np.fmax(self.high[place], np.fmax.reduceat(value, starts))

    def points(self) -> Data:
        """Times [ms] with the extremes in the order that is nearer to what came before; None once where a gap is."""
        middle_ns = self.width_ns // 2 if self.width_ns > self.step_ns else 0
        found: Data = []
        for i in range(len(self.low)):
            t_ms = ((self.first + i) * self.width_ns + middle_ns) // NS_PER_MS
            low, high = float(self.low[i]), float(self.high[i])
            if low != low:  # NaN: nothing was
                if found and found[-1][1] is not None:
                    found.append([t_ms, None])
                continue
            last = found[-1][1] if found and found[-1][1] is not None else low
            pair = [low] if low == high else [low, high] if abs(last - low) <= abs(last - high) else [high, low]
            found += [[t_ms, float(f"{value:.6g}")] for value in pair]
        return found


def thin(points: Points | Sequence[tuple[int, float | None]], window_s: float) -> Data:
    """Every k-th point, aligned to time so that a point once shown stays, and always the newest.

    Where a tick had no value, or where none came, a point without a value breaks the line.
    """
    stride_ms = max(1000, int(window_s * 1000 / POINTS_SHOWN) // 1000 * 1000)
    longest_ms = GAP_STEPS * _step_ms(points)
    shown: Data = []
    newest: list[float | None] = []
    last, before_ms, broken = -1, 0, False
    for t_ms, value in points:
        broken = broken or value is None or (bool(shown) and t_ms - before_ms > longest_ms)
        before_ms = t_ms
        if value is None:
            continue
        newest = [t_ms, value]
        if broken or t_ms // stride_ms != last:
            if broken and shown:
                shown.append([shown[-1][0], None])
            shown.append(newest)
            last, broken = t_ms // stride_ms, False
    if newest and shown[-1] != newest:
        shown.append(newest)
    return shown


def _step_ms(points: Points | Sequence[tuple[int, float | None]]) -> float:
    """The usual distance of points, from the newest of them."""
    newest = [t_ms for t_ms, _ in islice(reversed(points), STEPS_LOOKED_AT)]
    return statistics.median(later - sooner for later, sooner in pairwise(newest)) if len(newest) > 1 else 0.0
