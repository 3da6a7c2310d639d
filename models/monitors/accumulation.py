"""Balances found in data: how far each tag has moved from its own average, told by the averages of others.

What accumulates moves by what flows in less what flows out: over the memory of an average, the distance of a level
from its own average is the average of the flows times that memory. So whatever is lost, added or measured wrongly
stands out where a controller keeps the level itself where it was. Inputs are chosen one by one, with their squares and
products; what explains little of runs not seen is dropped. Nobody has to declare a law.
Source: the modulating-function view of continuous-time identification, Garnier and Wang 2008, ch. 1; forward
selection by orthogonal least squares, Chen, Billings and Luo 1989.
Shape letters: T ticks, S tags, K inputs, C columns: what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.records import Energy, Origin, Statistic
from models.averages import ewma
from models.linear.core import Encoding
from models.linear.regression import Moments, ridge
from models.monitors.averaged import AverageCarry, Limits, averaged, recover
from models.monitors.piece import Piece
from models.monitors.residual import Largest, Residual, Speed, signals_of
from models.scaling import Bools, Floats

MEMORY_S, LEAST_TICKS = 100.0, 10.0  # of the averages: long against noise, short against a shift
SETTLED = 3.0  # memories of a stream, after which the averages can be relied on
SPEED = Speed("0.05", 0.05)
MOST_INPUTS = 5  # whose squares and products are 15 inputs more
WORTH = 0.01  # share of the variance that one more input has to explain
EXPLAINED = 0.5  # share of it, on runs not seen, below which nothing was found
PENALTY = 1e-3
FOLDS = 3  # each is judged on a third of the runs that it has not seen
QUANTILE = 0.995  # of an averaged residual's size when normal: its limit
FINEST = 0.03  # share of the spread of what is told below which a residual contradicts nothing
LIMIT = 6.0  # standardised inputs beyond this are new: their squares must not run away


@dataclass(slots=True)
class AccumulationCarry:
    """Running averages of the tags [S], for how many ticks each tag has had a value [S], and those of the residuals."""

    level: Floats | None = None
    age: NDArray[np.int64] | None = None
    averages: AverageCarry = field(default_factory=AverageCarry)


@dataclass(frozen=True, slots=True)
class Accumulation:
    """How far a tag is from its average, from the averages of ``inputs`` [K], standardised, squares and products."""

    tag: int
    inputs: NDArray[np.int64]
    centre: Floats
    scale: Floats
    weights: Floats

    def design(self, level: Floats) -> Floats:
        """What the weights are of [T, K + K (K + 1) / 2], from averages [T, S]."""
        value = np.clip((level[:, self.inputs] - self.centre) / self.scale, -LIMIT, LIMIT)
        first, second = np.triu_indices(len(self.inputs))
        return np.concatenate([value, value[:, first] * value[:, second]], 1)

    def residual(self, moved: Floats, level: Floats) -> Floats:
        """What the averages do not explain of the tag's distance from its own [T]."""
        return np.asarray(moved[:, self.tag] - self.design(level) @ self.weights[:-1] - self.weights[-1])

    def known(self, there: Bools) -> Bools:
        """Whether all that belongs to it is there [T], of tags that are [T, S]."""
        return np.asarray(there[:, self.tag] & there[:, self.inputs].all(1))

    def weighted(self, parts: Sequence[Moments]) -> Accumulation:
        """With the weights of these moments."""
        return replace(self, weights=ridge(Moments.total(parts), (PENALTY,))[0][:, 0])


@dataclass(frozen=True, slots=True)
class Accumulations:
    """All that was found, and one energy: the largest averaged residual over its limit."""

    energies: tuple[Energy, ...]
    plant: Plant
    found: tuple[Accumulation, ...]
    limits: Limits

    @property
    def memory(self) -> float:
        """How many ticks the averages remember."""
        return _memory(self.plant)

    @classmethod
    def fit(cls, runs: Sequence[tuple[Encoding, Bools]], plant: Plant) -> Accumulations:
        """From encodings of normal runs and what was observed; limits are measured on runs that each has not seen."""
        parted = [_settled(encoding, observed, _memory(plant)) for encoding, observed in runs]
        pairs = _enough([pair for pair in parted if len(pair[0])])
        made, residuals = [], []
        spread = np.concatenate([moved for moved, _ in pairs]).std(0) if pairs else np.zeros(0)
        for rough in _chosen(pairs):
            parts = [Moments.of(rough.design(level), moved[:, [rough.tag]]) for moved, level in pairs]
            others = [[p for i, p in enumerate(parts) if i % FOLDS != fold] for fold in range(FOLDS)]
            folded = [rough.weighted(part) for part in others]
            left = [folded[i % FOLDS].residual(*run) for i, run in enumerate(pairs)]
            if np.concatenate(left).std() <= np.sqrt(1.0 - EXPLAINED) * spread[rough.tag]:
                made.append(rough.weighted(parts))
                residuals.append(left)
        if not made:
            return cls(_energies(), plant, (), Limits(np.zeros(0), 1.0, {SPEED.alpha: np.zeros(0)}))
        columns = [np.stack(part, 1) for part in zip(*residuals, strict=True)]
        means = [averaged(c, np.ones(len(c), bool), AverageCarry(), speeds=(SPEED,)) for c in columns]
        smooth = {SPEED.alpha: np.concatenate([m.smooth[SPEED.alpha] for m in means])}
        finest = FINEST * spread[[one.tag for one in made]] + 1e-6
        limits = Limits.fit(np.concatenate([m.fresh for m in means]), smooth, QUANTILE, finest)
        return cls(_energies(), plant, tuple(made), limits)

    def widened(self, beyond: Mapping[str, Floats]) -> Accumulations:
        """With limits multiplied [C] by energy name."""
        factor = {energy.speed: beyond[energy.name] for energy in self.energies if energy.name in beyond}
        return replace(self, limits=self.limits.widened(factor))

    def begin(self) -> AccumulationCarry:
        """The carry at the start of a stream."""
        return AccumulationCarry()

    def step(self, piece: Piece, carry: AccumulationCarry) -> list[Residual]:
        """Averaged residuals [T, C] over their limits; updates ``carry``.

        A balance that does not close says what belongs to it and not which part is wrong.
        """
        observed = piece.ticks.observed
        moved, level, age = _averages(piece.encoding.tags, observed, self.memory, carry)
        settled = age > SETTLED * self.memory
        columns = [np.where(one.known(observed & settled), one.residual(moved, level), 0.0) for one in self.found]
        residual = np.stack(columns, 1) if columns else np.zeros((len(moved), 0))
        made = averaged(
            residual, np.asarray(settled.any(1)), carry.averages, self.limits, (SPEED,), learns=piece.learns
        )
        over = made.smooth[SPEED.alpha] / self.limits.upper[SPEED.alpha]
        return [Residual(energy, Largest(over, partial(self._shares, over))) for energy in self.energies]

    def recover(self, carry: AccumulationCarry) -> None:
        """Forget what a fault has left in the averages of the residuals."""
        recover(carry.averages, self.limits)

    def _shares(self, over: Floats) -> Floats:
        """Shares [T, G]: half of each residual is the tag's that accumulates, half its inputs', by their weight."""
        share = np.zeros((len(over), len(signals_of(self.plant))))
        strength = over**2 / np.maximum((over**2).sum(1, keepdims=True), 1e-12)
        for one, part in zip(self.found, strength.T, strict=True):
            share[:, one.tag] += 0.5 * part
            weight = np.abs(one.weights[: len(one.inputs)])
            share[:, one.inputs] += 0.5 * part[:, None] * weight / max(float(weight.sum()), 1e-12)
        return share


def _energies() -> tuple[Energy, ...]:
    return (
        Energy(
            name="accumulation", origin=Origin.BESIDE, family="accumulation", statistic=Statistic.LARGEST,
            speed=SPEED.alpha,
        ),
    )  # fmt: skip


def _memory(plant: Plant) -> float:
    return max(MEMORY_S / plant.step_s, LEAST_TICKS)


def _averages(
    tags: Floats, observed: Bools, memory: float, carry: AccumulationCarry
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """How far tags [T, S] are from their averages, the averages, and how long each has had values; updates ``carry``.

    Before its first value a tag stands where that will find it.
    """
    had = np.zeros(tags.shape[1], np.int64) if carry.age is None else carry.age
    seen = np.logical_or.accumulate(observed | (had > 0), axis=0)
    first = np.take_along_axis(tags, seen.argmax(0)[None], 0)[0] if len(tags) else np.zeros(tags.shape[1])
    start = first if carry.level is None else np.where(had > 0, carry.level, first)
    values = np.where(seen, tags, start)
    level, carry.level = ewma(values, 1.0 / memory, start)
    age = had + np.cumsum(seen, axis=0)
    carry.age = age[-1] if len(age) else had
    return values - level, level, age


def _settled(encoding: Encoding, observed: Bools, memory: float) -> tuple[Floats, Floats]:
    """How far tags are from their averages, and these, once all have settled that ever had a value in a run."""
    moved, level, age = _averages(encoding.tags, observed, memory, AccumulationCarry())
    settled = ((age > SETTLED * memory) | ~observed.any(0)).all(1)
    return moved[settled], level[settled]


def _enough(runs: list[tuple[Floats, Floats]]) -> list[tuple[Floats, Floats]]:
    """Runs for all folds: the longest is cut in two until there are."""
    runs = list(runs)
    while runs and len(runs) < FOLDS:
        longest = max(range(len(runs)), key=lambda i: len(runs[i][0]))
        moved, level = runs[longest]
        half = len(moved) // 2
        runs[longest : longest + 1] = [(moved[:half], level[:half]), (moved[half:], level[half:])]
    return runs


def _chosen(runs: Sequence[tuple[Floats, Floats]]) -> list[Accumulation]:
    """For each tag the inputs that explain most of it, without weights; none where they explain too little."""
    if not runs:
        return []
    moments = Moments.total([Moments.of(level, moved) for moved, level in runs])
    n = max(moments.rows, 1)
    mean, offset = moments.xx[-1, :-1] / n, moments.xy[-1] / n
    covariance = moments.xx[:-1, :-1] / n - np.outer(mean, mean)
    scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    moving = scale > 1e-9
    scale = np.where(moving, scale, 1.0)
    covariance = covariance / np.outer(scale, scale)
    cross = (moments.xy[:-1] / n - np.outer(mean, offset)) / scale[:, None]
    total = moments.yy / n - offset**2
    made = []
    for tag in np.flatnonzero(total > 1e-12):
        inputs = _forward(covariance, cross[:, tag], float(total[tag]), moving)
        if set(inputs) - {int(tag)}:
            kept = np.array(inputs, np.int64)
            made.append(Accumulation(int(tag), kept, mean[kept], scale[kept], np.zeros(0)))
    return made


def _forward(covariance: Floats, cross: Floats, total: float, moving: Bools) -> list[int]:
    """Standardised inputs that explain most of what varies by ``total``, one after the other; none that tell little."""
    chosen: list[int] = []
    left, before = cross.copy(), 0.0
    for _ in range(min(MOST_INPUTS, int(moving.sum()))):
        gain = np.where(moving, np.abs(left), -1.0)
        gain[chosen] = -1.0
        trial = [*chosen, int(gain.argmax())]
        some = covariance[np.ix_(trial, trial)] + 1e-6 * np.eye(len(trial))
        weights = np.linalg.solve(some, cross[trial])
        explained = float(weights @ cross[trial]) / total
        if explained - before < WORTH:
            break
        chosen, before = trial, explained
        left = cross - covariance[:, trial] @ weights
    return chosen
