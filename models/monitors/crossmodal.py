"""Each modality's features from those of all the others: what one sense says that the others do not confirm.

The process tags are one modality, every media signal is one. A ridge is fitted for every set of media that may be
present, so that a lost camera leaves the others calibrated; without process tags a medium is compared with its own
mean. Residuals are averaged at two speeds, and once more relative to their own long mean: a plant is never quite the
one of its training, but it is like itself.

A sense that is dead, or does not fit the others itself, says nothing of them: it leaves the jury, and is the only one
accused. Once it is back, what it showed meanwhile is not among the inputs either: their averages begin anew.
Shape letters: T ticks, C columns, F features, K inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.records import PROCESS, Energy, Origin, Statistic
from models.features.stem import StemFacts
from models.linear.regression import Moments, ridge
from models.monitors.averaged import AverageCarry, Averaged, Limits, averaged, recover
from models.monitors.distance import T2, Distance
from models.monitors.inputs import INPUT_ALPHAS, InputCarry, inputs_of
from models.monitors.piece import ACTION, CLIP, Blocks, Piece
from models.monitors.residual import SPEEDS, WARM_UP_TICKS, Instrument, Largest, Residual, Speed, signals_of
from models.scaling import MANY_TAGS, Bools, Floats

ALONE = "alone"  # in place of a media set: no inputs at all
OBSERVED_SHARE = 0.5  # of the tags, below which there is no process to compare with
QUALITY_SHARE = 0.13  # weight of all that a picture shows beside its quality, where a lens is suspected
COMPONENTS, COMPONENT_SHARE = 24, 0.97  # of a medium, or of many tags: at most, and the variance that is enough
ALPHAS = tuple(speed.alpha for speed in SPEEDS)
PENALTY = 1e-2  # of the ridge, relative to the data: hundreds of inputs, hours of them
DOUBTFUL, WORST = 1.5, 1.5  # times its normal size and that of any other sense: it fits the others no more
SPREADS = 2.58  # normal spreads in a fresh limit: its quantile of a Gaussian
FOLDS = 3  # each ridge keeps two thirds of the runs
QUANTILE = 0.995  # of an averaged residual's size when normal: the limit of a single feature
Sets = Sequence[tuple[str, NDArray[np.int64]]]  # rows by the media that are there besides the target


@dataclass(slots=True)
class CrossCarry:
    """What a stream leaves behind: the inputs, and averages of each target's residuals.

    ``whole`` and ``first`` are the same with every sense in the jury, by which it is chosen; ``outside`` is the medium
    that is not in it because it fits the others the worst, "" where all fit. ``fresh`` are the means [T, C] of each
    target's last residuals, of the last piece. ``home`` are the media that its usual level was learned with.
    """

    inputs: InputCarry = field(default_factory=InputCarry)
    residuals: dict[str, AverageCarry] = field(default_factory=dict)
    whole: InputCarry = field(default_factory=InputCarry)
    first: dict[str, AverageCarry] = field(default_factory=dict)
    outside: str = ""
    fresh: dict[str, Floats] = field(default_factory=dict)
    home: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CrossModal:
    """The fitted ridges. ``components`` [F, n] reduce a medium, or many tags, to inputs.

    ``weights`` and ``limits``, which bound every single averaged residual, are by target and media set; ``distances``
    of all of a target together also by speed. Of a medium, ``quality`` [F] are the features that speak of
    the sensor and not of what it looks at.
    """

    energies: tuple[Energy, ...]
    plant: Plant
    media: tuple[str, ...]
    quality: Mapping[str, Bools]
    components: Mapping[str, Floats]
    weights: Mapping[tuple[str, str], Floats]
    distances: Mapping[tuple[str, str, float], Distance]
    limits: Mapping[tuple[str, str], Limits]

    @property
    def targets(self) -> tuple[str, ...]:
        """The modalities predicted."""
        return (PROCESS, *self.media)

    @classmethod
    def fit(cls, runs: Sequence[Blocks], media: tuple[str, ...], plant: Plant, stem: StemFacts) -> CrossModal:
        """From normal runs.

        Spreads are measured on folds of runs the ridge has not seen, where there are at least ``FOLDS`` runs.
        """
        components = {m: _components(np.concatenate([r.values[m][r.present[m]] for r in runs])) for m in media}
        if runs[0].values[PROCESS].shape[1] > MANY_TAGS:
            components[PROCESS] = _components(np.concatenate([r.values[PROCESS].clip(-CLIP, CLIP) for r in runs]))
        designs = [inputs_of(r, media, components, InputCarry(), r.present)[0] for r in runs]
        kept = [_complete(r, media) for r in runs]
        quality = {m: stem.quality(m) for m in media}
        model = cls(_energies(media, plant), plant, media, quality, components, {}, {}, {})
        weights: dict[tuple[str, str], Floats] = {}
        distances: dict[tuple[str, str, float], Distance] = {}
        limits: dict[tuple[str, str], Limits] = {}
        for target in model.targets:
            truths = [r.values[target] for r in runs]
            group = _groups(target, truths[0].shape[1], plant)
            parts = [Moments.of(d[k], t[k]) for d, t, k in zip(designs, truths, kept, strict=True)]
            for there in (*_media_sets(media, target), *((ALONE,) if target != PROCESS else ())):
                columns = model.columns(target, there, runs[0])
                key = (target, there)
                weights[key] = _fit(parts, columns)
                residuals = _fold_residuals(parts, columns, designs, truths)
                made = [averaged(e, np.ones(len(e), bool), AverageCarry()) for e in residuals]
                smooth = {a: np.concatenate([m.smooth[a][k] for m, k in zip(made, kept, strict=True)]) for a in ALPHAS}
                fresh = np.concatenate([m.fresh[k] for m, k in zip(made, kept, strict=True)])
                limits[key] = Limits.fit(fresh, smooth, QUANTILE)
                distances |= {(*key, alpha): Distance.fit(values, group) for alpha, values in smooth.items()}
        return replace(model, weights=weights, distances=distances, limits=limits)

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

    def widened(self, wider: Mapping[int, Distance], beyond: Mapping[str, Floats]) -> CrossModal:
        """With other distances in the place of those with these identities, and limits multiplied by energy name."""
        factor: dict[str, dict[float, Floats]] = {target: {} for target in self.targets}
        for energy in self.energies:
            if energy.name in beyond:
                factor[energy.source][energy.speed] = beyond[energy.name]
        limits = {key: limit.widened(factor[key[0]]) for key, limit in self.limits.items()}
        return replace(self, distances={k: wider.get(id(d), d) for k, d in self.distances.items()}, limits=limits)

    def begin(self) -> CrossCarry:
        """The carry at the start of a stream."""
        return CrossCarry()

    def step(self, piece: Piece, carry: CrossCarry) -> list[Residual]:
        """Averaged residuals by their distance, or each over its limit; updates ``carry``.

        A residual that cannot be known (absent medium) counts as zero in the averages and is not judged.
        """
        design, jury = self._jury(piece, carry)
        sets = {target: self._sets(target, piece.blocks, jury) for target in self.targets}
        made: dict[str, Averaged] = {}
        for target in self.targets:
            residual, known = self._residual(target, piece.blocks, design, sets[target])
            left = carry.residuals.setdefault(target, AverageCarry())
            alike = self._at_home(target, sets[target], left.ticks + np.arange(len(known)), carry)
            limits, speeds = self._usual(target), self._speeds(target)
            made[target] = averaged(residual, known, left, limits, speeds, alike, piece.learns)
            carry.fresh[target] = made[target].fresh
        home = {t: [(there, rows) for there, rows in s if there == carry.home.get(t)] for t, s in sets.items()}
        return [
            self._judged(e, made[e.source].smooth[e.speed], (home if e.relative else sets)[e.source])
            for e in self.energies
        ]

    def _at_home(self, target: str, sets: Sets, age: NDArray[np.int64], carry: CrossCarry) -> Bools:
        """Where [T] a target is judged by the media that its usual level was learned with; updates ``carry``.

        These are the ones that are there once the stream has warmed up; ``age`` [T] is that of the stream.
        """
        alike = age < WARM_UP_TICKS
        settled = {there: rows[age[rows] >= WARM_UP_TICKS] for there, rows in sets}
        for _, there in sorted((int(rows[0]), there) for there, rows in settled.items() if len(rows)):
            carry.home.setdefault(target, there)
        for there, rows in settled.items():
            alike[rows] = there == carry.home.get(target)
        return alike

    def stands_out(self, medium: str, carry: CrossCarry) -> tuple[Floats, NDArray[np.int64]]:
        """How many normal spreads [T] the feature [T] of a medium that stands out most is off, in the last piece."""
        over = carry.fresh[medium] / self._usual(medium).fresh
        column = np.abs(over).argmax(1)
        return over[np.arange(len(over)), column] * SPREADS, column

    def recover(self, carry: CrossCarry) -> None:
        """Forget what a fault has left in the averages."""
        for target, left in carry.residuals.items():
            recover(left, self._usual(target))

    def _jury(self, piece: Piece, carry: CrossCarry) -> tuple[Floats, dict[str, Bools]]:
        """The inputs [T, K], and which media [T] may speak of the others."""
        blocks, sizes = piece.blocks, []
        design, there = inputs_of(blocks, self.media, self.components, carry.whole, blocks.present)
        for medium in self.media:
            residual, known = self._residual(medium, blocks, design, self._sets(medium, blocks, there))
            fresh = averaged(residual, known, carry.first.setdefault(medium, AverageCarry()), speeds=()).fresh
            sizes.append(self._usual(medium).size(fresh))
        misfit = self._misfits(np.stack(sizes, 1) if sizes else np.zeros((len(piece), 0)), carry)
        fitting = {m: blocks.present[m] & ~misfit[:, i] for i, m in enumerate(self.media)}
        return inputs_of(blocks, self.media, self.components, carry.inputs, fitting)

    def _misfits(self, sizes: Floats, carry: CrossCarry) -> Bools:
        """The medium [T, M] that fits the others by far the worst, until it fits again; updates ``carry``.

        ``sizes`` [T, M] are one where fresh residuals are as large as they get when normal. Where several fit alike,
        what they have in common is wrong, which is a tag.
        """
        found = np.zeros(sizes.shape, bool)
        if sizes.shape[1] < 2:
            return found
        for row, size in enumerate(sizes):
            if carry.outside and size[self.media.index(carry.outside)] <= 1.0:
                carry.outside = ""
            worst, second = size.argsort()[[-1, -2]]
            if not carry.outside and size[worst] > DOUBTFUL and size[worst] > WORST * size[second]:
                carry.outside = self.media[worst]
            if carry.outside:
                found[row, self.media.index(carry.outside)] = True
        return found

    def _usual(self, target: str) -> Limits:
        """What is normal of a target beside all other media."""
        return self.limits[target, "".join("01"[m != target] for m in self.media)]

    def _speeds(self, target: str) -> list[Speed]:
        """The averages of a target that are heard."""
        heard = {e.speed for e in self.energies if e.source == target}
        return [speed for speed in SPEEDS if speed.alpha in heard]

    def _judged(self, energy: Energy, smooth: Floats, sets: Sets) -> Residual:
        key = energy.source, energy.speed
        if energy.statistic is Statistic.T2:
            chart = T2(smooth, tuple((rows, self.distances[key[0], there, key[1]]) for there, rows in sets))
            return Residual(energy, chart, self._lens(energy.source, chart))
        over = np.full_like(smooth, np.nan)
        for there, rows in sets:
            over[rows] = smooth[rows] / self.limits[key[0], there].upper[key[1]]
        return Residual(energy, Largest(over, partial(self._shares, energy.source, over)))

    def _lens(self, target: str, chart: T2) -> Instrument | None:
        """The part of the distance that speaks of the sensor and not of what it looks at; None where nothing can."""
        quality = self.quality.get(target)
        if quality is None or not quality.any():
            return None

        def told(shares: Floats, suspects: Bools) -> Floats:
            own, rest = chart.block_share(quality), chart.block_share(~quality)
            return np.asarray(own / (own + QUALITY_SHARE * rest + 1e-12))

        return told

    def _shares(self, target: str, over: Floats) -> Floats:
        """Shares [T, G] of the signals of a target in residuals over their limits [T, C]."""
        signals = signals_of(self.plant)
        share = np.zeros((len(over), len(signals)))
        if target == PROCESS:
            size = np.nan_to_num(over) ** 2
            share[:, : size.shape[1]] = size / np.maximum(size.sum(1, keepdims=True), 1e-12)
        else:
            share[:, signals.index(target)] = 1.0
        return share

    def _sets(self, target: str, made: Blocks, jury: Mapping[str, Bools]) -> Sets:
        """The rows where the target is present, by the set of other media in the jury."""
        there = [jury[m] & (m != target) for m in self.media]
        digits = np.stack([np.where(t, "1", "0") for t in there], 1) if there else np.empty((len(made), 0), str)
        process = made.observed.sum(1) >= OBSERVED_SHARE * made.observed.shape[1]
        found: dict[str, list[int]] = {}
        for row in np.flatnonzero(made.present[target] if target != PROCESS else process):
            code = "".join(digits[row]) if process[row] else ALONE
            found.setdefault(code if (target, code) in self.weights else "0" * len(self.media), []).append(int(row))
        return [(code, np.array(rows, np.int64)) for code, rows in found.items()]

    def _residual(self, target: str, made: Blocks, design: Floats, sets: Sets) -> tuple[Floats, Bools]:
        """What the others do not say of a target [T, C], zero where nothing can be said, and where it can [T]."""
        true, known = made.values[target], np.zeros(len(made), bool)
        residual = np.zeros_like(true)
        for there, rows in sets:
            known[rows] = True
            columns = self.columns(target, there, made)
            weights = self.weights[target, there]
            residual[rows] = true[rows] - design[np.ix_(rows, columns)] @ weights[:-1] - weights[-1]
        return (np.where(made.observed, residual, 0.0) if target == PROCESS else residual), known


def _energies(media: Sequence[str], plant: Plant) -> tuple[Energy, ...]:
    """Of each target at each speed: all features together, and the worst single one."""

    def energy(family: str, statistic: Statistic, target: str, speed: Speed) -> Energy:
        return Energy(
            name=f"{family}.{target}.{speed.label}",
            origin=Origin.ACROSS,
            family=family,
            source=target,
            modality=Modality.PROCESS if target == PROCESS else plant.by_name[target].modality,
            statistic=statistic,
            speed=speed.alpha,
            relative=speed.relative,
        )

    kinds = (("cross", Statistic.T2), ("feature", Statistic.LARGEST))
    return tuple(energy(*kind, target, speed) for kind in kinds for target in (PROCESS, *media) for speed in SPEEDS)


def _groups(target: str, columns: int, plant: Plant) -> NDArray[np.int64]:
    """The blamed signal of each column of a target."""
    return np.arange(columns) if target == PROCESS else np.full(columns, signals_of(plant).index(target), np.int64)


def _components(features: Floats) -> Floats:
    """Whitening principal components [F, n] of scaled, clipped features."""
    if not len(features):
        return np.zeros((features.shape[1], 1))
    values, vectors = np.linalg.eigh(features.T @ features / len(features))
    values, vectors = np.maximum(values[::-1], 1e-9), vectors[:, ::-1]
    needed = int(np.searchsorted(np.cumsum(values) / values.sum(), COMPONENT_SHARE)) + 1
    kept = min(needed, COMPONENTS)
    return np.asarray(vectors[:, :kept] / np.sqrt(values[:kept]))


def _media_sets(media: Sequence[str], target: str) -> list[str]:
    """Every set of media without the target as digits, or with many of them: all, all but one, none."""
    free = [m != target for m in media]
    if sum(free) <= 3:
        sets = itertools.product(*((False, True) if f else (False,) for f in free))
        return ["".join("01"[d] for d in digits) for digits in sets]
    some = [[f and i != left for i, f in enumerate(free)] for left in range(-1, len(free))]
    return list(dict.fromkeys("".join("01"[d] for d in digits) for digits in (*some, [False] * len(free))))


def _complete(made: Blocks, media: Sequence[str]) -> Bools:
    """Rows to learn from: every medium is there and the averages have settled."""
    kept = np.arange(len(made)) >= WARM_UP_TICKS
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
