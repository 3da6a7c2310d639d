"""Averaged residuals that do not wind up: fast, slow and less what is usual, each bounded by what the last ticks show.

An exponential average of a strong fault stays out of control long after the plant is well: from a hundred times its
limit a slow one takes minutes. So the mean of the last ``FRESH_TICKS`` is kept beside it, with its own normal limit.
Where the average claims a deviation that these ticks would have to show and do not, it forgets: it begins again with
them, as a CUSUM is reset once the process is back in control. What is usual follows a plant that changes, but while
a fault stands only where that is not seen.
Shape letters: T ticks, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.averages import ewma
from models.monitors.residual import SHIFT, SPEEDS, Speed
from models.scaling import Bools, Floats

FRESH_TICKS = 20  # as long as a recovery takes to be believed
FRESH_QUANTILE = 0.99  # of the size of a fresh mean when normal: its limit
STILL = 1e-9  # of a residual that never moves
QUIET, CLAIMED = 0.5, 1.5  # shares of that limit: below the one all is well, an average above the other says it is not
FIRST_TICKS = 240  # of a stream, in which whatever there is counts as usual
LONG_TICKS = 1800  # over which it is then averaged: long against the growth of a fault, short against a shift


@dataclass(frozen=True, slots=True)
class Limits:
    """What is normal: ``fresh`` [C] of the size of a mean of fresh ticks, ``upper`` [C] by speed of the averages.

    ``spread`` is normal for the mean square of all columns of a fresh mean over their limits.
    """

    fresh: Floats
    spread: float
    upper: Mapping[float, Floats]

    @classmethod
    def fit(cls, fresh: Floats, smooth: Mapping[float, Floats], quantile: float, least: Floats | None = None) -> Limits:
        """From fresh means [T, C] and averages [T, C] by speed of normal runs.

        No limit is below ``least`` [C]; without it, columns that never move are not judged.
        """
        size = _size(fresh, FRESH_QUANTILE, least)
        spread = float(np.quantile(_mean_square(fresh / size), FRESH_QUANTILE)) if fresh.size else 1.0
        return cls(size, max(spread, 1e-6), {a: _size(values, quantile, least) for a, values in smooth.items()})

    def widened(self, factor: Mapping[float, Floats]) -> Limits:
        """With the limits of the averages multiplied by a ``factor`` [C] of their speed."""
        return replace(self, upper={alpha: size * factor.get(alpha, 1.0) for alpha, size in self.upper.items()})

    def size(self, fresh: Floats) -> Floats:
        """Size [T] of fresh means [T, C], all columns together; one is the largest that is normal."""
        return np.asarray(np.sqrt(_mean_square(fresh / self.fresh) / self.spread))


@dataclass(slots=True)
class AverageCarry:
    """What a stream leaves behind: the last residuals [<= FRESH_TICKS, C], their averages by speed, and what is usual.

    ``usual`` [C] is the mean over ``count`` [C] ticks, ``sure`` [C] what it was when they last agreed with it for a
    while, ``agreed`` [C] for how many they do now; ``ticks`` is the age of the stream.
    """

    recent: Floats | None = None
    smooth: dict[float, Floats] = field(default_factory=dict)
    usual: Floats | None = None
    count: Floats | None = None
    sure: Floats | None = None
    agreed: Floats | None = None
    ticks: int = 0


@dataclass(frozen=True, slots=True)
class Averaged:
    """Averages [T, C] of residuals by speed, and the mean [T, C] of the last ticks."""

    smooth: Mapping[float, Floats]
    fresh: Floats


def averaged(
    residual: Floats,
    known: Bools,
    carry: AverageCarry,
    limits: Limits | None = None,
    speeds: Sequence[Speed] = SPEEDS,
    alike: Bools | None = None,
    learns: bool = True,
) -> Averaged:
    """Averages of residuals [T, C], which are zero where they are not ``known`` [T]; updates ``carry``.

    Without ``limits``, as they are fitted, nothing is forgotten and everything is usual. Where residuals are not
    ``alike`` [T] those whose usual level is known, they say nothing of a shift. Where nothing ``learns``, while
    a fault stands, what is out of control is not usual.
    """
    fresh = _fresh(residual, carry)
    comparable = known if alike is None else known & alike
    relative = any(speed.relative for speed in speeds)
    usual = _usual(residual, fresh, comparable, carry, limits, learns) if relative else np.zeros_like(residual)
    made = {}
    for speed in speeds:
        level = usual if speed.relative else 0.0
        values = np.where(comparable[:, None], residual - level, 0.0) if speed.relative else residual
        start = carry.smooth.get(speed.alpha, np.zeros(residual.shape[1]))
        made[speed.alpha] = _forgetful(values, fresh - level, known, speed.alpha, start, limits)
        carry.smooth[speed.alpha] = made[speed.alpha][-1] if len(residual) else start
    carry.ticks += len(residual)
    return Averaged(made, fresh)


def recover(carry: AverageCarry, limits: Limits) -> None:
    """Begin again with the last ticks, within what is normal: a fault is over, and what it left is void."""
    if carry.recent is not None and len(carry.recent):
        fresh = carry.recent.mean(0)
        for alpha in carry.smooth:
            level = carry.usual if carry.usual is not None and alpha == SHIFT.alpha else 0.0
            carry.smooth[alpha] = np.clip(fresh - level, -limits.upper[alpha], limits.upper[alpha])


def _fresh(residual: Floats, carry: AverageCarry) -> Floats:
    """Mean [T, C] of the last ticks, fewer at the start of a stream; updates ``carry``."""
    recent = residual[:0] if carry.recent is None else carry.recent
    joined = np.concatenate([recent, residual])
    total = np.concatenate([np.zeros_like(joined[:1]), np.cumsum(joined, axis=0)])
    end = np.arange(len(recent), len(joined)) + 1
    start = np.maximum(end - FRESH_TICKS, 0)
    carry.recent = joined[max(len(joined) - FRESH_TICKS, 0) :]
    return np.asarray((total[end] - total[start]) / (end - start)[:, None])


def _usual(
    residual: Floats, fresh: Floats, known: Bools, carry: AverageCarry, limits: Limits | None, learns: bool
) -> Floats:
    """The long mean [T, C] with each tick in it; updates ``carry``.

    Where nothing ``learns``, a column whose ticks do not agree with it stays what it was when they last did.
    """
    columns = residual.shape[1]
    mean, count, agreed = (np.zeros(columns) if a is None else a for a in (carry.usual, carry.count, carry.agreed))
    sure = mean if carry.sure is None else carry.sure
    size = np.full(columns, np.inf) if limits is None else limits.fresh
    made = np.empty_like(residual)
    for row in range(len(residual)):
        if known[row]:
            first = carry.ticks + row < FIRST_TICKS
            agrees = first | (np.abs(fresh[row] - mean) <= size)
            mean = mean if learns else np.where(agrees, mean, sure)
            counts = agrees | learns
            count = count + counts
            mean = mean + np.where(counts, (residual[row] - mean) / np.clip(count, 1.0, LONG_TICKS), 0.0)
            agreed = np.where(agrees, agreed + 1, 0)
            sure = np.where((agreed > FRESH_TICKS) | first, mean, sure)
        made[row] = mean
    carry.usual, carry.count, carry.agreed, carry.sure = mean, count, agreed, sure
    return made


def _forgetful(
    values: Floats, fresh: Floats, known: Bools, alpha: float, start: Floats, limits: Limits | None
) -> Floats:
    """Exponential average [T, C] that begins again where fresh ticks contradict it."""
    smooth, _ = ewma(values, alpha, start)
    if limits is None or not len(values):
        return smooth
    quiet = np.abs(fresh) <= QUIET * limits.fresh
    all_quiet = _mean_square(fresh / limits.fresh) <= limits.spread
    row = 0
    while True:
        over = np.abs(smooth[row:]) / limits.fresh
        wrong = quiet[row:] & (over >= CLAIMED)
        wrong |= (all_quiet[row:] & (_mean_square(over) >= CLAIMED**2 * limits.spread))[:, None]
        wrong &= known[row:, None]
        rows = np.flatnonzero(wrong.any(1))
        if not len(rows):
            return smooth
        row += int(rows[0])
        columns = wrong[rows[0]]
        upper = limits.upper[alpha][columns]
        smooth[row, columns] = np.clip(fresh[row, columns], -upper, upper)
        if row + 1 == len(values):
            return smooth
        smooth[row + 1 :, columns] = ewma(values[row + 1 :, columns], alpha, smooth[row, columns])[0]
        row += 1


def _size(values: Floats, quantile: float, least: Floats | None) -> Floats:
    usual = np.quantile(np.abs(values), quantile, axis=0)
    return np.asarray(np.where(usual > STILL, usual, np.inf) if least is None else np.maximum(usual, least))


def _mean_square(values: Floats) -> Floats:
    """Mean square [T] over the columns; zero without any."""
    return np.asarray((values**2).sum(1) / max(values.shape[1], 1))
