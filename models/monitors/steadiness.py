"""Sensors that have stopped saying anything: tags that never change, pictures that repeat, silence.

Shape letters: T ticks, S tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.monitors.relief import FIRST_TICKS
from models.scaling import Bools, Floats
from models.ticks import Ticks

LONGEST_JUDGED_TICKS = 10  # a tag that normally rests longer than this cannot be judged by resting
SHORTEST_TICKS = 20  # the least limit: short rests happen to every tag that is rounded
QUIET, LARGEST = 0.75, 20.0  # shares of the limit below which a rest counts as none, and above which as the same


@dataclass(frozen=True, slots=True)
class SteadinessCarry:
    """The last value [S], for how many ticks it has been the same [S], age, and the longest rest that has ended [S]."""

    value: Floats
    ticks: Floats
    age: int
    ended: Floats


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How long each tag has rested, against the longest rest in training; ``limit_ticks`` [S], NaN: not judged.

    A longer rest in the first ticks of a stream that ended by itself was no dead sensor: today the tag is recorded
    more coarsely, and rests as long are usual.
    """

    limit_ticks: Floats

    @classmethod
    def fit(cls, runs: Sequence[Ticks]) -> Steadiness:
        """From normal runs."""
        longest = np.max([_rests(run, None)[0].max(0) for run in runs], axis=0)
        judged = longest <= LONGEST_JUDGED_TICKS
        return cls(np.where(judged, np.maximum(longest, SHORTEST_TICKS), np.nan))

    def step(self, ticks: Ticks, carry: SteadinessCarry | None) -> tuple[Floats, SteadinessCarry]:
        """Rest over limit beyond ``QUIET`` [T, S], zero where not judged or not observed; and the carry."""
        rests, carry, ended = _rests(ticks, carry)
        excess = np.maximum(np.nan_to_num(rests / np.maximum(self.limit_ticks, 2.0 * ended)) - QUIET, 0.0)
        return np.minimum(np.where(ticks.observed, excess, 0.0), LARGEST), carry


def _rests(ticks: Ticks, carry: SteadinessCarry | None) -> tuple[Floats, SteadinessCarry, Floats]:
    """For how many ticks each tag has kept its value, and its longest rest that ended in the first ticks [T, S]."""
    before = ticks.tags[:1] if carry is None else carry.value[None]
    start = np.zeros(ticks.tags.shape[1]) if carry is None else carry.ticks
    same: Bools = ticks.tags == np.concatenate([before, ticks.tags[:-1]])
    rows = np.arange(len(ticks))[:, None]
    changed = np.maximum.accumulate(np.where(same, -1, rows), axis=0)
    rests = np.where(changed >= 0, rows - changed, start + rows + 1)
    age, longest = (0, np.zeros_like(start)) if carry is None else (carry.age, carry.ended)
    over = np.concatenate([start[None], rests[:-1]])
    young = ~same & (age + rows < FIRST_TICKS)
    ended = np.maximum(np.maximum.accumulate(np.where(young, over, 0.0), axis=0), longest)
    return rests, SteadinessCarry(ticks.tags[-1], rests[-1], age + len(ticks), ended[-1]), ended
