"""Each cell of a medium from the cells around it: what one place shows that the rest of the same sense does not.

Features of a whole picture dilute what is small. So every medium is cut into cells, and each cell is told by ridge from
all cells but its neighbours, which would share what is wrong there, and from the actions. Process tags are not among
the inputs: a wrong tag must not accuse a camera. Nor is the past, which holds a standing fault itself.

All ridges follow from one inverse: with P the inverse of the regularised second moments of all columns, what the rest
does not tell of a block N is inv(P_NN) (P x)_N, so that one matrix makes all residuals of a tick.
Shape letters: T ticks, N cells, K features of a cell, C = N K columns, I inputs (columns, then actions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from fusion.plant import Modality, Plant
from fusion.records import Energy, Origin, Statistic
from models.averages import ewma
from models.features.cells import CUTS, Cut
from models.monitors.averaged import AverageCarry, Limits, averaged, recover
from models.monitors.distance import SHRINKAGE
from models.monitors.piece import ACTION, CLIP, Piece
from models.monitors.residual import SPEEDS, WARM_UP_TICKS, Largest, Residual, signals_of
from models.scaling import Bools, Floats

AVERAGES = tuple(speed for speed in SPEEDS if not speed.relative)
FASTEST = max(speed.alpha for speed in AVERAGES)
ACTION_ALPHAS = (0.1, 0.02)  # averages of the actions among the inputs: what they do takes time
PENALTY = 3e-2  # of the ridge, relative to the variance of each column: hundreds of them, hours of ticks
QUANTILE = 0.995  # of a cell's distance when normal: its limit
FOLDS = 3  # each ridge keeps two thirds of the runs
FEWEST_TICKS = 1200  # of a medium, below which there are more weights than ticks to learn them from
MOST_TICKS = 20_000  # beyond which more of the same costs memory (hundreds of columns, several times) and tells little
DULL = 1e-6  # spread of a feature that never moves
SPREADS = 2.58  # normal spreads in a fresh limit, as of whole media


@dataclass(frozen=True, slots=True)
class Judge:
    """The normal spread of averaged residuals by cell: ``mean`` [C], ``precision`` [N, K, K], ``limit`` [N]."""

    mean: Floats
    precision: Floats
    limit: Floats

    @classmethod
    def fit(cls, values: Floats, cells: int) -> Judge:
        """From normal averages [T, C]; a column that never moves is ignored, a cell of such columns not judged."""
        mean = values.mean(0)
        centred = (values - mean).reshape(len(values), cells, -1).transpose(1, 0, 2)
        covariance = centred.transpose(0, 2, 1) @ centred / max(len(values), 1)
        eye = np.eye(covariance.shape[-1])
        variance = covariance * eye
        still = np.diagonal(covariance, axis1=1, axis2=2) < DULL**2
        shrunk = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * variance
        precision = np.linalg.inv(shrunk + still[:, None, :] * eye) * ~(still[:, None, :] | still[:, :, None])
        bare = cls(mean, precision, np.ones(cells))
        usual = np.quantile(bare.distances(values), QUANTILE, axis=0)
        return cls(mean, precision, np.where(usual > 0.0, usual, np.inf))

    def distances(self, values: Floats) -> Floats:
        """How far each cell [T, N] is off, over its own limit."""
        cells = len(self.limit)
        centred = (values - self.mean).reshape(len(values), cells, -1).transpose(1, 0, 2)
        squared = ((centred @ self.precision) * centred).sum(2).T
        return np.asarray(squared / self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One medium: ``scale`` [I] and ``centre`` [I] of its inputs, ``residual`` [I, C], and what is normal.

    ``judges`` are by speed; ``loud`` is the quantile of the largest cell when normal, at the fastest average.
    """

    modality: Modality
    centre: Floats
    scale: Floats
    residual: Floats
    limits: Limits
    judges: Mapping[float, Judge]
    loud: float

    @property
    def cut(self) -> Cut:
        """How its patches become cells."""
        return CUTS[self.modality]

    def scaled(self, inputs: Floats) -> Floats:
        """Inputs [T, I] in normal spreads, clipped."""
        return np.clip((inputs - self.centre) / self.scale, -CLIP, CLIP)


@dataclass(slots=True)
class CellsCarry:
    """What a stream leaves behind: averages of the actions by speed, and of the residuals by medium.

    ``fresh`` [T, C] and ``largest`` [T] are those of the last piece: means of the last ticks over their limits, and the
    largest cell over what is normal of it.
    """

    actions: dict[float, Floats] = field(default_factory=dict)
    residuals: dict[str, AverageCarry] = field(default_factory=dict)
    fresh: dict[str, Floats] = field(default_factory=dict)
    largest: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The fitted cells of each medium."""

    energies: tuple[Energy, ...]
    plant: Plant
    fields: Mapping[str, Field]

    @property
    def media(self) -> tuple[str, ...]:
        """Those whose cells are heard."""
        return tuple(dict.fromkeys(energy.source for energy in self.energies))

    def begin(self) -> CellsCarry:
        """The carry at the start of a stream."""
        return CellsCarry()

    def step(self, piece: Piece, carry: CellsCarry) -> list[Residual]:
        """The largest cell of each medium at each speed; updates ``carry``."""
        actions = action_inputs(piece.blocks.values[ACTION], carry.actions)
        values: dict[tuple[str, float], Floats] = {}
        for medium in self.media:
            for alpha, largest in self._judged(medium, piece, actions, carry).items():
                values[medium, alpha] = largest
        return [
            Residual(e, Largest(values[e.source, e.speed][:, None], partial(self._blame, e.source, len(piece))))
            for e in self.energies
        ]

    def recover(self, carry: CellsCarry) -> None:
        """Forget what a fault has left in the averages."""
        for medium, left in carry.residuals.items():
            recover(left, self.fields[medium].limits)

    def stands_out(self, medium: str, carry: CellsCarry) -> list[tuple[float, str]]:
        """By tick of the last piece, how many normal spreads a feature of the worst cell is off, and its words.

        Nothing, "", where no cell is out of the ordinary.
        """
        field, found = self.fields[medium], []
        for over, largest in zip(carry.fresh[medium], carry.largest[medium], strict=True):
            column = int(np.abs(over).argmax())
            words = field.cut.where(*divmod(column, len(field.cut.names))) if largest > 1.0 else ""
            found.append((float(over[column]) * SPREADS, words))
        return found

    def _judged(self, medium: str, piece: Piece, actions: Floats, carry: CellsCarry) -> dict[float, Floats]:
        """The largest cell [T] at each speed, NaN where the medium takes no part; updates ``carry``."""
        field = self.fields[medium]
        residual, known = residuals(field, medium, piece, actions)
        left = carry.residuals.setdefault(medium, AverageCarry())
        made = averaged(residual, known, left, field.limits, AVERAGES)
        values = {alpha: _largest(judge.distances(made.smooth[alpha])) for alpha, judge in field.judges.items()}
        carry.fresh[medium] = made.fresh / field.limits.fresh
        carry.largest[medium] = values[FASTEST] / field.loud
        return {alpha: np.where(known, value, np.nan) for alpha, value in values.items()}

    def _blame(self, medium: str, ticks: int) -> Floats:
        """Shares [T, G]: all of an energy is its medium's."""
        signals = signals_of(self.plant)
        return np.tile(np.array([signal == medium for signal in signals], float), (ticks, 1))


def action_inputs(values: Floats, carry: dict[float, Floats]) -> Floats:
    """Actions and their averages [T, ...]; updates ``carry``."""
    parts = [values]
    for alpha in ACTION_ALPHAS:
        smooth, carry[alpha] = ewma(values, alpha, carry.get(alpha))
        parts.append(smooth)
    return np.concatenate(parts, 1)


def cells_of(medium: str, cut: Cut, piece: Piece, known: Bools) -> Floats:
    """Features [T, C] of the cells; zero where the medium takes no part."""
    made = np.zeros((len(piece), cut.cells * len(cut.names)))
    if known.any():
        patches = piece.ticks.patches[medium][known].astype(np.float32)
        made[known] = cut.features(patches).reshape(len(patches), -1)
    return made


def residuals(field: Field, medium: str, piece: Piece, actions: Floats) -> tuple[Floats, Bools]:
    """What the rest does not tell of each cell [T, C], zero where nothing can be told, and where it can [T]."""
    known = piece.blocks.present.get(medium, np.zeros(len(piece), bool)) & (medium in piece.ticks.patches)
    inputs = field.scaled(np.concatenate([cells_of(medium, field.cut, piece, known), actions], 1))
    return np.where(known[:, None], inputs @ field.residual, 0.0), known


def _largest(distances: Floats) -> Floats:
    return np.asarray(distances.max(1, initial=0.0))


def energies_of(media: Sequence[str], plant: Plant) -> tuple[Energy, ...]:
    """Of each medium, its largest cell at each speed."""
    modality = {medium: plant.by_name[medium].modality for medium in media}
    return tuple(
        Energy(
            name=f"{CUTS[modality[medium]].family}.{medium}.{speed.label}",
            origin=Origin.ACROSS,
            family=CUTS[modality[medium]].family,
            source=medium,
            modality=modality[medium],
            statistic=Statistic.LARGEST,
            speed=speed.alpha,
        )
        for medium in media
        for speed in AVERAGES
    )


# --- fitted


def fit_cells(runs: Sequence[Piece], media: Sequence[str], plant: Plant) -> Cells | None:
    """From normal runs; None where no medium has patches for long enough."""
    fields = {}
    for medium in media:
        if plant.by_name[medium].modality in CUTS and (made := _fit_field(runs, medium, plant)):
            fields[medium] = made
    return Cells(energies=energies_of(tuple(fields), plant), plant=plant, fields=fields) if fields else None


def _fit_field(runs: Sequence[Piece], medium: str, plant: Plant) -> Field | None:
    modality = plant.by_name[medium].modality
    cut = CUTS[modality]
    there = [run for run in runs if medium in run.ticks.patches]
    share = MOST_TICKS / max(sum(len(run) for run in there), MOST_TICKS)
    parts = [_inputs(run, medium, cut, share) for run in there]
    parts = [part for part in parts if len(part)]
    if sum(len(part) for part in parts) < FEWEST_TICKS:
        return None
    parts = parts if len(parts) >= FOLDS else np.array_split(np.concatenate(parts), FOLDS)
    every = np.concatenate(parts)
    columns = cut.cells * len(cut.names)
    spread = every.std(0)
    field = Field(
        modality=modality,
        centre=every.mean(0),
        scale=np.where(spread > DULL, spread, np.inf),
        residual=np.zeros((every.shape[1], columns)),
        limits=Limits(np.ones(columns), 1.0, {}),
        judges={},
        loud=1.0,
    )
    scaled = [field.scaled(part) for part in parts]
    told = _fold_residuals(scaled, cut)
    return _normal(field, cut, residual_matrix(_moments(scaled), cut), told)


def _inputs(run: Piece, medium: str, cut: Cut, share: float) -> Floats:
    """Cells and actions [T', I] of the ticks to learn from: the medium is there and the averages have settled.

    Of a run they are the first ``share``.
    """
    rows = np.arange(len(run))
    known = run.blocks.present[medium] & (rows >= WARM_UP_TICKS) & (rows < share * len(run))
    actions = action_inputs(run.blocks.values[ACTION], {})
    return np.concatenate([cells_of(medium, cut, run, known), actions], 1)[known]


def _moments(parts: Sequence[Floats]) -> Floats:
    """Second moments [I, I] of scaled inputs, about zero."""
    return np.asarray(sum(part.T @ part for part in parts) / sum(len(part) for part in parts))


def _fold_residuals(parts: Sequence[Floats], cut: Cut) -> list[Floats]:
    """Residuals [T, C] of each run by the ridges of the folds it is not in."""
    made = []
    for fold in range(FOLDS):
        others = [part for i, part in enumerate(parts) if i % FOLDS != fold]
        made.append(residual_matrix(_moments(others), cut))
    return [part @ made[i % FOLDS] for i, part in enumerate(parts)]


def residual_matrix(moments: Floats, cut: Cut) -> Floats:
    """What makes the residuals [T, C] of inputs [T, I], from their second moments [I, I]."""
    inverse = np.linalg.inv(moments + PENALTY * np.eye(len(moments)))
    features = len(cut.names)
    made = np.zeros((len(moments), cut.cells * features))
    for cell in range(cut.cells):
        around = cut.around(cell)
        block = (around[:, None] * features + np.arange(features)).ravel()
        own = np.flatnonzero(np.repeat(around == cell, features))
        told = np.linalg.solve(inverse[np.ix_(block, block)], inverse[block])
        made[:, block[own]] = told[own].T
    return made


def _normal(field: Field, cut: Cut, matrix: Floats, told: Sequence[Floats]) -> Field:
    """The field with what is normal of its residuals, which are known of each run."""
    made = [averaged(part, np.ones(len(part), bool), AverageCarry(), speeds=AVERAGES) for part in told]
    settled = slice(min(WARM_UP_TICKS, min(len(part) for part in told) // 2), None)
    smooth = {s.alpha: np.concatenate([m.smooth[s.alpha][settled] for m in made]) for s in AVERAGES}
    fresh = np.concatenate([m.fresh[settled] for m in made])
    judges = {alpha: Judge.fit(values, cut.cells) for alpha, values in smooth.items()}
    loud = float(np.quantile(_largest(judges[FASTEST].distances(smooth[FASTEST])), QUANTILE))
    limits = Limits.fit(fresh, smooth, QUANTILE)
    return replace(field, residual=matrix, limits=limits, judges=judges, loud=loud)
