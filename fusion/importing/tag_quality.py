"""What the history of each tag is worth: rate, gaps, frozen and straight stretches, outliers, changes of unit.

Tags are followed through stretches of time in order; what is kept of each is bounded. Shapes: N rows of one tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fusion.records import NS_PER_S, Quality

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_Number = TypeVar("_Number", bound=np.generic)
KEPT = 240
GAP_FACTOR, LEAST_GAP_S = 10.0, 60.0
GAPS_KEPT = 20
FROZEN_ROWS, STRAIGHT_ROWS = 20, 5
OUTLIER_MADS = 12.0
UNIT_TOLERANCE = 0.03
UNIT_FACTORS: dict[str, float] = {
    "1000": 1000.0,
    "100": 100.0,
    "60": 60.0,
    "3600": 3600.0,
    "3.6 (km/h, m/s; t/h, kg/s)": 3.6,
    "14.5 (bar, psi)": 14.5038,
    "6.89 (psi, kPa)": 6.89476,
    "35.3 (m3, ft3)": 35.3147,
    "2.205 (kg, lb)": 2.20462,
    "264 (m3, gal)": 264.172,
}
SENTINELS = np.array(
    [
        *(-99.0, -999.0, -999.25, -9999.0, -99999.0, -999999.0, 999.0, 9999.0, 99999.0, 999999.0),
        *(-32768.0, 32767.0, 65535.0, -(2.0**31), 2.0**31 - 1, 2.0**32 - 1, -(2.0**63), 2.0**63),
    ]
)
"""Numbers that programs write where there is none."""


@dataclass(slots=True)
class TagQuality:
    """One tag over the whole import; times in seconds where they say so."""

    name: str
    rows: int = 0
    bad: int = 0
    uncertain: int = 0
    states: Counter[str] = field(default_factory=Counter)
    first_ns: int = 0
    last_ns: int = 0
    low: float = np.inf
    high: float = -np.inf
    gaps: list[tuple[float, int]] = field(default_factory=list)
    gap_count: int = 0
    gap_s: float = 0.0
    frozen_s: float = 0.0
    longest_frozen_s: float = 0.0
    straight_s: float = 0.0
    breaks: int = 0
    whole: bool = True
    held: tuple[int, float, int] | None = None
    marks: Counter[float] = field(default_factory=Counter)
    plain_low: float = np.inf
    plain_high: float = -np.inf
    _rest_s: float = 0.0
    _seam: tuple[int, float] | None = None
    _t: list[Ints] = field(default_factory=list)
    _v: list[Floats] = field(default_factory=list)
    _dt: list[Floats] = field(default_factory=list)

    def add(self, t_ns: Ints, value: Floats, quality: NDArray[np.uint8]) -> None:
        """Follow the tag through the next stretch; stamps ascend."""
        self.first_ns = self.first_ns or int(t_ns[0])
        before = self.last_ns
        self.last_ns, self.rows = int(t_ns[-1]), self.rows + len(t_ns)
        self.held = int(t_ns[-1]), float(value[-1]), int(quality[-1])
        self.bad += int((quality == Quality.BAD).sum())
        self.uncertain += int((quality == Quality.UNCERTAIN).sum())
        self._intervals(np.concatenate([[before], t_ns]) if before else t_ns)
        usable = (quality != Quality.BAD) & np.isfinite(value)
        if usable.any():
            self._values(t_ns[usable], value[usable])

    def _intervals(self, t_ns: Ints) -> None:
        steps = np.diff(t_ns) / NS_PER_S
        if not len(steps):
            return
        self._dt.append(_thin(steps))
        limit = max(LEAST_GAP_S, GAP_FACTOR * float(np.median(steps)))
        long = np.flatnonzero(steps > limit)
        self.gap_count, self.gap_s = self.gap_count + len(long), self.gap_s + float(steps[long].sum())
        self.gaps = sorted([*self.gaps, *((float(steps[i]), int(t_ns[i])) for i in long)], reverse=True)[:GAPS_KEPT]

    def _values(self, t_ns: Ints, value: Floats) -> None:
        self.low, self.high = min(self.low, float(value.min())), max(self.high, float(value.max()))
        mark = np.isin(value, SENTINELS)
        self.marks.update(value[mark].tolist())
        plain = value[~mark]
        self.plain_low = min(self.plain_low, float(plain.min(initial=np.inf)))
        self.plain_high = max(self.plain_high, float(plain.max(initial=-np.inf)))
        self.whole = self.whole and bool((value == np.round(value)).all())
        self._t.append(_thin(t_ns))
        self._v.append(_thin(value))
        new = len(value)
        if self._seam is not None:
            t_ns, value = np.concatenate([[self._seam[0]], t_ns]), np.concatenate([[self._seam[1]], value])
        self._seam = int(t_ns[-1]), float(value[-1])
        if len(value) < 3:
            self.breaks += new
            return
        steps = np.diff(t_ns) / NS_PER_S
        slope = np.diff(value) / np.maximum(steps, 1e-9)
        size = np.abs(np.diff(value)).max()
        flat = slope == 0.0
        self._rests(flat, steps)
        tolerance = 1e-6 * np.maximum(np.abs(slope[1:]), size * 1e-3)
        if grain := _grain(self._v[-1]):  # rounding bends a straight line by up to two of the last digit
            steep = np.abs(np.diff(value)[1:]) > 20.0 * grain
            bent = 2.01 * grain / np.minimum(steps[1:], steps[:-1])
            tolerance = np.where(steep, np.maximum(tolerance, bent), tolerance)
        same = np.abs(np.diff(slope)) <= tolerance
        self.straight_s += float(_runs(same & ~flat[1:], steps[1:], STRAIGHT_ROWS).sum())
        self.breaks += int((~same).sum()) + 1

    def _rests(self, flat: NDArray[np.bool_], steps: Floats) -> None:
        """Stretches without a change; one that goes on from the stretch before counts as one."""
        frozen = _runs(flat, steps, FROZEN_ROWS)
        self.frozen_s += float(frozen.sum())
        moves = np.flatnonzero(~flat)
        lead, tail = (int(moves[0]), int(moves[-1]) + 1) if len(moves) else (len(flat), 0)
        whole = self._rest_s + float(steps[:lead].sum()) if lead >= FROZEN_ROWS else 0.0
        self.longest_frozen_s = max(self.longest_frozen_s, whole, float(frozen.max(initial=0.0)))
        self._rest_s = float(steps[tail:].sum()) + (0.0 if len(moves) else self._rest_s)

    # --- what it amounts to

    @property
    def span_s(self) -> float:
        """First to last stamp [s]."""
        return (self.last_ns - self.first_ns) / NS_PER_S

    @property
    def sentinels(self) -> dict[float, int]:
        """How often each number that programs write for none stands far outside all other values."""
        span = self.plain_high - self.plain_low
        if span < 0:  # there are no others
            return dict(self.marks)
        return {n: k for n, k in self.marks.items() if not self.plain_low - span <= n <= self.plain_high + span}

    @property
    def sample(self) -> tuple[Ints, Floats]:
        """Some usable values with their stamps, in order of time, ``sentinels`` aside."""
        if not self._t:
            return np.empty(0, np.int64), np.empty(0)
        t_ns, value = np.concatenate(self._t), np.concatenate(self._v)
        kept = ~np.isin(value, list(self.sentinels)) | (self.plain_high < self.plain_low)
        return t_ns[kept], value[kept]

    def interval_s(self, share: float = 0.5) -> float:
        """A quantile of the time between rows [s]; the span where there are fewer than two."""
        if not self._dt:
            return max(self.span_s, 1.0)
        return max(float(np.quantile(np.concatenate(self._dt), share)), 1e-3)

    @property
    def effective_s(self) -> float:
        """Mean time between rows that say something new: those that continue a straight line do not [s]."""
        active = max(self.span_s - self.gap_s, self.interval_s())
        return active / max(1, self.breaks)

    @property
    def compressed(self) -> bool:
        """Whether stamps are so uneven that only changes were archived (exception or swinging door)."""
        return self.rows > 20 and self.interval_s(0.9) > 3.0 * self.interval_s(0.1) and self.interval_s(0.9) > 1.0

    @property
    def interpolated(self) -> bool:
        """Whether even stamps carry straight lines: interpolated from a compressed archive."""
        return not self.compressed and self.straight_s > 0.3 * max(self.span_s, 1.0)

    @property
    def outliers(self) -> float:
        """Share of values far from the median, in robust deviations."""
        _, value = self.sample
        if len(value) < 20:
            return 0.0
        middle = np.median(value)
        spread = np.median(np.abs(value - middle)) * 1.4826
        return float((np.abs(value - middle) > OUTLIER_MADS * spread).mean()) if spread > 0 else 0.0

    def quantiles(self, *shares: float) -> list[float]:
        """Quantiles of the values kept."""
        _, value = self.sample
        return [float(q) for q in np.quantile(value, shares)] if len(value) else [0.0 for _ in shares]

    def unit_change(self) -> tuple[int, str] | None:
        """When the level stepped by a factor between units, and which; None where it did not."""
        t_ns, value = self.sample
        if len(value) < 80 or self.whole:
            return None
        edge = len(value) // 10
        stride = max(1, edge // 16)
        level, apart = _level(sliding_window_view(value, edge)[::stride]), edge // stride
        best = (int(np.argmax(np.abs(level[apart:] - level[:-apart]))) + apart) * stride
        before, after = float(np.median(value[:best])), float(np.median(value[best:]))
        spread = max(_spread(value[:best]) / max(abs(before), 1e-12), _spread(value[best:]) / max(abs(after), 1e-12))
        if before * after <= 0 or spread > 0.1:
            return None
        ratio = max(before / after, after / before)
        for name, factor in UNIT_FACTORS.items():
            if abs(ratio / factor - 1.0) < UNIT_TOLERANCE:
                return int(t_ns[best]), name
        hot, cold = max(before, after), min(before, after)
        if abs(cold * 1.8 + 32.0 - hot) < UNIT_TOLERANCE * hot:
            return int(t_ns[best]), "Celsius, Fahrenheit"
        return (int(t_ns[best]), "Celsius, kelvin") if abs(hot - cold - 273.15) < 1.0 else None


def _level(windows: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(np.abs(np.median(windows, axis=1)), 1e-12)))


def _spread(value: Floats) -> float:
    return float(np.median(np.abs(value - np.median(value))))


def _grain(value: Floats) -> float:
    """The last digit that values were rounded to; zero where they were not."""
    for digits in range(7):
        shifted = value * 10.0**digits
        if np.abs(shifted - np.round(shifted)).max() < 1e-9 * max(1.0, np.abs(shifted).max()):
            return float(10.0**-digits)
    return 0.0


def _thin(values: NDArray[_Number]) -> NDArray[_Number]:
    """Some of many, evenly, in order."""
    return values[:: max(1, -(-len(values) // KEPT))].copy()


def _runs(same: NDArray[np.bool_], steps: Floats, least: int) -> Floats:
    """Length in time of each run of at least ``least`` true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]])))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= least
    if not long.any():
        return np.empty(0)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(total[ends[long]] - total[starts[long]])


def follow(tags: Sequence[TagQuality], rows: pl.DataFrame, order: Ints) -> None:
    """Take a stretch of rows into what is known of each tag; in ``order`` they stand by tag, in each by time."""
    code, t_ns, quality = (rows[name].to_numpy()[order] for name in ("code", "t_ns", "quality"))
    value = rows["value"].fill_null(np.nan).to_numpy()[order]
    edges = np.flatnonzero(np.diff(code)) + 1
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(code)], strict=True):
        if end > start:
            tags[int(code[start])].add(t_ns[start:end], value[start:end], quality[start:end])
    states = rows.filter(pl.col("state").is_not_null()).group_by("code", "state").len()
    for number, state, count in states.iter_rows():
        tags[number].states[state] += count
