"""What the joint past of all modalities never needed to tell the future: the discarded canonical variates.

Normal plants leave these directions alone; many faults do not. Judged only where every medium is present.
Shape letters: T ticks, P joint past features, V variates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fusion.records import Energy, Origin
from models.actions import recorded_summary
from models.averages import ewma
from models.linear.regression import canonical_directions
from models.monitors.crossmodal import CrossModal
from models.monitors.distance import T2, Distance
from models.monitors.piece import Blocks, Piece
from models.monitors.residual import WARM_UP_TICKS, Residual
from models.scaling import Bools, Floats

COMPONENTS = 12  # of each medium, the largest
PAST_ALPHAS = (0.3, 0.05, 0.01)  # of the past of a medium, fewer than of the tags
TAG_FUTURE, MEDIA_FUTURE, KNOWN = (1, 2, 4, 8, 16, 32, 64), (1, 8, 32, 64), (8, 32)  # ticks ahead; known: of actions
KEPT, VARIATES = 32, 120  # those that tell the future, and the last whose spread is still well known
PENALTY = 1e-2  # relative to the data, as across the senses
ALPHAS = (0.1, 0.02)  # fast and slow, as residuals elsewhere
WHOLE = 0.95  # share of ticks with every medium that makes a run worth learning from


@dataclass(slots=True)
class JointCarry:
    """Running averages of media components and of variates."""

    inputs: dict[tuple[str, float], Floats] = field(default_factory=dict)
    outputs: dict[float, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joint:
    """Discarded directions [P, V] of the joint past and the normal spread of their averages by speed.

    ``components`` [F, n] reduce each medium.
    """

    energies: tuple[Energy, ...]
    components: Mapping[str, Floats]
    directions: Floats
    distances: Mapping[float, Distance]

    @classmethod
    def fit(cls, cross: CrossModal, runs: Sequence[Piece], step_s: float) -> Joint | None:
        """From normal runs with nearly all media all the time; None where there are no media or too few rows."""
        components = {m: cross.components[m][:, :COMPONENTS] for m in cross.media}
        whole = [p for p in runs if cross.media and _present(p.blocks, cross.media)[WARM_UP_TICKS:].mean() > WHOLE]
        rows = sum(len(p) - WARM_UP_TICKS - max(TAG_FUTURE) for p in whole)
        features = [_features(components, p, JointCarry()) for p in whole]
        if not whole or rows < 3 * features[0].shape[1]:
            return None
        directions = _directions(components, features, whole, step_s)[:, KEPT:VARIATES]
        distances = {}
        for alpha in ALPHAS:
            smooth = [ewma(f @ directions, alpha, np.zeros(directions.shape[1]))[0][WARM_UP_TICKS:] for f in features]
            distances[alpha] = Distance.fit(np.concatenate(smooth), np.full(directions.shape[1], -1, np.int64))
        records = [Energy(name=f"joint.{a}", origin=Origin.AHEAD, family="joint", speed=a) for a in ALPHAS]
        return cls(tuple(records), components, directions, distances)

    def widened(self, wider: Mapping[int, Distance]) -> Joint:
        """With other distances in the place of those with these identities."""
        return replace(self, distances={key: wider.get(id(d), d) for key, d in self.distances.items()})

    def begin(self) -> JointCarry:
        """The carry at the start of a stream."""
        return JointCarry()

    def step(self, piece: Piece, carry: JointCarry) -> list[Residual]:
        """Averages of the variates and their distance; updates ``carry``."""
        variates = _features(self.components, piece, carry) @ self.directions
        rows = np.flatnonzero(_present(piece.blocks, tuple(self.components)))
        found = []
        for energy in self.energies:
            start = carry.outputs.get(energy.speed, np.zeros(variates.shape[1]))
            smooth, carry.outputs[energy.speed] = ewma(variates, energy.speed, start)
            judges = ((rows, self.distances[energy.speed]),) if len(rows) else ()
            found.append(Residual(energy, T2(smooth, judges)))
        return found

    def recover(self, carry: JointCarry) -> None:
        """Forget the averages."""
        carry.outputs = {}


def _present(made: Blocks, media: Sequence[str]) -> Bools:
    return np.asarray(np.logical_and.reduce([made.present[m] for m in media], axis=0))


def _media(components: Mapping[str, Floats], made: Blocks) -> dict[str, Floats]:
    return {m: made.values[m] @ reduce for m, reduce in components.items()}


def _features(components: Mapping[str, Floats], piece: Piece, carry: JointCarry) -> Floats:
    """The core's past and each medium's components with their differences from their averages [T, P]."""
    parts = [piece.encoding.past]
    for medium, values in _media(components, piece.blocks).items():
        parts.append(values)
        for alpha in PAST_ALPHAS:
            smooth, carry.inputs[medium, alpha] = ewma(values, alpha, carry.inputs.get((medium, alpha)))
            parts.append(smooth - values)
    return np.concatenate(parts, 1)


def _directions(
    components: Mapping[str, Floats], features: Sequence[Floats], runs: Sequence[Piece], step_s: float
) -> Floats:
    past, future, known = [], [], []
    for made, piece in zip(features, runs, strict=True):
        media = np.concatenate(list(_media(components, piece.blocks).values()), 1)[WARM_UP_TICKS:]
        tags, action = piece.encoding.tags[WARM_UP_TICKS:], piece.encoding.action[WARM_UP_TICKS:]
        rows = len(tags) - max(TAG_FUTURE)
        past.append(made[WARM_UP_TICKS : WARM_UP_TICKS + rows])
        ahead = [tags[k : k + rows] - tags[:rows] for k in TAG_FUTURE]
        ahead += [media[k : k + rows] - media[:rows] for k in MEDIA_FUTURE]
        future.append(np.concatenate(ahead, 1))
        known.append(np.concatenate([recorded_summary(action, k, step_s)[:rows] for k in KNOWN], 1))
    return canonical_directions(np.concatenate(past), np.concatenate(future), np.concatenate(known), PENALTY)[0]
