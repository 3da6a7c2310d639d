"""All tags of this tick and the last at once: what is together that never was, whatever each tag does by itself.

Needs no memory, so that a few hundred normal ticks are enough to fit it. Two distances: a tight one sees the smallest
break of a relation that always held, a loose one goes on where such relations are a little different today.
Shape letters: T ticks, S tags, C columns, G signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.averages import ewma
from models.linear.core import Encoding
from models.monitors.distance import SHRINKAGE, Distance
from models.scaling import Floats

KINDS = {"tight": 1e-3, "loose": SHRINKAGE}
NAMES = tuple(f"lagged.{kind}" for kind in KINDS)
ALPHA = 0.3  # of the average of the energy itself
LIMIT = 30.0  # scaled units beyond which a value says only that it is far out


@dataclass(slots=True)
class LaggedCarry:
    """The tags of the last tick [S], and the running average of each energy."""

    last: Floats | None = None
    means: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lagged:
    """The distances of [tags now, tags before] by kind."""

    distances: Mapping[str, Distance]

    @classmethod
    def fit(cls, encodings: Sequence[Encoding], warm_up: int) -> Lagged:
        """From encodings of normal runs."""
        rows = np.concatenate([_lagged(encoding.tags, LaggedCarry())[warm_up:] for encoding in encodings])
        group = np.tile(np.arange(rows.shape[1] // 2), 2)
        return cls({kind: Distance.fit(rows, group, shrinkage) for kind, shrinkage in KINDS.items()})

    def step(
        self, encoding: Encoding, groups: int, carry: LaggedCarry, *, explain: bool
    ) -> dict[str, tuple[Floats, Floats]]:
        """By energy name: the averaged energy [T, 1] and, where asked for, shares [T, G]; updates ``carry``."""
        rows = _lagged(encoding.tags, carry)
        made = {}
        for name, distance in zip(NAMES, self.distances.values(), strict=True):
            energy = distance.energy(rows)[:, None]
            smooth, carry.means[name] = ewma(energy, ALPHA, carry.means.get(name, np.ones(1)))
            share = distance.contributions(rows, groups) if explain else np.zeros((len(rows), groups))
            made[name] = (smooth, share)
        return made


def _lagged(tags: Floats, carry: LaggedCarry) -> Floats:
    """Clipped tags beside those of the tick before [T, 2 S]; updates ``carry``."""
    now = np.clip(tags, -LIMIT, LIMIT)
    start = now[:1] if carry.last is None else carry.last[None]
    before = np.concatenate([start, now[:-1]])
    carry.last = now[-1] if len(now) else carry.last
    return np.concatenate([now, before], 1)
