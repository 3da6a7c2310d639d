"""A plant as a fleet model sees it: tags and actions by range, each with its own past; absurd values masked.

Shape letters: T ticks, S tags, A actions, F features of one signal, P past features, Q summaries per action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from models.fleet.descriptor import undescribed
from models.fleet.kinds import Kinds
from models.linear.past import ACTION_ALPHAS, TAG_ALPHAS, PastCarry, past
from models.scaling import Bools, Floats, Scaler, Scaling
from models.ticks import Ticks

FEATURES = 1 + len(TAG_ALPHAS)
ACTION_FEATURES = 1 + len(ACTION_ALPHAS)
ABSURD = 6.0  # half ranges from the middle, beyond which a value is masked
GUESSED_RANGE = 8.0  # robust deviations that a range spans where none is declared
FEWEST = 30  # values from which a range may be guessed
TRIFLE = 1e-6  # of the larger bound of a range


@dataclass(frozen=True, slots=True)
class ViewCarry:
    """What a stream of ticks leaves behind: the last sane value of each tag [S], its age, and the averages."""

    last: Floats
    past: PastCarry


@dataclass(frozen=True, slots=True)
class View:
    """Scaled tags [T, S] and actions [T, A] of consecutive ticks, their past [T, P], what is observed and how old."""

    tags: Floats
    action: Floats
    past: Floats
    observed: Bools
    age_s: Floats
    masked: int = 0

    def __len__(self) -> int:
        return len(self.tags)

    def at(self, rows: slice | NDArray[np.int64]) -> View:
        """Some of the ticks."""
        past, seen = self.past[rows], self.observed[rows]
        return View(self.tags[rows], self.action[rows], past, seen, self.age_s[rows])

    def __getitem__(self, part: slice) -> View:
        return self.at(part)

    @property
    def tag_features(self) -> Floats:
        """Each tag's own features [T, S, F]."""
        width = FEATURES * self.tags.shape[1]
        return np.moveaxis(self.past[:, :width].reshape(len(self), FEATURES, -1), 1, 2)

    @property
    def action_features(self) -> Floats:
        """Each action's own features [T, A, F]."""
        width = FEATURES * self.tags.shape[1]
        shape = (len(self), ACTION_FEATURES, self.action.shape[1])
        return np.moveaxis(self.past[:, width:].reshape(shape), 1, 2)


def range_scaling(kinds: Kinds, plant: Plant, own: Sequence[Ticks] = ()) -> Scaling:
    """Engineering ranges to -1..1; where a tag declares none, from what it did in its ``own`` ticks."""
    tags, actions = kinds.places(plant)
    values = np.concatenate([run.tags for run in own]) if own else np.zeros((0, len(plant.tags)))
    seen = np.concatenate([run.observed for run in own]) if own else np.zeros((0, len(plant.tags)), bool)
    bounds = [kinds.tags.range_of(s, int(tags[i])) or _guessed(values[seen[:, i], i]) for i, s in enumerate(plant.tags)]
    moved = [kinds.actions.range_of(s, int(actions[i])) or (-1.0, 1.0) for i, s in enumerate(plant.actions)]
    return Scaling(tags=_scaler(bounds), action=_scaler(moved), media={})


def _scaler(bounds: Sequence[tuple[float, float]]) -> Scaler:
    return Scaler.of_ranges([low for low, _ in bounds], [high for _, high in bounds])


def _guessed(values: Floats) -> tuple[float, float]:
    """A range from what was seen; the unit range of almost nothing."""
    finite = values[np.isfinite(values)]
    if len(finite) < FEWEST:
        return -1.0, 1.0
    scaler = Scaler.fit(finite[:, None])
    centre, half = float(scaler.centre[0]), GUESSED_RANGE / 2.0 * float(scaler.scale[0])
    half = max(half, TRIFLE * max(abs(centre), 1.0))
    return centre - half, centre + half


def missing_words(plant: Plant) -> str:
    """What of the plant's description is missing that a fleet model reads, in one sentence; "" where nothing is."""
    found: dict[str, list[str]] = {}
    for signal in plant.tags:
        for what in undescribed(signal):
            found.setdefault(what, []).append(signal.name)
    if plant.tags and all(s.unit == "1" for s in plant.tags):
        found["unit"] = [s.name for s in plant.tags]
    if not plant.actions:
        found["manipulated signal"] = []
    said = [f"no {what}" + (f" of {len(names)} tags ({names[0]} ..)" if names else "") for what, names in found.items()]
    return "; ".join(said)


def view(ticks: Ticks, scaling: Scaling, carry: ViewCarry | None = None) -> tuple[View, ViewCarry]:
    """Consecutive ticks as a fleet model sees them; in pieces with the carry as all at once."""
    scaled = scaling.tags.scaled(np.where(np.isfinite(ticks.tags), ticks.tags, np.inf))
    sane = np.abs(scaled) <= ABSURD
    masked = int((ticks.observed & ~sane).sum())
    last = scaling.tags.centre if carry is None else carry.last
    held = _held(np.where(sane, ticks.tags, 0.0), sane, last)
    action = np.where(np.isfinite(ticks.action), ticks.action, scaling.action.centre)
    bounded = scaling.action.engineering(scaling.action.scaled(action).clip(-ABSURD, ABSURD))
    seen = replace(ticks.without_media(), tags=held, observed=ticks.observed & sane, action=bounded)
    made, after = past(seen, scaling, None if carry is None else carry.past)
    age_s = np.nan_to_num(ticks.age_s, nan=0.0, posinf=1e6)
    return View(made.tags, made.action, made.features, seen.observed, age_s, masked), ViewCarry(held[-1], after)


def _held(values: Floats, good: NDArray[np.bool_], last: Floats) -> Floats:
    """The last good value at each row [T, S]; ``last`` before the first."""
    rows = np.where(good, np.arange(1, len(good) + 1)[:, None], 0)
    rows = np.maximum.accumulate(rows, axis=0)
    return np.asarray(np.take_along_axis(np.concatenate([last[None], values]), rows, 0))
