"""Each tag from its neighbours in the plant's graph: local laws that hold whatever the plant as a whole is doing.

A motor current follows its load and a pressure its pump. Such a relation has few inputs and little noise, is fitted
with squares and products because many are products, and breaks at the first sign of a fault. Each tag is related to
all its neighbours and, unless there are many, to each of them alone, for two may agree on what a third contradicts;
what explains little is dropped. Knows no more of the plant than which signals are neighbours; without a graph those are
the most correlated ones.
Shape letters: T ticks, S judged tags, P past features, K inputs of one relation, G signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.records import Energy, Origin, Statistic
from models.linear.core import Encoding
from models.linear.past import feature_names
from models.linear.regression import Moments, ridge
from models.monitors.averaged import AverageCarry, Averaged, Limits, averaged, recover
from models.monitors.piece import Piece
from models.monitors.residual import SPEEDS, WARM_UP_TICKS, Largest, Residual, alone, signals_of
from models.scaling import MANY_TAGS, Bools, Floats

AVERAGES = (".ewma0.3", ".ewma0.12", ".ewma0.1", ".ewma0.05", ".ewma0.03")
MOST_NEIGHBOURS = 6  # whose squares and products are 21 inputs
EXPLAINED = 0.8  # share of a tag's variance, on runs not seen, below which there is no relation
PENALTY = 1e-3  # relative to the data: few inputs, each known well
FOLDS = 3  # each relation keeps two thirds of the runs
SETTLED_TICKS = 60  # of a stream, after which the averages among the inputs can be relied on
RESTING = 0.1  # of the standard deviation; a quartile range below it is that of a signal that rests
FINEST = 0.03  # share of a tag's spread below which a residual contradicts nothing: no relation holds more exactly
QUANTILE = 0.995  # of an averaged residual's size when normal: its limit
LIMIT = 6.0  # standardised inputs beyond this are new: their squares must not run away


@dataclass(slots=True)
class RelationCarry:
    """Averages of the residuals, and the age of the stream.

    Residuals of the first ticks do not count: the averages among the inputs have not settled.
    """

    averages: AverageCarry = field(default_factory=AverageCarry)
    ticks: int = 0


@dataclass(frozen=True, slots=True)
class Relation:
    """One tag [scaled] from ``inputs`` [K] of the past and the squares and products of its neighbours' values."""

    tag: int
    values: NDArray[np.int64]
    inputs: NDArray[np.int64]
    weights: Floats

    def design(self, past: Floats) -> Floats:
        """Inputs [T, K] from standardised past features [T, P]."""
        value = np.clip(past[:, self.values], -LIMIT, LIMIT)
        first, second = np.triu_indices(len(self.values))
        return np.concatenate([past[:, self.inputs], value[:, first] * value[:, second]], 1)

    def residual(self, encoding: Encoding) -> Floats:
        """What the neighbours do not explain of the tag [T]."""
        explained = self.design(encoding.past) @ self.weights[:-1] + self.weights[-1]
        return np.asarray(encoding.tags[:, self.tag] - explained)


@dataclass(frozen=True)
class Relations:
    """The fitted relations; ``limits`` are upper quantiles of the averaged residuals when normal.

    ``traces`` [S, G] is what a lasting unit error of each tag leaves in the residuals: one in its own, and its weight
    in those of its neighbours. ``devices`` are the tags that fail together.
    """

    energies: tuple[Energy, ...]
    plant: Plant
    relations: tuple[Relation, ...]
    limits: Limits
    traces: Floats
    devices: tuple[tuple[int, ...], ...]

    @classmethod
    def fit(cls, runs: Sequence[tuple[Encoding, Bools]], plant: Plant, spread: Floats) -> Relations:
        """From encodings of normal runs; ``spread`` [P] standardised the past.

        Limits are measured on folds of runs that a relation has not seen.
        """
        encodings = _pieces([encoding[WARM_UP_TICKS:] for encoding, _ in runs])
        devices = _devices(plant)
        variance = np.concatenate([e.tags for e in encodings]).var(0)
        made: list[Relation] = []
        residuals: list[list[Floats]] = []
        for rough in _rough(plant, encodings):
            parts = [Moments.of(rough.design(e.past), e.tags[:, [rough.tag]]) for e in encodings]
            folds = FOLDS if len(parts) >= FOLDS else 1
            others = [[p for i, p in enumerate(parts) if folds == 1 or i % folds != f] for f in range(folds)]
            folded = [_weighted(rough, part) for part in others]
            left = [folded[i % folds].residual(e) for i, e in enumerate(encodings)]
            if np.concatenate(left).var() > (1.0 - EXPLAINED) * variance[rough.tag]:
                continue
            made.append(_weighted(rough, parts))
            residuals.append(left)
        if not made:
            nothing = Limits(np.zeros(0), 1.0, {speed.alpha: np.zeros(0) for speed in SPEEDS})
            return cls(_energies(), plant, (), nothing, np.zeros((0, len(plant.tags))), devices)
        columns = [np.stack(part, 1) for part in zip(*residuals, strict=True)]
        averages = [_averaged(part, RelationCarry(ticks=SETTLED_TICKS)) for part in columns]
        finest = FINEST * np.sqrt(variance[[relation.tag for relation in made]]) + 1e-6
        smooth = {s.alpha: np.concatenate([a.smooth[s.alpha] for a in averages]) for s in SPEEDS}
        limits = Limits.fit(np.concatenate([a.fresh for a in averages]), smooth, QUANTILE, finest)
        return cls(_energies(), plant, tuple(made), limits, _traces(made, len(plant.tags), spread), devices)

    def widened(self, beyond: Mapping[str, Floats]) -> Relations:
        """With limits multiplied [S] by energy name."""
        factor = {energy.speed: beyond[energy.name] for energy in self.energies if energy.name in beyond}
        return replace(self, limits=self.limits.widened(factor))

    def begin(self) -> RelationCarry:
        """The carry at the start of a stream."""
        return RelationCarry()

    def step(self, piece: Piece, carry: RelationCarry) -> list[Residual]:
        """Averaged residuals [T, S] over their limits; updates ``carry``.

        The share of a signal is the part of the residuals that an error of its device explains: near one where it
        alone is wrong.
        """
        encoding, observed = piece.encoding, piece.ticks.observed
        columns = [np.where(observed[:, r.tag], r.residual(encoding), 0.0) for r in self.relations]
        residual = np.stack(columns, 1) if columns else np.zeros((len(encoding), 0))
        made, instrument, found = _averaged(residual, carry, self.limits, piece.learns), alone(self.plant), []
        for energy in self.energies:
            over = made.smooth[energy.speed] / self.limits.upper[energy.speed]
            found.append(Residual(energy, Largest(over, partial(self._shares, over, energy.speed)), instrument))
        return found

    def recover(self, carry: RelationCarry) -> None:
        """Forget what a fault has left in the averages."""
        recover(carry.averages, self.limits)

    def _shares(self, over: Floats, speed: float) -> Floats:
        share = np.zeros((len(over), len(signals_of(self.plant))))
        for device, explained in zip(self.devices, self._explained(over, speed), strict=True):
            share[:, list(device)] = explained[:, None]
        return share

    def _explained(self, over: Floats, speed: float) -> list[Floats]:
        """For each device the part [T] of squared residuals over limits that lies along its traces."""
        total = np.maximum((over**2).sum(1), 1e-12)
        return [((over @ basis) ** 2).sum(1) / total for basis in self._bases[speed]]

    @cached_property
    def _bases(self) -> dict[float, list[Floats]]:
        """Orthonormal traces of each device in the residuals over their limits, by speed; none without relations."""
        if not self.relations:
            return {speed: [np.zeros((0, 0)) for _ in self.devices] for speed in self.limits.upper}
        scaled = {speed: self.traces / limit[:, None] for speed, limit in self.limits.upper.items()}
        return {speed: [np.linalg.qr(s[:, list(d)])[0] for d in self.devices] for speed, s in scaled.items()}


def _pieces(encodings: Sequence[Encoding]) -> list[Encoding]:
    """Enough runs for folds: the longest is cut in two until there are.

    Fitted and judged on the same rows, a relation of many inputs would seem tighter than it is.
    """
    pieces = list(encodings)
    while len(pieces) < FOLDS:
        longest = max(range(len(pieces)), key=lambda i: len(pieces[i]))
        whole = pieces[longest]
        pieces[longest : longest + 1] = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
    return pieces


def _devices(plant: Plant) -> tuple[tuple[int, ...], ...]:
    """Tags by device, in order of their first tag."""
    found: dict[str, list[int]] = {}
    for i, tag in enumerate(plant.tags):
        found.setdefault(tag.device or f"tag {tag.name}", []).append(i)
    return tuple(tuple(members) for members in found.values())


def _traces(relations: Sequence[Relation], tags: int, spread: Floats) -> Floats:
    """Lasting effect [S, G] of a unit error of each tag on each residual; averages follow a lasting error."""
    traces = np.zeros((len(relations), tags))
    for row, relation in enumerate(relations):
        place = {int(column): i for i, column in enumerate(relation.inputs)}
        for value in relation.values:
            if value < tags:
                traces[row, value] = -relation.weights[place[int(value)]] / spread[value]
        traces[row, relation.tag] = 1.0
    return traces


def _rough(plant: Plant, encodings: Sequence[Encoding]) -> list[Relation]:
    """The relations of all tags that have neighbours, to all of them and to each alone, without weights."""
    tags, actions = [s.name for s in plant.tags], [s.name for s in plant.actions]
    names = feature_names(tuple(tags), tuple(actions))
    number = {name: i for i, name in enumerate(names)}
    near = _declared(plant) if plant.edges else _correlated(tags, actions, encodings, number)
    made = []
    for tag, name in enumerate(tags):
        beside = [n for n in near.get(name, ()) if n in number][:MOST_NEIGHBOURS]
        alone = beside if len(beside) > 1 and len(tags) <= MANY_TAGS else []
        for inputs in (beside, *([n] for n in alone)):
            values = np.array([number[n] for n in inputs], np.int64)
            kept = [number[n + a] for n in inputs for a in ("", *AVERAGES) if n + a in number]
            if inputs:
                made.append(Relation(tag, values, np.array(kept, np.int64), np.zeros(0)))
    return made


def _declared(plant: Plant) -> dict[str, list[str]]:
    near: dict[str, list[str]] = {}
    for a, b in plant.edges:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    return near


def _correlated(
    tags: Sequence[str], actions: Sequence[str], encodings: Sequence[Encoding], number: Mapping[str, int]
) -> dict[str, list[str]]:
    """The signals whose values move most with each tag.

    What rests most of the time and moves now and then says too seldom how it goes with the others.
    """
    names = [*tags, *actions]
    values = np.concatenate([e.past[:, [number[n] for n in names]] for e in encodings])
    with np.errstate(invalid="ignore", divide="ignore"):
        strength = np.nan_to_num(np.abs(np.atleast_2d(np.corrcoef(values.T))))
    np.fill_diagonal(strength, 0.0)
    low, high = np.quantile(values, [0.25, 0.75], axis=0)
    moving = high - low > RESTING * values.std(0)
    strength[:, ~moving] = 0.0
    order = np.argsort(-strength, axis=1, kind="stable")[:, :MOST_NEIGHBOURS]
    return {tag: [names[j] for j in order[i] if strength[i, j]] for i, tag in enumerate(tags) if moving[i]}


def _weighted(rough: Relation, parts: Sequence[Moments]) -> Relation:
    weights = ridge(Moments.total(parts), (PENALTY,))[0][:, 0]
    return Relation(rough.tag, rough.values, rough.inputs, weights)


def _energies() -> tuple[Energy, ...]:
    return tuple(
        Energy(
            name=f"relation.{speed.label}",
            origin=Origin.BESIDE,
            family="relation",
            statistic=Statistic.LARGEST,
            speed=speed.alpha,
            relative=speed.relative,
        )
        for speed in SPEEDS
    )


def _averaged(residual: Floats, carry: RelationCarry, limits: Limits | None = None, learns: bool = True) -> Averaged:
    """Averages of the residuals [T, S] once the stream has settled; updates ``carry``."""
    settled = carry.ticks + np.arange(len(residual)) >= SETTLED_TICKS
    carry.ticks += len(residual)
    return averaged(np.where(settled[:, None], residual, 0.0), settled, carry.averages, limits, learns=learns)
