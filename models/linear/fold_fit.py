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
from models.linear.readouts import (
    Choice,
    HorizonSplit,
    choose,
    chosen,
    freed_weights,
    no_moments,
    past_directions,
    refitted,
    run_moments,
)
from models.linear.regression import Moments
from models.linear.saturation import Freed, Window
from models.scaling import Floats

FEWEST = 3  # folds: one left out, one to choose on, one to fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a core was fitted on: runs and the ``fold`` of each, by horizon weights of own features and the rhythm.

    ``freed`` is where actuators are off their limits.
    """

    pasts: Sequence[Past]
    fold: NDArray[np.int64]
    rank: int
    own: Sequence[Floats]
    usual: Sequence[Floats]
    freed: Freed | None = None

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
    usual, freed = ground.usual[row], ground.freed
    parts = _by_fold(core, ground, row, [None] * len(ground.pasts))
    windows = {} if freed is None else {action: freed.windows(action, HORIZONS[row]) for action in freed.actions}
    free = {action: _by_fold(core, ground, row, of) for action, of in windows.items()}
    made, planned = [], []
    for e in ground.folds:
        choice = choose(_left(parts, e), directions[e], usual, config)

        def weights(of: Sequence[Moments], e: int = e, choice: Choice = choice) -> Floats:
            return chosen(refitted(_left(of, e), choice, directions[e], usual, config), choice)

        made.append(weights(parts))
        by_action = {action: weights(of) for action, of in free.items()}
        planned.append(freed_weights(made[-1], by_action, core.past_weights.shape[1]))
    return np.stack(made), np.stack(planned)


def _by_fold(core: LinearCore, ground: Ground, row: int, windows: Sequence[Window | None]) -> list[Moments]:
    """Moments of the runs of each fold, in the window of each run; of no rows where none is long enough."""
    made = [[no_moments(ground.pasts[0], HORIZONS[row], core.step_s)] for _ in ground.folds]
    for past, window, fold in zip(ground.pasts, windows, ground.fold, strict=True):
        found = run_moments(past, HORIZONS[row], ground.own[row], core.step_s, window)
        made[fold] += [] if found is None else [found]
    return [Moments.total(parts) for parts in made]


def _left(parts: Sequence[Moments], left_out: int) -> HorizonSplit:
    """What is left without a fold; the one before it is held out of the choices."""
    held = parts[left_out - 1]
    fit = Moments.total([m for m in parts if m is not held and m is not parts[left_out]])
    return HorizonSplit(fit if fit.rows else held, held if held.rows else fit)
