"""What is usual on this stream: an energy far out from its first tick on is judged by what it then is.

A plant is never quite the one of its training: a year later one pump is another. An energy that stands above its normal
upper quantile for most of the first ticks is divided by as much afterwards. It stays sensitive to what changes, and a
relation that no longer holds does not alarm for ever. What comes after the first ticks relieves nothing.
Shape letters: T ticks, E energies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.scaling import Bools, Floats

UPPER = 0.99  # quantile of an energy, on the first ticks and on normal runs
SETTLED_TICKS = 20  # averages begin at zero
FIRST_TICKS = 240  # long against the averages, short enough that few faults begin in them


@dataclass(slots=True)
class LocalCarry:
    """Energies [T, E] of the first ticks while they last, and the relief [E] that follows from them."""

    seen: Floats | None = None
    relief: Floats | None = None

    @property
    def relieved(self) -> Bools | None:
        """Which energies [E] are judged by what is usual here; None while the first ticks last."""
        settled = self.seen is not None and self.relief is not None and len(self.seen) >= FIRST_TICKS
        return self.relief > 1.0 if settled and self.relief is not None else None


@dataclass(frozen=True, slots=True)
class Local:
    """``upper`` [E] of normal runs; infinite for energies that are never relieved."""

    upper: Floats

    @classmethod
    def fit(cls, values: Floats, relieved: Bools) -> Local:
        """From energies [T, E] of normal runs and which of them may be relieved [E]."""
        known = np.isfinite(values)
        upper = [np.quantile(v[k], UPPER) if k.any() else np.inf for v, k in zip(values.T, known.T, strict=True)]
        return cls(np.where(relieved & (np.array(upper) > 0), upper, np.inf))

    def step(self, values: Floats, carry: LocalCarry) -> Floats:
        """Relieved energies [T, E] of consecutive ticks; updates ``carry``."""
        made = values.copy()
        seen = values[:0] if carry.seen is None else carry.seen
        for row in range(min(max(FIRST_TICKS - len(seen), 0), len(values))):
            seen = np.concatenate([seen, values[row : row + 1]])
            carry.relief = self._relief(seen[SETTLED_TICKS:])
            made[row] /= carry.relief
        first = len(seen) - (0 if carry.seen is None else len(carry.seen))
        carry.seen = seen
        if carry.relief is not None:
            made[first:] /= carry.relief
        return made

    def _relief(self, seen: Floats) -> Floats:
        """Ratio [E] of what is usual here to what is usual, at least one, where most ticks are above the usual."""
        if not len(seen):
            return np.ones(len(self.upper))
        known = np.nan_to_num(seen, nan=0.0)
        usual = np.quantile(known, UPPER, axis=0) / self.upper
        lasting = np.median(known, axis=0) > self.upper
        return np.where(lasting, np.maximum(usual, 1.0), 1.0)
