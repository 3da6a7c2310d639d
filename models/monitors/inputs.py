"""Inputs of the ridges between senses: the columns of each sense, and their averages, which begin anew once it is back.

Shape letters: T ticks, C columns, K inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusion.records import PROCESS
from models.averages import ewma
from models.monitors.piece import ACTION, Blocks
from models.scaling import Bools, Floats

INPUT_ALPHAS = (0.1, 0.02)  # averages among the inputs: one sense may lag behind another
RETURN_TICKS = 10  # after which the averages of a sense that is back may be relied on


@dataclass(slots=True)
class InputCarry:
    """What a stream leaves behind of the inputs: the sums [C] of each block at each speed, and their age.

    ``inside`` is for how many ticks a medium has been among them, zero where it is not.
    """

    sums: dict[tuple[str, float], Floats] = field(default_factory=dict)
    age: dict[str, int] = field(default_factory=dict)
    inside: dict[str, int] = field(default_factory=dict)


def inputs_of(
    made: Blocks, media: Sequence[str], components: Mapping[str, Floats], carry: InputCarry, inside: Mapping[str, Bools]
) -> tuple[Floats, dict[str, Bools]]:
    """Inputs [T, K], each block's columns and their averages, and which media [T] can be relied on among them.

    ``inside`` says which media [T] are to be among the inputs at all. Updates ``carry``.
    """
    parts, reliable = [], {}
    for name in (PROCESS, ACTION, *media):
        values = made.values[name] @ components[name] if name in components else made.values[name]
        since = _since(inside[name], carry.inside.get(name, 0)) if name in inside else np.full(len(made), len(made) + 1)
        parts += [values, *_averages(name, values, since == 1, carry)]
        if name in inside:
            reliable[name] = since > RETURN_TICKS
            carry.inside[name] = int(since[-1]) if len(since) else carry.inside.get(name, 0)
    return np.concatenate(parts, 1), reliable


def _since(inside: Bools, before: int) -> NDArray[np.int64]:
    """For how many ticks [T] a medium has been inside, this one included; zero where it is not."""
    rows = np.arange(len(inside))
    left = np.maximum.accumulate(np.where(inside, -1, rows))
    return np.where(inside, np.where(left >= 0, rows - left, before + rows + 1), 0)


def _averages(name: str, values: Floats, begins: Bools, carry: InputCarry) -> list[Floats]:
    """Averages [T, C] at each speed, first in equal parts; they begin anew where ``begins`` [T]. Updates ``carry``."""
    made: list[list[Floats]] = [[] for _ in INPUT_ALPHAS]
    edges = [0, *(int(row) for row in np.flatnonzero(begins) if row), len(values)]
    for first, end in itertools.pairwise(edges):
        part = values[first:end]
        age = 0 if first in edges[1:-1] or (len(begins) and begins[first]) else carry.age.get(name, 0)
        for i, alpha in enumerate(INPUT_ALPHAS):
            start = carry.sums.get((name, alpha)) if age else None
            total, carry.sums[name, alpha] = ewma(part, alpha, np.zeros(values.shape[1]) if start is None else start)
            made[i].append(total / (1.0 - (1.0 - alpha) ** (age + 1 + np.arange(len(part))))[:, None])
        carry.age[name] = age + len(part)
    return [np.concatenate(parts) for parts in made]
