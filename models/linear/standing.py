"""Offset-free forecasts: what a core has missed lately at each horizon is taken off what it foretells now.

At rest a forecast that was wrong by so much is wrong by as much again; behind a move it is less so, and half of it is
heeded.
Source: Cutler and Ramaker (1980), "Dynamic matrix control"; here with an error of its own for each horizon.
Shape letters as in ``models.linear.core``; C tags that plans are judged by.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from models.actions import HORIZONS, block_ticks
from models.linear.core import Encoding, LinearCore
from models.scaling import Floats, Scaler

HEEDED = 0.5
AVERAGED_STEPS = 12  # of the action grid, of the last errors: longer than noise, shorter than what they are to tell of


def averaged_ticks(step_s: float) -> int:
    """Ticks over which the last errors are averaged."""
    return AVERAGED_STEPS * block_ticks(step_s)


def trail_ticks(step_s: float) -> int:
    """Ticks that a trail must hold for every horizon to be corrected."""
    return HORIZONS[-1] + averaged_ticks(step_s)


@dataclass(slots=True)
class Lately:
    """The last ticks of a stream as they were encoded, in pieces; ``most`` ticks at least once there were so many."""

    most: int
    parts: deque[Encoding] = field(default_factory=deque)
    ticks: int = 0

    def take(self, encoding: Encoding) -> None:
        """Take consecutive ticks."""
        self.parts.append(encoding[-self.most :])
        self.ticks += len(self.parts[-1])
        while self.ticks - len(self.parts[0]) >= self.most:
            self.ticks -= len(self.parts.popleft())

    def restart(self) -> None:
        """Forget all but the last tick: what came before says nothing of what comes."""
        if self.parts:
            self.parts = deque([self.parts[-1][-1:]])
            self.ticks = 1

    def trail(self) -> Encoding:
        """All that is kept in one."""
        return Encoding.joined(self.parts)


def standing_error(core: LinearCore, trail: Encoding) -> Floats:
    """What is to be added to a forecast [H, S] from the last tick of a trail, scaled; zero where nothing is known.

    The trail are consecutive ticks of a stream. As far as errors of a horizon are not known yet, those of the one
    before stand for them.
    """
    made = np.zeros(core.offset.shape)
    ticks = averaged_ticks(core.step_s)
    for row, horizon in enumerate(HORIZONS):
        part = trail[max(0, len(trail) - horizon - ticks) :]
        known = max(0, len(part) - horizon) / ticks
        if known:
            foretold, came = core.hindcast(part, horizon)
            made[row] = HEEDED * known * (came - foretold).mean(0)
        if row:
            made[row] += (1.0 - known) * made[row - 1]
    return made


def fold_cores(core: LinearCore) -> list[LinearCore]:
    """The core without each fold of its runs, of the tags [C] that plans are judged by; none where not known."""
    folds = core.folds
    if folds is None:
        return []
    tags, wanted = core.scaling.tags, list(folds.tags)
    scaling = replace(core.scaling, tags=Scaler(tags.centre[wanted], tags.scale[wanted]))
    return [
        replace(
            core,
            scaling=scaling,
            past_weights=folds.past[e],
            action_weights=folds.action[e],
            planned_weights=folds.planned[e],
            offset=folds.offset[e],
            folds=None,
        )
        for e in range(len(folds.past))
    ]
