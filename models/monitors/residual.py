"""Residual generation and evaluation: what every monitor makes of a piece of a stream, and how it becomes an energy.

A generator keeps the records of its energies and makes a residual for each, and for no other: to hear less is to hold
fewer records. A residual is a chart of averaged columns, which gives one number a tick, the signals to blame, and
whether an instrument is at fault. Shape letters: T ticks, C columns, G signals, S tags.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from fusion.plant import Plant
from fusion.records import Energy
from models.monitors.piece import Piece
from models.scaling import Bools, Floats

WARM_UP_TICKS = 120  # of a stream, in which averages settle and nothing is judged or learned
RIVAL = 0.9  # share of the best instrument's part from which a machine explains the residuals as well
Instrument = Callable[[Floats, Bools], Floats]
"""From shares [T, G] and suspected tags [T, S]: how far [T] an instrument is at fault and not the plant, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Speed:
    """A running average: the weight of the newest tick, and whether the long mean is taken off first."""

    label: str
    alpha: float
    relative: bool = False


SHIFT = Speed("shift", 0.05, relative=True)
SPEEDS = (Speed("0.1", 0.1), Speed("0.02", 0.02), SHIFT)
"""Fast, slow, and what changed, whatever the level; the weight of the newest tick tells them apart."""


class Chart(Protocol):
    """Averaged residuals and what judges them."""

    def energy(self) -> Floats:
        """One number a tick [T]; NaN where there is no judge."""

    def contributions(self, groups: int) -> Floats:
        """The share [T, G] of the energy that vanishes if a signal is ignored."""


@dataclass(frozen=True, slots=True)
class Largest:
    """Columns [T, C] over their own limits, of which the largest counts; ``blame`` gives the shares [T, G]."""

    values: Floats
    blame: Callable[[], Floats]

    def energy(self) -> Floats:
        """Size [T] of the largest column; NaN where any is."""
        return np.asarray(np.abs(self.values).max(1, initial=0.0))

    def contributions(self, groups: int) -> Floats:
        """Shares [T, G] as they were found."""
        return self.blame()


@dataclass(frozen=True, slots=True)
class Residual:
    """An energy at each tick of a piece; without ``instrument`` it does not say who is at fault."""

    energy: Energy
    chart: Chart
    instrument: Instrument | None = None


class Generator(Protocol):
    """One way to generate residuals, fitted on normal runs."""

    @property
    def energies(self) -> tuple[Energy, ...]:
        """What is heard of it, in the order of its residuals."""

    def begin(self) -> Any:
        """The carry at the start of a stream."""

    def step(self, piece: Piece, carry: Any) -> list[Residual]:
        """The residuals of consecutive ticks, one for each energy; updates ``carry``."""

    def recover(self, carry: Any) -> None:
        """Forget what a fault that is over has left."""


G = TypeVar("G", bound=Generator)


def hearing(generator: G, names: Collection[str]) -> G:
    """The generator that makes the residuals of these energies only."""
    kept = tuple(energy for energy in generator.energies if energy.name in names)
    return replace(generator, energies=kept)  # type: ignore[type-var]


def alone(plant: Plant) -> Instrument:
    """The best single instrument's share, of suspected tags; zero where a machine explains it nearly as well."""
    machine = np.array([tag.machine for tag in plant.tags], bool)

    def told(shares: Floats, suspects: Bools) -> Floats:
        share = np.where(suspects, shares[:, : suspects.shape[1]], 0.0)
        best = np.where(machine, 0.0, share).max(1, initial=0.0)
        rival = np.where(machine, share, 0.0).max(1, initial=0.0)
        return np.where(rival >= RIVAL * best, 0.0, best)

    return told


def signals_of(plant: Plant) -> tuple[str, ...]:
    """The signals that can be blamed: tags, then media, then actions."""
    return tuple(s.name for s in (*plant.tags, *plant.media, *plant.actions))
