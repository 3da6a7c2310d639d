"""Each modality's features from those of all the others: what one sense says that the others do not confirm.

The process tags are one modality, every media signal is one. A ridge is fitted for every set of media that may be
present, so that a lost camera leaves the others calibrated; without process tags a medium is compared with its own
mean. Residuals are averaged at two speeds, and once more
relative to their own long mean: a plant is never quite the one of its training, but it is like itself.
Shape letters: T ticks, C columns, F features, K inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.averages import Usual, ewma, less_usual
from models.linear.regression import Moments, ridge
from models.monitors.distance import Distance, Judged
from models.scaling import MANY_TAGS, Bools, Floats, Scaling
from models.ticks import Ticks

PROCESS, ACTION = "process", "action"
ALONE = "alone"  # in place of a media set: no inputs at all
OBSERVED_SHARE = 0.5  # of the tags, below which there is no process to compare with
INPUT_ALPHAS = (0.1, 0.02)
RESIDUAL_ALPHAS = {"0.1": 0.1, "0.02": 0.02, "shift": 0.05}
SHIFT = "shift"
CLIP = 8.0  # scaled units: one wild feature must not drown the others
COMPONENTS, COMPONENT_SHARE = 24, 0.97
PENALTY = 1e-2
FOLDS = 3
QUANTILE = 0.995  # of an averaged residual's size when normal: the limit of a single feature


@dataclass(slots=True)
class CrossCarry:
    """What a stream leaves behind: held features by medium, input and residual averages by block and speed.

    ``usual`` is the long mean of each target's residual.
    """

    held: dict[str, Floats] = field(default_factory=dict)
    inputs: dict[tuple[str, float], Floats] = field(default_factory=dict)
    residuals: dict[tuple[str, str], Floats] = field(default_factory=dict)
    usual: dict[str, Usual] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The columns of each modality [T, C], whether a medium is present [T] and which tags are observed [T, S]."""

    values: Mapping[str, Floats]
    present: Mapping[str, Bools]
    observed: Bools

    def __len__(self) -> int:
        return len(self.values[PROCESS])


def blocks(
    ticks: Ticks,
    tags: Floats,
    action: Floats,
    scaling: Scaling,
    held: dict[str, Floats],
    present: Mapping[str, Bools],
) -> Blocks:
    """Scaled tags and actions, and the scaled, clipped features of the media in ``present``, held where absent.

    Updates ``held``.
    """
    values = {PROCESS: tags, ACTION: action}
    for name, there in present.items():
        start = held.get(name, np.zeros(len(scaling.media[name].centre)))
        given = ticks.media.get(name, np.zeros((len(ticks), len(start))))
        scaled = np.clip(scaling.media[name].scaled(given), -CLIP, CLIP)
        last = np.maximum.accumulate(np.where(there, np.arange(1, len(ticks) + 1), 0))
        values[name] = np.concatenate([start[None], scaled])[last]
        held[name] = values[name][-1]
    return Blocks(values, present, ticks.observed)


@dataclass(frozen=True, slots=True)
class CrossModal:
    """The fitted ridges. ``components`` [F, n] reduce a medium, or many tags, to inputs.

    ``weights`` are by target and media set.

    ``limits`` [C] bound every single averaged residual, ``distances`` all of a target together.
    """

    media: tuple[str, ...]
    components: Mapping[str, Floats]
    weights: Mapping[tuple[str, str], Floats]
    distances: Mapping[tuple[str, str, str], Distance]
    limits: Mapping[tuple[str, str, str], Floats]

    @property
    def targets(self) -> tuple[str, ...]:
        """The modalities predicted."""
        return (PROCESS, *self.media)

    @classmethod
    def fit(
        cls, runs: Sequence[Blocks], media: tuple[str, ...], groups: Mapping[str, NDArray[np.int64]], warm_up: int
    ) -> CrossModal:
        """From normal runs; ``groups`` gives the signal of each target column.

        Spreads are measured on folds of runs the ridge has not seen, where there are at least ``FOLDS`` runs.
        """
        components = {m: _components(np.concatenate([r.values[m][r.present[m]] for r in runs])) for m in media}
        if runs[0].values[PROCESS].shape[1] > MANY_TAGS:
            components[PROCESS] = _components(np.concatenate([r.values[PROCESS].clip(-CLIP, CLIP) for r in runs]))
        designs = [_design(r, media, components, {}) for r in runs]
        kept = [_complete(r, media, warm_up) for r in runs]
        model = cls(media, components, {}, {}, {})
        weights: dict[tuple[str, str], Floats] = {}
        distances: dict[tuple[str, str, str], Distance] = {}
        limits: dict[tuple[str, str, str], Floats] = {}
        for target in model.targets:
            truths = [r.values[target] for r in runs]
            parts = [Moments.of(d[k], t[k]) for d, t, k in zip(designs, truths, kept, strict=True)]
            for there in (*_media_sets(media, target), *((ALONE,) if target != PROCESS else ())):
                columns = model.columns(target, there, runs[0])
                key = (target, there)
                weights[key] = _fit(parts, columns)
                residuals = _fold_residuals(parts, columns, designs, truths)
                relative = [less_usual(e, Usual())[0] for e in residuals]
                for speed, alpha in RESIDUAL_ALPHAS.items():
                    values = relative if speed == SHIFT else residuals
                    smooth = [ewma(v, alpha, np.zeros(v.shape[1]))[0][k] for v, k in zip(values, kept, strict=True)]
                    distances[(*key, speed)] = Distance.fit(np.concatenate(smooth), groups[target])
                    usual = np.quantile(np.abs(np.concatenate(smooth)), QUANTILE, axis=0)
                    limits[(*key, speed)] = np.where(usual > 1e-9, usual, np.inf)
        return cls(media, components, weights, distances, limits)

    def columns(self, target: str, there: str, made: Blocks) -> NDArray[np.int64]:
        """Which inputs of the design serve a target when these media are there: one digit, 0 or 1, per medium."""
        if there == ALONE:
            return np.zeros(0, np.int64)
        used = [n for n in (PROCESS, ACTION) if n != target]
        used += [m for m, digit in zip(self.media, there, strict=True) if digit == "1"]
        blocks = (PROCESS, ACTION, *self.media)
        widths = {n: self.components.get(n, made.values[n]).shape[1] for n in blocks}
        names = np.repeat(list(widths), [w * (1 + len(INPUT_ALPHAS)) for w in widths.values()])
        return np.flatnonzero(np.isin(names, used))

    def step(
        self, made: Blocks, carry: CrossCarry
    ) -> tuple[dict[tuple[str, str], Judged], dict[tuple[str, str], Floats]]:
        """By target and speed: averaged residuals with what judges each row, and the same over their limits [T, C].

        A residual that cannot be known (absent medium) counts as zero in the averages and is not judged; over its
        limit it is NaN. Updates ``carry``.
        """
        design = _design(made, self.media, self.components, carry.inputs)
        found, single = {}, {}
        for target in self.targets:
            sets = self._sets(target, made)
            residual = self._residual(target, made, design, sets)
            known = np.zeros(len(made), bool)
            for _, rows in sets:
                known[rows] = True
            relative, carry.usual[target] = less_usual(residual, carry.usual.get(target, Usual()), known)
            for speed, alpha in RESIDUAL_ALPHAS.items():
                values = relative if speed == SHIFT else residual
                start = carry.residuals.get((target, speed), np.zeros(residual.shape[1]))
                smooth, carry.residuals[target, speed] = ewma(values, alpha, start)
                judges = tuple((rows, self.distances[target, there, speed]) for there, rows in sets)
                found[target, speed] = Judged(smooth, judges)
                single[target, speed] = np.full_like(smooth, np.nan)
                for there, rows in sets:
                    single[target, speed][rows] = smooth[rows] / self.limits[target, there, speed]
        return found, single

    def _sets(self, target: str, made: Blocks) -> list[tuple[str, NDArray[np.int64]]]:
        """The rows where the target is present, by the set of other media present."""
        there = [made.present[m] & (m != target) for m in self.media]
        digits = np.stack([np.where(t, "1", "0") for t in there], 1) if there else np.empty((len(made), 0), str)
        process = made.observed.sum(1) >= OBSERVED_SHARE * made.observed.shape[1]
        found: dict[str, list[int]] = {}
        for row in np.flatnonzero(made.present[target] if target != PROCESS else process):
            code = "".join(digits[row]) if process[row] else ALONE
            found.setdefault(code if (target, code) in self.weights else "0" * len(self.media), []).append(int(row))
        return [(code, np.array(rows, np.int64)) for code, rows in found.items()]

    def _residual(
        self, target: str, made: Blocks, design: Floats, sets: Sequence[tuple[str, NDArray[np.int64]]]
    ) -> Floats:
        true = made.values[target]
        residual = np.zeros_like(true)
        for there, rows in sets:
            columns = self.columns(target, there, made)
            weights = self.weights[target, there]
            residual[rows] = true[rows] - design[np.ix_(rows, columns)] @ weights[:-1] - weights[-1]
        return np.where(made.observed, residual, 0.0) if target == PROCESS else residual


def _components(features: Floats) -> Floats:
    """Whitening principal components [F, n] of scaled, clipped features."""
    if not len(features):
        return np.zeros((features.shape[1], 1))
    values, vectors = np.linalg.eigh(features.T @ features / len(features))
    values, vectors = np.maximum(values[::-1], 1e-9), vectors[:, ::-1]
    needed = int(np.searchsorted(np.cumsum(values) / values.sum(), COMPONENT_SHARE)) + 1
    kept = min(needed, COMPONENTS)
    return np.asarray(vectors[:, :kept] / np.sqrt(values[:kept]))


def _design(
    made: Blocks, media: Sequence[str], components: Mapping[str, Floats], states: dict[tuple[str, float], Floats]
) -> Floats:
    """Inputs [T, K]: each block's columns and their averages; updates ``states``."""
    parts = []
    for name in (PROCESS, ACTION, *media):
        values = made.values[name] @ components[name] if name in components else made.values[name]
        parts.append(values)
        for alpha in INPUT_ALPHAS:
            smooth, states[name, alpha] = ewma(values, alpha, states.get((name, alpha)))
            parts.append(smooth)
    return np.concatenate(parts, 1)


def _media_sets(media: Sequence[str], target: str) -> list[str]:
    """Every set of media without the target as digits, or with many of them: all, all but one, none."""
    free = [m != target for m in media]
    if sum(free) <= 3:
        sets = itertools.product(*((False, True) if f else (False,) for f in free))
        return ["".join("01"[d] for d in digits) for digits in sets]
    some = [[f and i != left for i, f in enumerate(free)] for left in range(-1, len(free))]
    return list(dict.fromkeys("".join("01"[d] for d in digits) for digits in (*some, [False] * len(free))))


def _complete(made: Blocks, media: Sequence[str], warm_up: int) -> Bools:
    """Rows to learn from: every medium is there and the averages have settled."""
    kept = np.arange(len(made)) >= warm_up
    for medium in media:
        kept &= made.present[medium]
    return kept


def _fit(parts: Sequence[Moments], columns: NDArray[np.int64]) -> Floats:
    total = Moments.total(parts)
    used = np.append(columns, len(total.xx) - 1)
    return ridge(replace(total, xx=total.xx[np.ix_(used, used)], xy=total.xy[used]), (PENALTY,))[0]


def _fold_residuals(
    parts: Sequence[Moments],
    columns: NDArray[np.int64],
    designs: Sequence[Floats],
    truths: Sequence[Floats],
) -> list[Floats]:
    """Residual of each run by the ridge of the folds it is not in."""
    folds = FOLDS if len(parts) >= FOLDS else 1
    made = []
    for fold in range(folds):
        others = [p for i, p in enumerate(parts) if folds == 1 or i % folds != fold]
        made.append(_fit(others, columns))
    return [
        t - d[:, columns] @ made[i % folds][:-1] - made[i % folds][-1]
        for i, (d, t) in enumerate(zip(designs, truths, strict=True))
    ]
