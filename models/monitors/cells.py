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
from dataclasses import dataclass, field

import numpy as np

from fusion.plant import Modality, Plant
from models.averages import ewma
from models.features.cells import CUTS, Cut
from models.monitors.piece import ACTION, Piece
from models.monitors.places import DULL, Normal, Places, PlacesCarry, energies_of, in_spreads
from models.monitors.residual import WARM_UP_TICKS, Residual
from models.scaling import Bools, Floats

ACTION_ALPHAS = (0.1, 0.02)  # averages of the actions among the inputs: what they do takes time
PENALTY = 3e-2  # of the ridge, relative to the variance of each column: hundreds of them, hours of ticks
FOLDS = 3  # each ridge keeps two thirds of the runs
FEWEST_TICKS = 1200  # of a medium, below which there are more weights than ticks to learn them from
MOST_TICKS = 20_000  # beyond which more of the same costs memory (hundreds of columns, several times) and tells little


@dataclass(frozen=True, slots=True, kw_only=True)
class Field(Normal):
    """One medium: ``scale`` [I] and ``centre`` [I] of its inputs, ``residual`` [I, C], and what is normal."""

    modality: Modality
    centre: Floats
    scale: Floats
    residual: Floats

    @property
    def cut(self) -> Cut:
        """How its patches become cells."""
        return CUTS[self.modality]

    def scaled(self, inputs: Floats) -> Floats:
        """Inputs [T, I] in normal spreads, clipped."""
        return in_spreads(inputs, self.centre, self.scale)


@dataclass(slots=True)
class CellsCarry(PlacesCarry):
    """What a stream leaves behind: also the averages of the actions, by speed."""

    actions: dict[float, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells(Places):
    """The fitted cells of each medium."""

    fields: Mapping[str, Field]

    def begin(self) -> CellsCarry:
        """The carry at the start of a stream."""
        return CellsCarry()

    def step(self, piece: Piece, carry: CellsCarry) -> list[Residual]:
        """The largest cell of each medium at each speed; updates ``carry``."""
        actions = action_inputs(piece.blocks.values[ACTION], carry.actions)
        told = {medium: residuals(self.fields[medium], medium, piece, actions) for medium in self.media}
        return self.judged(told, len(piece), carry)

    def words(self, medium: str, column: int) -> str:
        """The words on the wire for a feature of a cell."""
        cut = self.fields[medium].cut
        return cut.where(*divmod(column, len(cut.names)))


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


# --- fitted


def fit_cells(runs: Sequence[Piece], media: Sequence[str], plant: Plant) -> Cells | None:
    """From normal runs; None where no medium has patches for long enough."""
    fields = {}
    for medium in media:
        if plant.by_name[medium].modality in CUTS and (made := _fit_field(runs, medium, plant)):
            fields[medium] = made
    families = {medium: made.cut.family for medium, made in fields.items()}
    return Cells(energies=energies_of(families, plant), plant=plant, fields=fields) if fields else None


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
    spread = every.std(0)
    centre, scale = every.mean(0), np.where(spread > DULL, spread, np.inf)
    scaled = [in_spreads(part, centre, scale) for part in parts]
    normal = Normal.of(_fold_residuals(scaled, cut), cut.cells)
    return Field(
        modality=modality,
        centre=centre,
        scale=scale,
        residual=residual_matrix(_moments(scaled), cut),
        limits=normal.limits,
        judges=normal.judges,
        loud=normal.loud,
    )


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
