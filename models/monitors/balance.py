"""Conservation laws as slow detectors: what came in, less what went out, less what is stored, over minutes.

A leak of a few per cent hides in every sensor's noise, but not in a window of ten minutes. Coefficients are refined
on normal data. Shape letters: T ticks, F flows, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fusion.plant import Balance, Plant, factors
from fusion.records import Energy, Origin, Statistic
from models.averages import ewma
from models.monitors.piece import Piece
from models.monitors.residual import Largest, Residual, signals_of
from models.scaling import Bools, Floats
from models.ticks import Ticks

SMOOTHING = 0.06  # EWMA of the stored amount: a level sensor is noisy against a window's change
FIT_WINDOW_S = 300.0  # long against the noise of a level, short against a run
FIT_THIN_S = 30.0  # windows overlap: more rows say nothing new
PULL = 1e-3  # towards the nominal coefficients, relative to the data
SETTLE_TICKS = 60  # until the smoothed amount has forgotten its first value
LEAST_THROUGHPUT = 0.2  # of the mean one


@dataclass(slots=True)
class BalanceCarry:
    """Smoothed accumulated imbalance and throughput [N, 2] of the last ticks, newest last, and what is behind them."""

    held: Floats
    total: float
    through: float
    smooth: Floats | None
    trace: Floats
    ticks: int = 0


@dataclass(frozen=True, slots=True)
class BalanceMonitor:
    """One law with refined ``coefficients`` [F] and ``bias``, in the balance's unit; ``spread`` [W] is normal.

    ``holdup`` [F] is what is under way between the meters per unit of flow: transport takes time, and a step of a flow
    is not an imbalance. ``least`` is the smallest throughput that an imbalance is related to.
    """

    balance: Balance
    coefficients: Floats
    holdup: Floats
    bias: float
    spread: Floats
    least: float
    step_s: float

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals of the law, level first."""
        return self.balance.signals

    @classmethod
    def fit(cls, balance: Balance, runs: Sequence[Ticks], plant: Plant) -> BalanceMonitor:
        """Refine the nominal coefficients on normal runs by ridge towards them, then measure the normal spread.

        Without a level the first flow keeps its coefficient, for the law has no scale of its own.
        """
        nominal = np.array(list(balance.flows.values()), np.float64)
        rough = cls(balance, nominal, np.zeros(len(nominal)), 0.0, np.ones(len(balance.window_s)), 0.0, plant.step_s)
        rows = [rough._rows(run, plant) for run in runs]
        flows, steps, stored = (np.concatenate([r[i] for r in rows]) for i in range(3))
        coefficients, holdup, bias = _refined(flows, steps, stored, nominal, fixed=balance.level is None)
        least = LEAST_THROUGHPUT * float((np.abs(flows) @ np.abs(coefficients)).mean()) / 2 if len(flows) else 1.0
        refined = replace(rough, coefficients=coefficients, holdup=holdup, bias=bias, least=max(least, 1e-12))
        imbalance = np.concatenate([refined.step(run, plant, None)[0] for run in runs])
        return replace(refined, spread=_spread(imbalance))

    def step(self, ticks: Ticks, plant: Plant, carry: BalanceCarry | None) -> tuple[Floats, BalanceCarry | None]:
        """Imbalance [T, W] in the normal spread of each window, signed; NaN until a window is full, and the carry.

        A balance begins once all its signals have a value; until then there is no carry.
        """
        values, seen = _columns(ticks, plant, self.signals)
        if carry is None:
            whole = np.asarray(seen.all(1))
            first = int(whole.argmax()) if whole.any() else len(whole)
            if first:
                nothing = np.full((first, len(self.balance.window_s)), np.nan)
                later, begun = self.step(ticks[first:], plant, None) if whole.any() else (nothing[:0], None)
                return np.concatenate([nothing, later]), begun
            carry = BalanceCarry(values[0], 0.0, 0.0, None, np.zeros((0, 2)))
        values = _held(values, seen, carry.held)
        level, flows = self._split(values)
        lost = self.balance.capacity * level - flows @ self.holdup
        total = carry.total + np.cumsum(flows @ self.coefficients + self.bias) * self.step_s
        through = carry.through + np.cumsum(np.abs(flows) @ np.abs(self.coefficients)) * self.step_s / 2
        smooth, state = ewma(np.stack([lost - total, through], 1), SMOOTHING, carry.smooth)
        trace = np.concatenate([carry.trace, smooth])
        imbalance = self._imbalance(trace, len(ticks), carry.ticks)
        imbalance[~seen.all(1)] = np.nan
        longest = round(max(self.balance.window_s) / self.step_s)
        sums = (float(total[-1]), float(through[-1]))
        left = BalanceCarry(values[-1], *sums, state, trace[-longest:], carry.ticks + len(ticks))
        return imbalance / self.spread, left

    def lately(self, carry: BalanceCarry, column: int) -> float:
        """Mean imbalance over one of the windows as the last tick left it, in no spread; NaN until it is full."""
        window = round(self.balance.window_s[column] / self.step_s)
        if window < 2 or len(carry.trace) < window or carry.ticks - window < SETTLE_TICKS:
            return float("nan")
        lost, through = (carry.trace[-1] - carry.trace[-window]) / ((window - 1) * self.step_s)
        return float(lost if self.balance.level else lost / max(float(through), self.least))

    def _imbalance(self, trace: Floats, ticks: int, start: int) -> Floats:
        """Mean imbalance [T, W] over each window; NaN while it reaches into the first ticks of the stream.

        With a level it is a rate, for a leak does not depend on the throughput. Without one it is a share of the
        throughput, for a wrong meter does.
        """
        now = np.arange(len(trace) - ticks, len(trace))
        made = []
        for window_s in self.balance.window_s:
            window = round(window_s / self.step_s)
            before = now - window
            settled = (start + np.arange(ticks) - window >= SETTLE_TICKS) & (before >= 0)
            lost, through = (trace[now] - trace[np.maximum(before, 0)]).T / (window * self.step_s)
            size = 1.0 if self.balance.level else np.maximum(through, self.least)
            made.append(np.where(settled, lost / size, np.nan))
        return np.stack(made, 1)

    def _split(self, values: Floats) -> tuple[Floats, Floats]:
        """Level [T] (zero where the law has none) and flows [T, F] from the values of ``signals``."""
        column = {name: values[:, i] for i, name in enumerate(self.signals)}
        flows = [np.prod([column[n] for n in factors(flow)], axis=0) for flow in self.balance.flows]
        level = column[self.balance.level] if self.balance.level else np.zeros(len(values))
        return level, np.stack(flows, 1)

    def _rows(self, run: Ticks, plant: Plant) -> tuple[Floats, Floats, Floats]:
        """Regression rows of windows: mean flows, their change per second, and the rate of what was stored."""
        values, _ = _columns(run, plant, self.signals)
        level, flows = self._split(values[SETTLE_TICKS:])
        count = flows.shape[1]
        window = min(round(FIT_WINDOW_S / self.step_s), len(level) // 2)
        if window < 1:
            return np.zeros((0, count)), np.zeros((0, count)), np.zeros(0)
        stored = (self.balance.capacity * level)[:, None]
        smooth = ewma(np.concatenate([stored, np.cumsum(flows, 0), flows], 1), SMOOTHING)[0]
        thin = max(1, round(FIT_THIN_S / self.step_s))
        change = (smooth[window:] - smooth[:-window])[::thin] / window
        return change[:, 1 : 1 + count], change[:, 1 + count :] / self.step_s, change[:, 0] / self.step_s


@dataclass(frozen=True, slots=True)
class Laws:
    """The conservation laws of a plant, an energy for each window of each."""

    energies: tuple[Energy, ...]
    plant: Plant
    monitors: tuple[BalanceMonitor, ...]

    @classmethod
    def fit(cls, runs: Sequence[Ticks], plant: Plant) -> Laws:
        """Refined on normal runs."""
        monitors = tuple(BalanceMonitor.fit(balance, runs, plant) for balance in plant.balances)
        records = [
            Energy(
                name=energy_name(law, window_s),
                origin=Origin.LAW,
                family="balance",
                statistic=Statistic.LARGEST,
                speed=SMOOTHING,
            )
            for law in plant.balances
            for window_s in law.window_s
        ]
        return cls(tuple(records), plant, monitors)

    def begin(self) -> list[BalanceCarry | None]:
        """The carry at the start of a stream."""
        return [None] * len(self.monitors)

    def step(self, piece: Piece, carry: list[BalanceCarry | None]) -> list[Residual]:
        """Imbalances in their normal spread, and equal shares for the signals of the law; updates ``carry``."""
        charts: dict[str, Largest] = {}
        for i, monitor in enumerate(self.monitors):
            imbalance, carry[i] = monitor.step(piece.ticks, self.plant, carry[i])
            share = np.isin(signals_of(self.plant), monitor.signals) / len(monitor.signals)
            blame = partial(np.tile, share, (len(piece), 1))
            for window_s, column in zip(monitor.balance.window_s, imbalance.T, strict=True):
                charts[energy_name(monitor.balance, window_s)] = Largest(column[:, None], blame)
        return [Residual(energy, charts[energy.name]) for energy in self.energies]

    def recover(self, carry: list[BalanceCarry | None]) -> None:
        """Begin every window anew."""
        for left in carry:
            if left is not None:
                left.trace = left.trace[:0]


def energy_name(law: Balance, window_s: float) -> str:
    """The name of the energy of a window of a law."""
    return f"balance.{law.name}.{round(window_s)}s"


def _columns(ticks: Ticks, plant: Plant, signals: Sequence[str]) -> tuple[Floats, Bools]:
    tags = {s.name: i for i, s in enumerate(plant.tags)}
    actions = {s.name: i for i, s in enumerate(plant.actions)}
    always = np.ones(len(ticks), bool)
    pairs = [
        (ticks.tags[:, tags[n]], ticks.observed[:, tags[n]]) if n in tags else (ticks.action[:, actions[n]], always)
        for n in signals
    ]
    return np.stack([v for v, _ in pairs], 1), np.stack([s for _, s in pairs], 1)


def _held(values: Floats, seen: Bools, start: Floats) -> Floats:
    rows = np.arange(1, len(values) + 1)[:, None]
    last = np.maximum.accumulate(np.where(seen, rows, 0), axis=0)
    return np.take_along_axis(np.concatenate([start[None], values]), last, 0)


def _refined(
    flows: Floats, steps: Floats, stored: Floats, nominal: Floats, *, fixed: bool
) -> tuple[Floats, Floats, float]:
    """Least squares for coefficients, holdup and bias, pulled towards the nominal ones in units of each flow's size."""
    count = len(nominal)
    if not len(flows):
        return nominal, np.zeros(count), 0.0
    first = 1 if fixed else 0
    design = np.concatenate([flows, steps, np.ones((len(flows), 1))], 1)
    size = np.sqrt((design**2).mean(0)) + 1e-12
    start = np.concatenate([nominal, np.zeros(count + 1)])
    free = design[:, first:] / size[first:]
    pull = np.concatenate([np.full(count - first, PULL), np.full(count, PULL), [1e-6 * PULL]]) * len(flows)
    change = np.linalg.solve(free.T @ free + np.diag(pull), free.T @ (stored - design @ start)) / size[first:]
    found = start + np.concatenate([np.zeros(first), change])
    return found[:count], found[count : 2 * count], float(found[-1])


def _spread(imbalance: Floats) -> Floats:
    """Robust normal size [W] of the imbalance; one where no run was long enough."""
    found = []
    for column in imbalance.T:
        known = np.abs(column[np.isfinite(column)])
        found.append(float(np.median(known)) * 1.483 if len(known) else np.nan)
    sizes = np.array(found)
    fallback = np.nanmax(sizes) if np.isfinite(sizes).any() else 1.0
    return np.maximum(np.where(np.isfinite(sizes), sizes, fallback), 1e-12)
