"""What is usual on this stream, where somebody says so: an energy is judged by the level that was accepted.

A plant is never quite the one of its training: a year later one pump is another. An energy is divided by how far its
level stands above its normal upper quantile once an operator has accepted that level as normal, or, on a stream that is
known to begin well, from its first ticks. It stays sensitive to what changes, and a relation that no longer holds does
not alarm for ever. Nothing is accepted by itself: a fault that stands when a stream begins is judged as ever.
Shape letters: T ticks, E energies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.scaling import Bools, Floats

UPPER = 0.99  # quantile of an energy, on accepted ticks and on normal runs
SETTLED_TICKS = 20  # averages begin at zero
FIRST_TICKS = 240  # long against the averages, short enough that few faults begin in them
ACCEPTED_TICKS = 60  # the last ticks, whose level is what an operator accepts


@dataclass(slots=True)
class LocalCarry:
    """The relief [E] that energies have been given, and their last ticks [<= ACCEPTED_TICKS, E].

    ``begins_well`` says that the first ticks of the stream are usual, whatever they are, None: as ``Local`` says;
    ``seen`` [T, E] are they.
    """

    begins_well: bool | None = None
    seen: Floats | None = None
    relief: Floats | None = None
    recent: Floats | None = None

    @property
    def relieved(self) -> Bools | None:
        """Which energies [E] are judged by what is usual here; None where none is."""
        settled = not self.begins_well or (self.seen is not None and len(self.seen) >= FIRST_TICKS)
        return self.relief > 1.0 if settled and self.relief is not None else None

    def beyond(self, raising: Bools) -> float:
        """How many times what is usual here lies above what was, at the median of the energies relieved; 1 without."""
        which = self.relieved
        found = np.ones(1) if which is None or self.relief is None else self.relief[which & raising[: len(which)]]
        return float(np.median(found)) if len(found) else 1.0


@dataclass(frozen=True, slots=True)
class Local:
    """``upper`` [E] of normal runs, infinite for energies that are never relieved; ``first`` [E] by the first ticks.

    ``begins_well`` says that streams of this plant do: runs that are labelled, and not where one begins.
    """

    upper: Floats
    first: Bools
    begins_well: bool = False

    @classmethod
    def fit(cls, values: Floats, accepted: Bools, first: Bools) -> Local:
        """From energies [T, E] of normal runs and which of them may be accepted, or relieved by the first ticks [E]."""
        known = np.isfinite(values)
        upper = [np.quantile(v[k], UPPER) if k.any() else np.inf for v, k in zip(values.T, known.T, strict=True)]
        return cls(np.where(accepted & (np.array(upper) > 0), upper, np.inf), first & accepted)

    def step(self, values: Floats, carry: LocalCarry) -> Floats:
        """Relieved energies [T, E] of consecutive ticks; updates ``carry``."""
        made = values.copy()
        if carry.begins_well is None:
            carry.begins_well = self.begins_well
        first = self._begin(made, carry) if carry.begins_well else 0
        if carry.relief is not None:
            made[first:] /= carry.relief
        recent = values[:0] if carry.recent is None else carry.recent
        carry.recent = np.concatenate([recent, values])[-ACCEPTED_TICKS:]
        return made

    def heard(self, which: Bools) -> Local:
        """Of some energies [E] alone."""
        return replace(self, upper=self.upper[which], first=self.first[which])

    def accept(self, which: Bools, carry: LocalCarry) -> None:
        """Take the level of the last ticks for the normal one of some energies [E]; updates ``carry``."""
        if carry.recent is not None and len(carry.recent):
            before = np.ones(len(self.upper)) if carry.relief is None else carry.relief
            high = np.quantile(np.nan_to_num(carry.recent), UPPER, axis=0)
            carry.relief = np.where(which, np.maximum(before, high / self.upper), before)

    def _begin(self, made: Floats, carry: LocalCarry) -> int:
        """Relieve the first ticks of a stream that begins well in ``made`` [T, E]; how many they are."""
        seen = made[:0] if carry.seen is None else carry.seen
        count = min(max(FIRST_TICKS - len(seen), 0), len(made))
        for row in range(count):
            seen = np.concatenate([seen, made[row : row + 1]])
            carry.relief = self._relief(seen[SETTLED_TICKS:])
            made[row] /= carry.relief
        carry.seen = seen
        return count

    def _relief(self, seen: Floats) -> Floats:
        """Ratio [E] of what is usual here to what is usual, at least one, where most ticks are above the usual."""
        if not len(seen):
            return np.ones(len(self.upper))
        known = np.nan_to_num(seen, nan=0.0)
        usual = np.quantile(known, UPPER, axis=0) / self.upper
        lasting = self.first & (np.median(known, axis=0) > self.upper)
        return np.where(lasting, np.maximum(usual, 1.0), 1.0)
