"""Hidden states of a plant, such as friction or the bias of a meter: how far each is from what it was at first.

What two or three tags have to do with each other is fitted on the plant's own first minutes; by how much they deviate
from it in the present ones, and in which relations, tells what has changed. Which relations tell what is learned from
plants whose hidden states are known (``models.fleet.states_fit``). Kinds of tags are told by their descriptors.
Shape letters: T ticks, S tags, K kinds of tags, P columns (each kind and its square, and a one), R relations, X states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from models.fleet.descriptor import undescribed
from models.fleet.kinds import Kinds
from models.fleet.view import range_scaling, view
from models.scaling import Bools, Floats
from models.ticks import Ticks

Relations = NDArray[np.int64]

FIRST_S, WINDOW_S = 1800.0, 1200.0  # the first minutes, and the present ones
LEAST_OBSERVED = 0.5  # of the ticks of a window
SHRINK = 1e-3  # of the variance of a regressor, added to it
TRIFLE = 1e-4  # squared shares of a range, below which nothing is a ratio
MOST_GAIN = np.log(10.0)
BEYOND = 0.25  # of the width of what training plants did, by which it may be exceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A hidden state: its ``words`` and its ``unit``; in % it is a ratio to what it was at first, else a difference."""

    name: str
    words: str
    unit: str

    def change(self, now: Floats, first: Floats) -> Floats:
        """From true values: what is learned, in units of the state or of its logarithm."""
        return np.asarray(100.0 * np.log(now / first) if self.unit == "%" else now - first)

    def shown(self, change: Floats | float) -> Floats:
        """What is learned as it is told."""
        return np.asarray(100.0 * np.expm1(change / 100.0) if self.unit == "%" else change)


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes of a plant: mean products [P, P] of its kinds of tags by range, and which kinds are ``known`` [K]."""

    moments: Floats
    known: Bools


@dataclass(frozen=True, slots=True)
class Linear:
    """What gains tell: ``weights`` [R] of each and an ``offset``."""

    weights: Floats
    offset: float

    def change(self, gains: NDArray[np.floating]) -> Floats:
        """Of gains [.., R]."""
        return np.asarray(gains @ self.weights + self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How one ``state`` is told: by what the gains of ``relations`` [R, 3] tell, and how well.

    ``usual`` are the error at no change and its growth with the change, ``wide`` how many of them a 90 % interval is
    wide to each side; ``doubt`` is what 99 % of what is told at no change stays below. ``bounds`` [R, 2] are the gains
    of training plants, ``limits`` their worst states.
    """

    state: State
    relations: Relations
    told: Linear
    usual: tuple[float, float]
    wide: float
    doubt: float
    bounds: Floats
    limits: tuple[float, float]

    def error(self, change: Floats) -> Floats:
        """The usual error of what is told."""
        return np.asarray(self.usual[0] + self.usual[1] * np.abs(change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A state as it is told, less what it was at first, with its 90 % interval [unit]; ``changed``: beyond doubt."""

    state: State
    value: float
    low: float
    high: float
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StateHead:
    """All states that can be told."""

    readings: tuple[Reading, ...]

    def tell(self, first: Window, present: Window) -> tuple[Told | None, ...]:
        """Each state; None where its tags are missing, not described, or do what no training plant did."""
        return tuple(_told(reading, first, present) for reading in self.readings)


def _told(reading: Reading, first: Window, present: Window) -> Told | None:
    known = first.known & present.known
    if not known[reading.relations % len(known)].all():
        return None
    gains = deviations(first, present, reading.relations)
    low, high = reading.bounds.T
    slack = BEYOND * (high - low)
    if ((gains < low - slack) | (gains > high + slack)).any():
        return None
    change = reading.told.change(gains)
    half = reading.wide * float(reading.error(change))
    value, bottom, top = (float(reading.state.shown(change + side * half)) for side in (0.0, -1.0, 1.0))
    return Told(state=reading.state, value=value, low=bottom, high=top, changed=bool(abs(change) > reading.doubt))


def window(kinds: Kinds, plant: Plant, run: Ticks) -> Window:
    """Minutes of a plant in brief. Tags without words or range are left out."""
    seen, _ = view(run, range_scaling(kinds, plant))
    places, count = kinds.tags.places(plant.tags), len(kinds.tags)
    told = np.array([not undescribed(signal) for signal in plant.tags], bool)
    used = np.flatnonzero((places >= 0) & told & (seen.observed.mean(0) >= LEAST_OBSERVED))
    share = np.maximum((seen.tags[:, used] + 1.0) / 2.0, 0.0)
    columns = np.zeros((len(run), 2 * count + 1))
    columns[:, places[used]], columns[:, count + places[used]], columns[:, -1] = share, share**2, 1.0
    known = np.zeros(count, bool)
    known[places[used]] = True
    return Window(columns.T @ columns / len(run), known)


def deviations(first: Window, present: Window, relations: Relations) -> Floats:
    """Logarithms of the gain [R] of each target over what its relation of the first minutes lets expect."""
    target, one, other = relations.T
    level, by_one, by_other = _fitted(first.moments, relations)
    m = present.moments
    mean = m[-1]
    along = level * mean[target] + by_one * m[target, one] + by_other * m[target, other]
    square = (
        level**2 + by_one**2 * m[one, one] + by_other**2 * m[other, other]
        + 2.0 * (level * (by_one * mean[one] + by_other * mean[other]) + by_one * by_other * m[one, other])
    )  # fmt: skip
    ratio = (along + TRIFLE) / (square + TRIFLE)
    return np.asarray(np.log(ratio.clip(np.exp(-MOST_GAIN), np.exp(MOST_GAIN))))


def _fitted(moments: Floats, relations: Relations) -> tuple[Floats, Floats, Floats]:
    """Constant and two slopes [R] of each target on its regressors; the second counts only where it is another."""
    target, one, other = relations.T
    mean = moments[-1, :-1]
    covariance = moments[:-1, :-1] - np.outer(mean, mean)
    own = np.diag(covariance) * (1.0 + SHRINK) + TRIFLE**2
    alone = one == other
    between = np.where(alone, 0.0, covariance[one, other])
    with_one, with_other = covariance[target, one], np.where(alone, 0.0, covariance[target, other])
    determinant = own[one] * own[other] - between**2
    by_one = (with_one * own[other] - with_other * between) / determinant
    by_other = np.where(alone, 0.0, (with_other * own[one] - with_one * between) / determinant)
    return mean[target] - by_one * mean[one] - by_other * mean[other], by_one, by_other


def all_relations(kinds: int) -> Relations:
    """Every target [R, 3] with one regressor, or two, of other kinds than its own."""
    made: Sequence[tuple[int, int, int]] = [
        (target, one, other)
        for target in range(2 * kinds)
        for one in range(2 * kinds)
        for other in range(one, 2 * kinds)
        if one % kinds != target % kinds != other % kinds
    ]
    return np.array(made, np.int64).reshape(-1, 3)
