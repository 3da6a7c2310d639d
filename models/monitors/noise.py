"""Tags that have become noisy: how often a tag jerks more than it normally does.

A jerk is the second difference of three values in a row: slow moves have none, noise has little else. Counted is how
often it is larger than nineteen in twenty of the training's, so that a step of the plant counts once however large it
is. Shape letters: T ticks, S tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.averages import ewma
from models.monitors.relief import FIRST_TICKS
from models.monitors.steadiness import LARGEST, QUIET
from models.scaling import Bools, Floats
from models.ticks import Ticks

USUAL = 0.95  # quantile of a tag's jerks that counts as large
ALPHA = 0.02  # of the running share of large jerks
LEAST = 0.4  # the least limit of that share: noise of two and a half times its size has so much beyond the quantile
ROOM = 2.0  # what the largest share in training, or in the first ticks of a stream, is multiplied by
MOST = 0.8  # a limit beyond it tells nothing


@dataclass(frozen=True, slots=True)
class NoiseCarry:
    """The last two values [2, S], whether they are known [2, S], running shares [S], age, and the largest at first."""

    value: Floats
    known: Bools
    share: Floats
    age: int
    usual: Floats

    @classmethod
    def begin(cls, tags: int) -> NoiseCarry:
        """At the start of a stream."""
        nothing = np.zeros((2, tags))
        return cls(nothing, nothing.astype(bool), np.full(tags, 1.0 - USUAL), 0, np.zeros(tags))


@dataclass(frozen=True, slots=True)
class Noise:
    """How large a jerk is usual ``jerk`` [S], and which running share of larger ones is ``limit`` [S]; NaN: not judged.

    A stream whose first ticks are noisier is so today.
    """

    jerk: Floats
    limit: Floats

    @classmethod
    def fit(cls, runs: Sequence[Ticks]) -> Noise:
        """From normal runs."""
        tags = runs[0].tags.shape[1]
        found = [_jerks(run, NoiseCarry.begin(tags)) for run in runs]
        sizes = np.concatenate([np.where(known, size, np.nan) for size, known in found])
        told = np.isfinite(sizes).any(0)
        jerk = np.full(tags, np.nan)
        jerk[told] = np.nanquantile(sizes[:, told], USUAL, axis=0)
        free = cls(jerk, np.ones(tags))
        shares = [free.shares(run, NoiseCarry.begin(tags))[0] for run in runs]
        limit = np.maximum(ROOM * np.max([s.max(0, initial=0.0) for s in shares], axis=0), LEAST)
        return cls(jerk, np.where((limit <= MOST) & (jerk > 0), limit, np.nan))

    def shares(self, ticks: Ticks, carry: NoiseCarry) -> tuple[Floats, NoiseCarry]:
        """The running share [T, S] of large jerks; where a value is missing it stays as it was."""
        size, known = _jerks(ticks, carry)
        large, share = (size > self.jerk).astype(np.float64), np.empty(size.shape)
        if known.all():
            share, last = ewma(large, ALPHA, carry.share)
        else:
            last = carry.share
            for row in range(len(size)):
                last = share[row] = np.where(known[row], last + ALPHA * (large[row] - last), last)
        value = np.concatenate([carry.value, ticks.tags])[-2:]
        there = np.concatenate([carry.known, ticks.observed])[-2:]
        young = share[: max(0, FIRST_TICKS - carry.age)]
        usual = np.maximum(carry.usual, young.max(0, initial=0.0))
        return share, NoiseCarry(value, there, last, carry.age + len(ticks), usual)

    def step(self, ticks: Ticks, carry: NoiseCarry) -> tuple[Floats, NoiseCarry]:
        """Share over its limit, beyond ``QUIET`` [T, S]: zero where not judged or not observed; and the carry."""
        share, carry = self.shares(ticks, carry)
        limit = np.maximum(self.limit, ROOM * carry.usual)
        over = np.minimum(np.maximum(np.nan_to_num(share / limit) - QUIET, 0.0), LARGEST)
        return np.where(ticks.observed, over, 0.0), carry


def _jerks(ticks: Ticks, carry: NoiseCarry) -> tuple[Floats, Bools]:
    """Size of the second difference at each tick [T, S], and whether all of its three values were observed."""
    value = np.concatenate([carry.value, ticks.tags])
    there = np.concatenate([carry.known, ticks.observed])
    known = there[2:] & there[1:-1] & there[:-2]
    return np.where(known, np.abs(value[2:] - 2.0 * value[1:-1] + value[:-2]), 0.0), known
