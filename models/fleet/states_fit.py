"""How hidden states are learned to be told: from plants whose states are known, at first and on later days.

Of all relations of two or three tags, few are chosen, one after another, by what they tell; how many, and how wide
intervals must be, is told on plants that were left out. Shape letters: W windows, R relations, X states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant
from models.fleet.kinds import Kinds
from models.fleet.states import (
    WINDOW_S,
    Linear,
    Reading,
    Relations,
    State,
    StateHead,
    all_relations,
    deviations,
    window,
)
from models.linear.regression import Moments, ridge
from models.scaling import Floats
from models.ticks import Ticks

Say = Callable[[str], None]
Gains = NDArray[np.float32]

EVERY_S = 550.0  # between the ends of two windows of a day
MOST_RELATIONS = 6
FOLDS = 5
LEAST_PLANTS = 2 * FOLDS
LEAST_SKILL = 0.5  # below which a state is left out
PENALTY = 1e-3
TINY = 1e-6
COVERED, SURE = 0.9, 0.99
WORST = 0.02  # of the windows, those in which a state is beyond its limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Ticks of a plant and its true hidden states [T, X]."""

    ticks: Ticks
    truth: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A plant at first, and on later days."""

    plant: Plant
    first: Day
    later: tuple[Day, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """Windows: gains [W, R] of relations, true states now and at first [W, X], and the ``plant`` [W] of each."""

    gains: Gains
    now: Floats
    first: Floats
    plant: NDArray[np.int64]


def examples(kinds: Kinds, lives: Sequence[Life], relations: Relations) -> Examples:
    """Windows of all later days against the first of each plant that has every kind."""
    gains, now, before, whose = [], [], [], []
    for number, life in enumerate(lives):
        step_s = life.plant.step_s
        first = window(kinds, life.plant, life.first.ticks)
        length, every = round(WINDOW_S / step_s), round(EVERY_S / step_s)
        for day in life.later:
            for end in range(len(day.ticks), length - 1, -every):
                present = window(kinds, life.plant, day.ticks[end - length : end])
                if not (first.known & present.known).all():
                    continue
                gains.append(deviations(first, present, relations).astype(np.float32))
                now.append(day.truth[end - length : end].mean(0))
                before.append(life.first.truth.mean(0))
                whose.append(number)
    return Examples(np.array(gains, np.float32), np.array(now), np.array(before), np.array(whose, np.int64))


def fit_states(kinds: Kinds, lives: Sequence[Life], states: Sequence[State], say: Say) -> StateHead:
    """The head for the states that the truth of these lives is of, in this order; ``say`` is told how well.

    Raises:
        ConfigError: where too few plants are described well enough.
    """
    relations = all_relations(len(kinds.tags))
    seen = examples(kinds, lives, relations)
    if len(np.unique(seen.plant)) < LEAST_PLANTS:
        raise ConfigError(
            f"hidden states: {len(np.unique(seen.plant))} plants with words and ranges; {LEAST_PLANTS} are the least"
        )
    readings = []
    for x, state in enumerate(states):
        reading, skill = _reading(state, relations, seen, state.change(seen.now[:, x], seen.first[:, x]))
        kept = skill >= LEAST_SKILL
        say(
            f"{state.words}: {skill:.2f} of its variance told of plants left out{'' if kept else ', so it is not told'}"
        )
        readings += [reading] if kept else []
    return StateHead(readings=tuple(readings))


def _reading(state: State, relations: Relations, seen: Examples, change: Floats) -> tuple[Reading, float]:
    """The state by as many relations as tell it best on plants that were left out, and what share they tell there."""
    fold = seen.plant % FOLDS
    told = np.zeros((MOST_RELATIONS, len(change)))
    for out in range(FOLDS):
        held = fold == out
        for count, (chosen, linear) in enumerate(_courses(seen.gains[~held], change[~held])):
            told[count, held] = linear.change(seen.gains[held][:, chosen])
    best = int(np.argmin(((told - change) ** 2).mean(1)))
    chosen, linear = _courses(seen.gains, change)[best]
    usual = _usual_error(told[best], change)
    error, small = np.abs(told[best] - change), np.abs(change) <= np.median(np.abs(change))
    gains, shown = seen.gains[:, chosen].astype(np.float64), state.shown(change)
    reading = Reading(
        state=state,
        relations=relations[chosen],
        told=linear,
        usual=usual,
        wide=float(np.quantile(error / (usual[0] + usual[1] * np.abs(told[best])), COVERED)),
        doubt=float(np.quantile(error[small], SURE)),
        bounds=np.stack([gains.min(0), gains.max(0)], 1),
        limits=(float(np.quantile(shown, WORST)), float(np.quantile(shown, 1.0 - WORST))),
    )
    return reading, 1.0 - float(((told[best] - change) ** 2).mean() / change.var())


def _courses(gains: Gains, change: Floats) -> list[tuple[list[int], Linear]]:
    """The best relation, the best two and so on, each beside those before it, with what they tell."""
    centred = gains - gains.mean(0)
    centred /= gains.std(0) + TINY
    chosen: list[int] = []
    made: list[tuple[list[int], Linear]] = []
    left = change - change.mean()
    for _ in range(MOST_RELATIONS):
        agreement = np.abs(left.astype(np.float32) @ centred)
        agreement[chosen] = -1.0
        chosen = [*chosen, int(agreement.argmax())]
        weights = ridge(Moments.of(gains[:, chosen].astype(np.float64), change[:, None]), (PENALTY,))[0][:, 0]
        linear = Linear(weights[:-1], float(weights[-1]))
        left = change - linear.change(gains[:, chosen])
        made.append((chosen, linear))
    return made


def _usual_error(told: Floats, change: Floats) -> tuple[float, float]:
    """The error at no change, that of the median of the smaller half, and its growth with the change."""
    error, size = np.abs(told - change), np.abs(told)
    still = max(float(np.median(error[size <= np.median(size)])), TINY)
    return still, max(float(((error - still) * size).sum() / (size**2).sum()), 0.0)
