"""Folds of a core: its readouts without a part of the runs.

The spread of the readouts is the error of the fit itself, which a plan and doing nothing share; errors of normal runs,
which a band is made of, are mostly what hits both alike. All is chosen anew but scaling, dead times and rank.
Source: Kott (2001), "The delete-a-group jackknife".
Shape letters as in ``models.linear.core``; E folds, C tags that plans are judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant, Role
from models.actions import HORIZONS
from models.linear.core import LinearConfig, LinearCore
from models.linear.folds import Folds
from models.linear.past import Past
from models.linear.readouts import HorizonSplit, choose, chosen, no_moments, past_directions, refitted, run_moments
from models.linear.regression import Moments
from models.scaling import Floats

FEWEST = 3  # folds: one left out, one to choose on, one to fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a core was fitted on: runs and the ``fold`` of each, by horizon weights of own features and the rhythm.

    ``freed`` is where actuators are off their limits, by run.
    """

    pasts: Sequence[Past]
    fold: NDArray[np.int64]
    rank: int
    own: Sequence[Floats]
    usual: Sequence[Floats]
    freed: Sequence[Floats] | None = None

    @property
    def folds(self) -> range:
        """The folds."""
        return range(int(self.fold.max()) + 1)


def fit_folds(core: LinearCore, ground: Ground, plant: Plant, config: LinearConfig) -> Folds | None:
    """Of tags that are controlled or have targets; None of many tags, or where too little is left without a fold."""
    wanted = {t.signal for t in plant.targets} | {s.name for s in plant.tags if s.role is Role.CONTROLLED}
    tags = [i for i, s in enumerate(plant.tags) if s.name in wanted]
    if core.scaling.factors is not None or not tags or len(ground.folds) < FEWEST:
        return None
    rest = [[p for p, fold in zip(ground.pasts, ground.fold, strict=True) if fold != e] for e in ground.folds]
    directions = [past_directions(part, core.step_s, config)[:, : ground.rank] for part in rest]
    rows = [_horizon(core, ground, row, directions, config) for row in range(len(HORIZONS))]
    weights, planned = (np.stack(made, 1)[..., tags] for made in zip(*rows, strict=True))
    width = core.past_weights.shape[1]
    return Folds(
        tags=tuple(tags),
        past=weights[:, :, :width],
        action=weights[:, :, width:-1],
        planned=planned[:, :, width:-1],
        offset=weights[:, :, -1],
    )


def _horizon(
    core: LinearCore, ground: Ground, row: int, directions: Sequence[Floats], config: LinearConfig
) -> tuple[Floats, Floats]:
    """Weights [E, P + A * Q + 1, S] without each fold: over all ticks, and where actuators are free."""
    usual = ground.usual[row]
    parts = _by_fold(core, ground, row, None)
    free = parts if ground.freed is None else _by_fold(core, ground, row, ground.freed)
    made, planned = [], []
    for e in ground.folds:
        choice = choose(_left(parts, e), directions[e], usual, config)
        made.append(chosen(refitted(_left(parts, e), choice, directions[e], usual, config), choice))
        planned.append(chosen(refitted(_left(free, e), choice, directions[e], usual, config), choice))
    return np.stack(made), np.stack(planned)


def _by_fold(core: LinearCore, ground: Ground, row: int, freed: Sequence[Floats] | None) -> list[Moments]:
    """Moments of the runs of each fold; of no rows where none is long enough."""
    known = [None] * len(ground.pasts) if freed is None else freed
    made = [[no_moments(ground.pasts[0], HORIZONS[row], core.step_s)] for _ in ground.folds]
    for past, free, fold in zip(ground.pasts, known, ground.fold, strict=True):
        found = run_moments(past, HORIZONS[row], ground.own[row], core.step_s, free)
        made[fold] += [] if found is None else [found]
    return [Moments.total(parts) for parts in made]


def _left(parts: Sequence[Moments], left_out: int) -> HorizonSplit:
    """What is left without a fold; the one before it is held out of the choices."""
    held = parts[left_out - 1]
    fit = Moments.total([m for m in parts if m is not held and m is not parts[left_out]])
    return HorizonSplit(fit if fit.rows else held, held if held.rows else fit)
