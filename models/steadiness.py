"""Sensors that have stopped saying anything: tags that never change, pictures that repeat, silence.

Shape letters: T ticks, S tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.batch import Ticks
from models.scaling import Bools, Floats

LONGEST_JUDGED_TICKS = 10  # a tag that normally rests longer than this cannot be judged by resting
SHORTEST_TICKS = 20
QUIET, LARGEST = 0.75, 20.0  # shares of the limit below which a rest counts as none, and above which as the same


@dataclass(frozen=True, slots=True)
class SteadinessCarry:
    """The last value [S] and for how many ticks it has been the same [S]."""

    value: Floats
    ticks: Floats


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How long each tag has rested, against the longest rest in training; ``limit_ticks`` [S], NaN: not judged."""

    limit_ticks: Floats

    @classmethod
    def fit(cls, runs: Sequence[Ticks]) -> Steadiness:
        """From normal runs."""
        longest = np.max([_rests(run, None)[0].max(0) for run in runs], axis=0)
        judged = longest <= LONGEST_JUDGED_TICKS
        return cls(np.where(judged, np.maximum(longest, SHORTEST_TICKS), np.nan))

    def step(self, ticks: Ticks, carry: SteadinessCarry | None) -> tuple[Floats, SteadinessCarry]:
        """Rest over limit beyond ``QUIET`` [T, S], zero where not judged or not observed; and the carry."""
        rests, carry = _rests(ticks, carry)
        excess = np.maximum(np.nan_to_num(rests / self.limit_ticks) - QUIET, 0.0)
        return np.minimum(np.where(ticks.observed, excess, 0.0), LARGEST), carry

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays to keep."""
        return {"limit_ticks": self.limit_ticks}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Steadiness:
        """Inverse of ``state``."""
        return cls(np.asarray(state["limit_ticks"]))


def _rests(ticks: Ticks, carry: SteadinessCarry | None) -> tuple[Floats, SteadinessCarry]:
    """For how many ticks [T, S] each tag has kept its value."""
    before = ticks.tags[:1] if carry is None else carry.value[None]
    start = np.zeros(ticks.tags.shape[1]) if carry is None else carry.ticks
    same: Bools = ticks.tags == np.concatenate([before, ticks.tags[:-1]])
    rows = np.arange(len(ticks))[:, None]
    changed = np.maximum.accumulate(np.where(same, -1, rows), axis=0)
    rests = np.where(changed >= 0, rows - changed, start + rows + 1)
    return rests, SteadinessCarry(ticks.tags[-1], rests[-1])
