"""Kinds of signals that plants of a fleet share, told from their descriptors: the columns of what is pooled.

Shape letters: S tags, A actions, K kinds, D descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from fusion.plant import Plant, Signal
from models.fleet.descriptor import DECADES, NATURE, SAID, descriptors, dimension, in_first_unit, in_own_unit
from models.scaling import Floats

Places = NDArray[np.int64]
_WORDS = slice(NATURE, NATURE + SAID)

LEAST_ALIKE = 0.4  # of two descriptors of one kind
WORDLESS = 0.75  # how much the nature alone tells where one of both has no words
NOT_AS_WIDE = 0.5  # decades between two ranges
ANOTHER_SIZE = 2.5  # ratio of two ranges beyond which they are of plants of another size
SHARED_BY = 3  # plants of a fleet that must have a kind, or all where there are fewer


@dataclass(frozen=True, slots=True)
class Group:
    """Kinds of tags, or of actions: their mean descriptors [K, D], what each measures, and between which bounds [K, 2].

    Bounds are medians over the plants, in the first unit of the quantity.
    """

    descriptors: Floats
    quantities: tuple[str, ...]
    bounds: Floats

    def __len__(self) -> int:
        return len(self.quantities)

    @classmethod
    def of(cls, plants: Sequence[Sequence[Signal]]) -> Group:
        """The kinds that several of these plants have."""
        means = _grouped(plants)
        found: list[list[Signal]] = [[] for _ in means]
        for signals in plants:
            for signal, place in zip(signals, _matched(descriptors(signals), means), strict=True):
                if place >= 0:
                    found[place].append(signal)
        quantities = tuple(_commonest([dimension(s.unit) for s in signals]) for signals in found)
        bounds = [_median_bounds(signals, q) for signals, q in zip(found, quantities, strict=True)]
        return cls(means, quantities, np.array(bounds).reshape(-1, 2))

    def places(self, signals: Sequence[Signal]) -> Places:
        """The kind of each of a plant's signals; -1 of what is like none. No two share one."""
        return _matched(descriptors(signals), self.descriptors)

    def range_of(self, signal: Signal, place: int) -> tuple[float, float] | None:
        """By which range a signal is scaled, in its unit; None where it declares none.

        That of its kind, unless its own is so much wider or narrower that the plant must be of another size.
        """
        declared = in_first_unit(signal)
        if declared is None or signal.low is None or signal.high is None:
            return None
        if place >= 0 and dimension(signal.unit) == self.quantities[place]:
            low, high = self.bounds[place]
            ratio = (declared[1] - declared[0]) / (high - low)
            if 1.0 / ANOTHER_SIZE <= ratio <= ANOTHER_SIZE:
                return in_own_unit(signal, float(low), float(high))
        return signal.low, signal.high


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of tags and of actions that plants of a fleet share."""

    tags: Group
    actions: Group

    @classmethod
    def of(cls, plants: Sequence[Plant]) -> Kinds:
        """The kinds that several of these plants have."""
        return cls(Group.of([p.tags for p in plants]), Group.of([p.actions for p in plants]))

    def places(self, plant: Plant) -> tuple[Places, Places]:
        """The kind of each tag [S] and of each action [A]; -1 of what is like none."""
        return self.tags.places(plant.tags), self.actions.places(plant.actions)


def _commonest(words: Sequence[str]) -> str:
    return max(dict.fromkeys(words), key=words.count, default="")


def _median_bounds(signals: Sequence[Signal], quantity: str) -> tuple[float, float]:
    """Of those that measure it and say between what; the unit range where none does."""
    found = [in_first_unit(s) for s in signals if dimension(s.unit) == quantity]
    known = np.array([bounds for bounds in found if bounds is not None]).reshape(-1, 2)
    if not len(known):
        return -1.0, 1.0
    low, high = np.median(known, axis=0)
    return float(low), float(high)


def alike(one: Floats, other: Floats) -> Floats:
    """How alike descriptors [N, D] and [M, D] are, at most one: by nature, and by words or else by range."""
    nature = one[:, :NATURE] @ other[:, :NATURE].T
    said, other_said = one[:, _WORDS], other[:, _WORDS]
    lengths = np.linalg.norm(said, axis=1)[:, None] * np.linalg.norm(other_said, axis=1)[None]
    words = said @ other_said.T / np.maximum(lengths, 1e-9)
    wordless = WORDLESS * nature + (1.0 - WORDLESS) * _as_wide(one[:, NATURE + SAID :], other[:, NATURE + SAID :])
    return np.asarray(np.where(lengths > 1e-9, 0.5 * nature + 0.5 * words, wordless))


def _as_wide(one: Floats, other: Floats) -> Floats:
    """One where two ranges [N, D] and [M, D] are as wide, zero from half a decade on, or where one is not known."""
    known = np.minimum(one[:, None, 0], other[None, :, 0])
    apart = np.abs(one[:, None, 1] - other[None, :, 1]) * DECADES
    return np.asarray(known * np.maximum(1.0 - apart / NOT_AS_WIDE, 0.0))


def _matched(found: Floats, kinds: Floats) -> Places:
    places = np.full(len(found), -1, np.int64)
    if not len(found) or not len(kinds):
        return places
    score = alike(found, kinds)
    rows, columns = linear_sum_assignment(-score)
    good = score[rows, columns] >= LEAST_ALIKE
    places[rows[good]] = columns[good]
    return places


def _grouped(plants: Sequence[Sequence[Signal]]) -> Floats:
    """One plant after another joins what is like its own to the kinds there are, and brings the others."""
    sums: list[Floats] = []
    members: list[int] = []
    for signals in sorted(plants, key=lambda s: -sum(bool(x.description) for x in s)):
        found = descriptors(signals)
        kinds = np.stack([_unit(s) for s in sums]) if sums else found[:0]
        for descriptor, place in zip(found, _matched(found, kinds), strict=True):
            if place < 0:
                sums.append(descriptor.copy())
                members.append(1)
            else:
                sums[place] = sums[place] + descriptor
                members[place] += 1
    least = min(SHARED_BY, len(plants))
    kept = [_unit(s) for s, n in zip(sums, members, strict=True) if n >= least]
    return np.stack(kept) if kept else descriptors(())


def _unit(total: Floats) -> Floats:
    """A sum of descriptors with each part at unit length again."""
    parts = [total[:NATURE], total[_WORDS]]
    made = [part / max(float(np.linalg.norm(part)), 1e-9) for part in parts]
    return np.concatenate([*made, total[NATURE + SAID :]])
