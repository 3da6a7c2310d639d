"""What the joint past of all modalities never needed to tell the future: the discarded canonical variates.

Normal plants leave these directions alone; many faults do not. Judged only where every medium is present.
Shape letters: T ticks, P joint past features, V variates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.actions import recorded_summary
from models.averages import ewma
from models.linear.core import Encoding
from models.linear.regression import canonical_directions
from models.monitors.crossmodal import Blocks, CrossModal
from models.monitors.distance import Distance, Judged
from models.scaling import Bools, Floats

COMPONENTS = 12  # of each medium, the largest
PAST_ALPHAS = (0.3, 0.05, 0.01)
TAG_FUTURE, MEDIA_FUTURE, KNOWN = (1, 2, 4, 8, 16, 32, 64), (1, 8, 32, 64), (8, 32)
KEPT, VARIATES = 32, 120
PENALTY = 1e-2
ALPHAS = (0.1, 0.02)
WHOLE = 0.95  # share of ticks with every medium that makes a run worth learning from
NAMES = tuple(f"joint.{alpha}" for alpha in ALPHAS)


@dataclass(slots=True)
class JointCarry:
    """Running averages of media components and of variates."""

    inputs: dict[tuple[str, float], Floats] = field(default_factory=dict)
    outputs: dict[float, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joint:
    """Discarded directions [P, V] of the joint past and the normal spread of their averages."""

    directions: Floats
    distances: Mapping[float, Distance]

    @classmethod
    def fit(
        cls, cross: CrossModal, runs: Sequence[tuple[Encoding, Blocks]], step_s: float, warm_up: int
    ) -> Joint | None:
        """From normal runs with nearly all media all the time; None where there are no media or too few rows."""
        whole = [(e, b) for e, b in runs if cross.media and _present(b, cross.media)[warm_up:].mean() > WHOLE]
        rows = sum(len(b) - warm_up - max(TAG_FUTURE) for _, b in whole)
        features = [_features(cross, e, b, JointCarry()) for e, b in whole]
        if not whole or rows < 3 * features[0].shape[1]:
            return None
        directions = _directions(cross, features, whole, step_s, warm_up)[:, KEPT:VARIATES]
        distances = {}
        for alpha in ALPHAS:
            smooth = [ewma(f @ directions, alpha, np.zeros(directions.shape[1]))[0][warm_up:] for f in features]
            distances[alpha] = Distance.fit(np.concatenate(smooth), np.full(directions.shape[1], -1, np.int64))
        return cls(directions, distances)

    def step(self, cross: CrossModal, encoding: Encoding, made: Blocks, carry: JointCarry) -> dict[str, Judged]:
        """Averages of the variates and their judge, by energy name; updates ``carry``."""
        variates = _features(cross, encoding, made, carry) @ self.directions
        rows = np.flatnonzero(_present(made, cross.media))
        found = {}
        for name, alpha in zip(NAMES, ALPHAS, strict=True):
            start = carry.outputs.get(alpha, np.zeros(variates.shape[1]))
            smooth, carry.outputs[alpha] = ewma(variates, alpha, start)
            found[name] = Judged(smooth, ((rows, self.distances[alpha]),) if len(rows) else ())
        return found


def _present(made: Blocks, media: Sequence[str]) -> Bools:
    return np.asarray(np.logical_and.reduce([made.present[m] for m in media], axis=0))


def _media(cross: CrossModal, made: Blocks) -> dict[str, Floats]:
    return {m: made.values[m] @ cross.components[m][:, :COMPONENTS] for m in cross.media}


def _features(cross: CrossModal, encoding: Encoding, made: Blocks, carry: JointCarry) -> Floats:
    """The core's past and each medium's components with their differences from their averages [T, P]."""
    parts = [encoding.past]
    for medium, values in _media(cross, made).items():
        parts.append(values)
        for alpha in PAST_ALPHAS:
            smooth, carry.inputs[medium, alpha] = ewma(values, alpha, carry.inputs.get((medium, alpha)))
            parts.append(smooth - values)
    return np.concatenate(parts, 1)


def _directions(
    cross: CrossModal,
    features: Sequence[Floats],
    runs: Sequence[tuple[Encoding, Blocks]],
    step_s: float,
    warm_up: int,
) -> Floats:
    past, future, known = [], [], []
    for made, (encoding, block) in zip(features, runs, strict=True):
        media = np.concatenate(list(_media(cross, block).values()), 1)[warm_up:]
        tags, action = encoding.tags[warm_up:], encoding.action[warm_up:]
        rows = len(tags) - max(TAG_FUTURE)
        past.append(made[warm_up : warm_up + rows])
        ahead = [tags[k : k + rows] - tags[:rows] for k in TAG_FUTURE]
        ahead += [media[k : k + rows] - media[:rows] for k in MEDIA_FUTURE]
        future.append(np.concatenate(ahead, 1))
        known.append(np.concatenate([recorded_summary(action, k, step_s)[:rows] for k in KNOWN], 1))
    return canonical_directions(np.concatenate(past), np.concatenate(future), np.concatenate(known), PENALTY)[0]
