"""All tags of this tick and the last at once: what is together that never was, whatever each tag does by itself.

Needs no memory, so that a few hundred normal ticks are enough to fit it. Two distances: a tight one sees the smallest
break of a relation that always held, a loose one goes on where such relations are a little different today.
Shape letters: T ticks, S tags, C columns, G signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fusion.plant import Plant
from fusion.records import Energy, Origin
from models.averages import ewma
from models.linear.core import Encoding
from models.monitors.distance import SHRINKAGE, Distance
from models.monitors.piece import Piece
from models.monitors.residual import WARM_UP_TICKS, Largest, Residual, signals_of
from models.scaling import Bools, Floats

SHRINKAGES = {"lagged.tight": 1e-3, "lagged.loose": SHRINKAGE}
ALPHA = 0.3  # of the average of the energy itself
RARE, MOST = 0.01, 0.5  # a tag jumps where the largest moves, at so few ticks, are most of all its squared moves
LIMIT = 30.0  # scaled units beyond which a value says only that it is far out


@dataclass(slots=True)
class LaggedCarry:
    """The tags of the last tick [S], and the running average of each energy."""

    last: Floats | None = None
    means: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lagged:
    """The distances of [tags now, tags before] by energy name.

    A tag that ``jumps`` [S], a laboratory's, a switch or a counter that wraps, is judged now alone: how far it goes
    when it does has no normal spread.
    """

    energies: tuple[Energy, ...]
    plant: Plant
    distances: Mapping[str, Distance]
    jumps: Bools

    @classmethod
    def fit(cls, encodings: Sequence[Encoding], plant: Plant) -> Lagged:
        """From encodings of normal runs."""
        jumps = _jumps(np.concatenate([np.diff(encoding.tags, axis=0) for encoding in encodings]))
        rows = np.concatenate([_lagged(e.tags, LaggedCarry(), jumps)[WARM_UP_TICKS:] for e in encodings])
        group = np.tile(np.arange(rows.shape[1] // 2), 2)
        made = {name: Distance.fit(rows, group, shrinkage) for name, shrinkage in SHRINKAGES.items()}
        records = [Energy(name=name, origin=Origin.BESIDE, family="lagged", speed=ALPHA) for name in made]
        return cls(tuple(records), plant, made, jumps)

    def begin(self) -> LaggedCarry:
        """The carry at the start of a stream."""
        return LaggedCarry()

    def step(self, piece: Piece, carry: LaggedCarry) -> list[Residual]:
        """Energies averaged after the distance, not before; updates ``carry``."""
        rows = _lagged(piece.encoding.tags, carry, self.jumps)
        groups, found = len(signals_of(self.plant)), []
        for energy in self.energies:
            distance = self.distances[energy.name]
            start = carry.means.get(energy.name, np.ones(1))
            smooth, carry.means[energy.name] = ewma(distance.energy(rows)[:, None], ALPHA, start)
            found.append(Residual(energy, Largest(smooth, partial(distance.contributions, rows, groups))))
        return found

    def recover(self, carry: LaggedCarry) -> None:
        """Forget the averages, which remember three ticks."""
        carry.means = {}


def _lagged(tags: Floats, carry: LaggedCarry, jumps: Bools) -> Floats:
    """Clipped tags beside those of the tick before [T, 2 S], zero where a tag jumps; updates ``carry``."""
    now = np.clip(tags, -LIMIT, LIMIT)
    start = now[:1] if carry.last is None else carry.last[None]
    before = np.concatenate([start, now[:-1]])
    carry.last = now[-1] if len(now) else carry.last
    return np.concatenate([now, np.where(jumps, 0.0, before)], 1)


def _jumps(moves: Floats) -> Bools:
    """Which tags move [T, S] mostly by rare jumps."""
    squares = np.sort(moves**2, axis=0)[::-1]
    total = squares.sum(axis=0)
    return np.asarray(squares[: round(RARE * len(moves))].sum(axis=0) > MOST * total)
