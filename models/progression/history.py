"""What slow quantities were like: one value an hour over thirty days, in constant memory.

An hour is the median of means of five minutes, so that a spike or a short disturbance leaves nothing. A value belongs
to the operating state of its time. Shape letters: N hours, Q quantities, M parts of an hour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.records import NS_PER_S
from models.scaling import Floats

Ints = NDArray[np.int64]

PART_S, BLOCK_S = 300.0, 3600.0
KEPT_BLOCKS = 720  # thirty days of hours
LEAST_SHARE = 0.5  # of the ticks of a part, and of the parts of a block, that must have a value
NO_STATE = -1  # of a tick that is not counted: the plant passes from one state to another


@dataclass(frozen=True, slots=True)
class Grid:
    """Ticks of a part, and parts of a block; a plant that is seen once an hour has blocks of one tick."""

    step_s: float

    @property
    def part_ns(self) -> int:
        """Length of a part [ns]."""
        return round(max(PART_S, self.step_s) * NS_PER_S)

    @property
    def parts(self) -> int:
        """Parts of a block: M."""
        return max(round(BLOCK_S * NS_PER_S / self.part_ns), 1)

    @property
    def block_ns(self) -> int:
        """Length of a block [ns]."""
        return self.parts * self.part_ns

    @property
    def ticks(self) -> float:
        """Ticks of a part."""
        return self.part_ns / NS_PER_S / self.step_s


@dataclass(slots=True)
class History:
    """Blocks of the quantities: ends ``t_ns`` [N], ``value`` [N, Q], operating ``state`` [N], and what is begun.

    Of the block that runs, ``parts`` [M, Q] are the means so far and ``part_state`` [M] their states; of the part that
    runs, ``total`` [Q] and ``count`` [Q] of its state ``now``, with the number ``part`` of it since 1970. Before
    ``since_ns`` [Q] nothing is known of a quantity: something else was there.
    """

    t_ns: Ints
    value: Floats
    state: Ints
    since_ns: Ints
    parts: Floats
    part_state: Ints
    total: Floats
    count: Floats
    now: int = NO_STATE
    part: int = -1

    @classmethod
    def empty(cls, quantities: int) -> History:
        """Nothing yet."""
        nothing, none = np.zeros((0, quantities)), np.zeros(0, np.int64)
        zero = np.zeros(quantities)
        return cls(none, nothing, none, np.zeros(quantities, np.int64), nothing, none, zero, zero.copy())

    def of(self, columns: Ints) -> History:
        """The same of other quantities: each is the one at ``columns`` [Q] before, or is new where that is -1."""
        new = columns < 0

        def chosen(values: Any, missing: float) -> Any:
            joined = np.concatenate([values, np.full((*values.shape[:-1], 1), missing, values.dtype)], axis=-1)
            return joined[..., np.where(new, values.shape[-1], columns)]

        return replace(
            self,
            value=chosen(self.value, np.nan),
            since_ns=chosen(self.since_ns, 0),
            parts=chosen(self.parts, np.nan),
            total=chosen(self.total, 0.0),
            count=chosen(self.count, 0.0),
        )

    def copy(self) -> History:
        """The same, which no later tick changes."""
        return replace(self, total=self.total.copy(), count=self.count.copy())

    def take(self, t_ns: int, values: Floats, state: int, grid: Grid) -> bool:
        """Take the values [Q] of one tick, NaN where there is none; whether a block has been closed by it."""
        part, closed = t_ns // grid.part_ns, False
        if part < self.part - grid.parts:
            self._forget()
        if part > self.part:
            closed = self._next_part(part, grid)
        if state != NO_STATE:
            if state != self.now:
                self.total[:], self.count[:], self.now = 0.0, 0.0, state
            known = np.isfinite(values)
            self.total[known] += values[known]
            self.count[known] += 1.0
        return closed

    def begin_anew(self, t_ns: int, which: NDArray[np.bool_] | None = None) -> None:
        """Know nothing of some quantities [Q], else of all, from before a time."""
        since = np.maximum(self.since_ns, t_ns)
        self.since_ns = since if which is None else np.where(which, since, self.since_ns)

    def known(self) -> Floats:
        """The values [N, Q], NaN from before a quantity began anew."""
        return np.where(self.t_ns[:, None] > self.since_ns, self.value, np.nan)

    def _next_part(self, part: int, grid: Grid) -> bool:
        """Close the part that runs, and with the last of a block the block."""
        closed = False
        if self.part >= 0:
            enough = self.count >= LEAST_SHARE * grid.ticks
            mean = np.where(enough, self.total / np.maximum(self.count, 1.0), np.nan)
            self.parts = np.concatenate([self.parts, mean[None]])
            self.part_state = np.append(self.part_state, self.now)
            if part // grid.parts > self.part // grid.parts:
                closed = self._close_block((self.part // grid.parts + 1) * grid.block_ns, grid)
        self.total[:], self.count[:], self.now, self.part = 0.0, 0.0, NO_STATE, part
        return closed

    def _close_block(self, end_ns: int, grid: Grid) -> bool:
        """One row more, of the state in which most of the block was, and the oldest away."""
        parts, states = self.parts, self.part_state
        self.parts, self.part_state = parts[:0], states[:0]
        counted = states[states != NO_STATE]
        if not len(counted):
            return False
        state = int(np.bincount(counted).argmax())
        rows = parts[states == state]
        enough = np.isfinite(rows).sum(0) >= LEAST_SHARE * grid.parts
        value = np.full(parts.shape[1], np.nan)
        if enough.any():
            value[enough] = np.nanmedian(rows[:, enough], axis=0)
        self.t_ns = np.append(self.t_ns, end_ns)[-KEPT_BLOCKS:]
        self.value = np.concatenate([self.value, value[None]])[-KEPT_BLOCKS:]
        self.state = np.append(self.state, state)[-KEPT_BLOCKS:]
        return True

    def _forget(self) -> None:
        """The clock was set back, or another recording begins: time goes one way."""
        fresh = History.empty(self.value.shape[1])
        self.t_ns, self.value, self.state, self.since_ns = fresh.t_ns, fresh.value, fresh.state, fresh.since_ns
        self.parts, self.part_state = fresh.parts, fresh.part_state
        self.part = -1
