"""A piece of a stream as every residual generator reads it: ticks, the core's encoding, columns of each modality.

Shape letters: T ticks, C columns, S tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusion.records import PROCESS
from models.linear.core import Encoding
from models.scaling import Bools, Floats, Scaling
from models.ticks import Ticks

ACTION = "action"
CLIP = 8.0  # scaled units: one wild feature must not drown the others


@dataclass(frozen=True, slots=True)
class Blocks:
    """The columns of each modality [T, C], whether a medium is present [T] and which tags are observed [T, S]."""

    values: Mapping[str, Floats]
    present: Mapping[str, Bools]
    observed: Bools

    def __len__(self) -> int:
        return len(self.values[PROCESS])


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive ticks and what was made of them once; ``learns`` is whether they may be like what is usual."""

    ticks: Ticks
    encoding: Encoding
    blocks: Blocks
    learns: bool = True

    def __len__(self) -> int:
        return len(self.ticks)


def piece(
    ticks: Ticks, encoding: Encoding, scaling: Scaling, present: Mapping[str, Bools], carry: dict[str, Floats]
) -> Piece:
    """Scaled, clipped features of the media in ``present`` beside scaled tags and actions, held where absent.

    Updates ``carry``.
    """
    values = {PROCESS: encoding.tags, ACTION: encoding.action}
    for name, there in present.items():
        start = carry.get(name, np.zeros(len(scaling.media[name].centre)))
        given = ticks.media.get(name, np.zeros((len(ticks), len(start))))
        values[name] = held(np.clip(scaling.media[name].scaled(given), -CLIP, CLIP), there, start)
        carry[name] = values[name][-1]
    return Piece(ticks, encoding, Blocks(values, present, ticks.observed))


def held(values: Floats, there: Bools, start: Floats) -> Floats:
    """The last row [C] of values [T, C] that was there [T], at each tick; ``start`` before the first."""
    last = np.maximum.accumulate(np.where(there, np.arange(1, len(values) + 1), 0))
    return np.asarray(np.concatenate([start[None], values])[last])
