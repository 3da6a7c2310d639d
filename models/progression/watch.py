"""Which trends are worth a word: those of which it is sure that they go on and lead to a limit.

Few false statements are what a reader judges by. So a trend is stated once it has been sure for some hours, only as far
ahead as was looked back, and withdrawn once it is not likely any more.
Shape letters: N points, Q quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fusion.records import NS_PER_S
from models.progression.history import Grid, History, Ints
from models.progression.trend import DAYS_AHEAD, HORIZONS, Course, daily, reached
from models.scaling import Bools, Floats

DAY_NS = 86400 * NS_PER_S
LEAST_DAYS = 2.0  # a daily swing must have been seen twice
LEAST_POINTS = 36
SPARE_POINTS = 6  # beyond as many as there are coefficients: states that were seen for a day each have one each
RECENT_DAYS = 1.0  # of single blocks; older ones are pooled
POOLS = ((RECENT_DAYS, 0.25), (7.0, 1.0))  # [days]: from which age on values are means over how long
AGE_DAYS = 0.25  # of the newest value, above which nothing is said
EXTRAPOLATES = 1.0  # times the time that was seen: what turns within it has been seen turning
SURE, LIKELY = 0.975, 0.9  # of the sign of a slope, to state a trend and to keep it
COMES, MAY_COME = 0.9, 0.7  # the same of reaching the limit in time
CONFIRMED = 3  # blocks for which it must have been sure
CLEAR = 3.0  # standard errors of a straight line, as if noise were white: less is no trend by any reckoning
MOST_CANDIDATES = 24  # looked at closely at a time: the first to reach their limits
JUMP_BLOCKS = 6  # on both sides of a jump
JUMP = 6.0  # times the usual change over as many, and it must come at once:
ABRUPT = 3.0  # times what changes just before and after
OFFSET_POINTS = 6  # of another operating state, to know how far apart it is


@dataclass(frozen=True, slots=True)
class Trend:
    """Quantity number ``which`` is at ``level``, moves by ``slope`` a day and is at ``limit`` in ``days``.

    Of the slope and the days low, middle and high of the 90 % interval. ``t_ns`` is when it was found so,
    ``stated_ns`` since when it is said.
    """

    which: int
    t_ns: int
    stated_ns: int
    level: float
    slope: tuple[float, float, float]
    limit: float
    days: tuple[float, float, float]


@dataclass(slots=True)
class Said:
    """For how many blocks each quantity has been ``sure`` [Q], and since when it is ``stated_ns`` [Q], 0 if not."""

    sure: Ints
    stated_ns: Ints
    trends: tuple[Trend, ...] = field(default=())

    @classmethod
    def nothing(cls, quantities: int) -> Said:
        """Nothing was ever said."""
        return cls(np.zeros(quantities, np.int64), np.zeros(quantities, np.int64))

    def of(self, columns: Ints) -> Said:
        """The same of other quantities: each is the one at ``columns`` [Q] before, or is new where that is -1."""
        before = [
            np.append(values, 0)[np.where(columns < 0, len(values), columns)] for values in (self.sure, self.stated_ns)
        ]
        place = {int(old): new for new, old in enumerate(columns)}
        trends = tuple(replace(t, which=place[t.which]) for t in self.trends if t.which in place)
        return Said(before[0], before[1], trends)


def look(history: History, low: Floats, high: Floats, said: Said, grid: Grid) -> tuple[Trend, ...]:
    """The trends to be stated after a block, the first to reach its limit first; updates ``said``.

    ``low`` and ``high`` [Q] are the limits, infinite where there is none.
    """
    if not len(history.t_ns):
        return ()
    known, now_ns = history.known(), int(history.t_ns[-1])
    found: list[Trend] = []
    keep = np.zeros(len(low), bool)
    for which in _candidates(history.t_ns, known, low, high, said.stated_ns > 0):
        points = points_of(history.t_ns, known[:, which], history.state, grid)
        if points is None:
            continue
        trend, sure, likely = _judged(which, points, float(low[which]), float(high[which]), now_ns)
        keep[which] = sure or (likely and said.stated_ns[which] > 0)
        said.sure[which] = said.sure[which] + 1 if sure else 0
        if keep[which] and (said.sure[which] >= CONFIRMED or said.stated_ns[which]) and trend is not None:
            found.append(trend)
    said.sure = np.where(keep, said.sure, 0)
    told = {trend.which for trend in found}
    for which in range(len(low)):
        said.stated_ns[which] = (said.stated_ns[which] or now_ns) if which in told else 0
    found = [replace(trend, stated_ns=int(said.stated_ns[trend.which])) for trend in found]
    said.trends = tuple(sorted(found, key=lambda trend: trend.days[1]))
    return said.trends


@dataclass(frozen=True, slots=True)
class Points:
    """Values ``y`` [N] at times ``t`` [days], means of ``weight`` [N] blocks, and regressors beside level and slope.

    Of these the first ``daily`` are of a daily swing.
    """

    t: Floats
    y: Floats
    weight: Floats
    design: Floats
    daily: int


def points_of(t_ns: Ints, value: Floats, state: Ints, grid: Grid) -> Points | None:
    """What is known of one quantity since its last jump; None where that is too little."""
    there = np.isfinite(value)
    t, y, state = t_ns[there] / DAY_NS, value[there], state[there]
    first = last_jump(y)
    t, y, state = t[first:], y[first:], state[first:]
    if not len(t) or t_ns[-1] / DAY_NS - t[-1] > AGE_DAYS:
        return None
    present = int(state[-1])
    apart, count = np.unique(state[state != present], return_counts=True)
    others = [int(other) for other in apart[count >= OFFSET_POINTS]]
    used = np.isin(state, [present, *others])
    t, y, state, weight = _pooled(t[used], y[used], state[used])
    if weight.sum() < LEAST_POINTS or t[-1] - t[0] < LEAST_DAYS * 0.95:
        return None
    offsets = [(state == other).astype(float) for other in others]
    swing = daily(t) if grid.block_ns * 4 <= DAY_NS else np.zeros((len(t), 0))
    if len(t) < 2 + swing.shape[1] + len(others) + SPARE_POINTS:
        return None
    return Points(t, y, weight, np.column_stack([swing, *offsets]), swing.shape[1])


def last_jump(y: Floats) -> int:
    """The index behind the last sudden change of level [N]; 0 without one."""
    k = JUMP_BLOCKS
    if len(y) < 4 * k:
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(y, k)
    middle = np.median(windows, axis=1)
    step = middle[k:] - middle[:-k]
    size = np.abs(step)
    around = np.full(len(size), np.inf)
    around[k:-k] = np.maximum(size[: -2 * k], size[2 * k :])
    half = np.median(y[np.arange(k, len(y) - k + 1)[:, None] + np.arange(-3, 0)], axis=1)
    after = np.median(y[np.arange(k, len(y) - k + 1)[:, None] + np.arange(0, 3)], axis=1)
    abrupt = (np.abs(after - half) > 0.7 * size) & (size > ABRUPT * around)
    rows = np.flatnonzero(abrupt & (size > JUMP * np.median(size)))
    return int(rows[-1]) + k if len(rows) else 0


def _pooled(t: Floats, y: Floats, state: Ints) -> tuple[Floats, Floats, Ints, Floats]:
    """Older values as means over some hours of one state, with how many each is the mean of."""
    if not len(t):
        return t, y, state, np.zeros(0)
    key, age = np.arange(len(t)) + 1e9, t[-1] - t
    for older, over in POOLS:
        key = np.where(age > older, np.floor(t / over) + 1e6 * over, key)
    _, place = np.unique(np.column_stack([key, state]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    count = np.bincount(place).astype(float)
    mean_t, mean_y = np.bincount(place, t) / count, np.bincount(place, y) / count
    mean_state = np.round(np.bincount(place, state) / count).astype(np.int64)
    order = np.argsort(mean_t, kind="stable")
    return mean_t[order], mean_y[order], mean_state[order], count[order]


def _candidates(t_ns: Ints, known: Floats, low: Floats, high: Floats, stated: Bools) -> Sequence[int]:
    """Quantities whose straight line over two days, or over all, may lead to a limit; those that are stated first."""
    t = (t_ns - t_ns[-1]) / DAY_NS
    when = np.full(len(low), np.inf)
    for since in (-LEAST_DAYS, -np.inf):
        rows = t >= since
        slope, level, error = _lines(t[rows], known[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            days = np.where(slope > 0, (high - level) / slope, (low - level) / slope)
        when = np.minimum(when, np.where((days > 0) & (np.abs(slope) > CLEAR * error), days, np.inf))
    when = np.where(stated, 0.0, np.nan_to_num(when, nan=np.inf))
    order = np.argsort(when, kind="stable")[:MOST_CANDIDATES]
    return [int(which) for which in order if when[which] < 2.0 * DAYS_AHEAD]


def _lines(t: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Slope, value at zero and standard error of the slope [Q] of straight lines, as if all noise were white."""
    there = np.isfinite(values)
    count = np.maximum(there.sum(0), 3)
    y, x = np.where(there, values, 0.0), np.where(there, t[:, None], 0.0)
    mean_x, mean_y = x.sum(0) / count, y.sum(0) / count
    apart = np.where(there, t[:, None] - mean_x, 0.0)
    spread = np.maximum((apart**2).sum(0), 1e-12)
    slope = (apart * (y - mean_y)).sum(0) / spread
    left = np.where(there, values - mean_y - slope * apart, 0.0)
    return slope, mean_y - slope * mean_x, np.sqrt((left**2).sum(0) / (count - 2) / spread)


def _judged(which: int, points: Points, low: float, high: float, now_ns: int) -> tuple[Trend | None, bool, bool]:
    """The trend of a quantity towards a limit, whether it is sure, and whether it is at least likely."""
    made = Course(points.t, points.y, points.weight, points.design, now_ns / DAY_NS, points.daily)
    rising = made.rises >= 0.5
    certain, limit = (made.rises, high) if rising else (1.0 - made.rises, low)
    if certain < LIKELY or not np.isfinite(limit):
        return None, False, False
    beyond = made.level + made.swing >= limit if rising else made.level - made.swing <= limit
    seen = float(points.t[-1] - points.t[0])
    by = np.maximum.accumulate(np.where(EXTRAPOLATES * seen >= HORIZONS, made.by(limit, rising=rising), 0.0))
    if beyond or by[-1] < MAY_COME:
        return None, False, False
    trend = Trend(which, now_ns, now_ns, made.level, made.slope(), limit, reached(by))
    return trend, certain >= SURE and bool(by[-1] >= COMES), True
