"""Patches of one medium cut into cells, and what each cell shows: local, generic, deterministic.

A cell of a picture is a square of it, of a sound a group of neighbouring bands, of a height map a square seen from
above. Shape letters: T ticks, N cells, K features of a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality

Array = NDArray[np.float64]
Planes = NDArray[np.float32]

GRAIN, STILL = 0.01, 0.005  # of light and of its change: below the noise of a camera; keep logarithms finite
SIDES = 12  # cells along either side of a picture or a map
BANDS = 32  # groups of bands


@dataclass(frozen=True, slots=True)
class Cut:
    """How patches [T, ...] of a modality become features [T, N, K], and the family of energies that comes of them.

    ``rows`` and ``columns`` are the cells along each axis: N is their product, row by row. ``names`` [K] say what is
    seen in a cell.
    """

    family: str
    rows: int
    columns: int
    names: tuple[str, ...]
    features: Callable[[Planes], Array]

    @property
    def cells(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    def around(self, cell: int) -> NDArray[np.int64]:
        """The cell itself and those that touch it."""
        row, column = divmod(cell, self.columns)
        rows = range(max(row - 1, 0), min(row + 2, self.rows))
        columns = range(max(column - 1, 0), min(column + 2, self.columns))
        return np.array([r * self.columns + c for r in rows for c in columns], np.int64)

    def where(self, cell: int, feature: int) -> str:
        """The words on the wire for a feature of a cell."""
        row, column = divmod(cell, self.columns)
        of = f"row {row} column {column}" if self.rows > 1 else f"band {column}"
        return f"cell {of} {self.names[feature]}"


def _video(planes: Planes) -> Array:
    light, change = planes[:, 0], planes[:, 1]
    along = [
        np.abs(np.diff(light, axis=axis, prepend=light[:, :, :1] if axis == 2 else light[:, :1])) for axis in (2, 1)
    ]
    mean, spread = _mean_and_spread(light, SIDES)
    moved, uneven = _mean_and_spread(change, SIDES)
    edges = [_squares(a, SIDES).mean(-1) for a in along]
    logs = [np.log(spread + GRAIN), *edges, np.log(moved + STILL), np.log(uneven + STILL)]
    return np.stack([mean, *logs], -1).astype(np.float64)


def _audio(planes: Planes) -> Array:
    ticks, _, bands, frames = planes.shape
    level = planes[:, 0].reshape(ticks, BANDS, bands // BANDS, frames).mean(2)
    mean = level.mean(2)
    return np.stack([mean, level.std(2), level.max(2) - mean], -1).astype(np.float64)


def _lidar(planes: Planes) -> Array:
    height, seen = _squares(planes[:, 0], SIDES), _squares(planes[:, 1], SIDES)
    count = np.maximum(seen.sum(-1), 1.0)
    mean = (height * seen).sum(-1) / count
    spread = np.sqrt((((height - mean[..., None]) ** 2) * seen).sum(-1) / count)
    return np.stack([mean, spread, seen.mean(-1)], -1).astype(np.float64)


CUTS: Mapping[Modality, Cut] = {
    Modality.VIDEO: Cut(
        "cell", SIDES, SIDES, ("light", "contrast", "edges across", "edges along", "change", "change spread"), _video
    ),
    Modality.AUDIO: Cut("band", 1, BANDS, ("level", "unsteadiness", "peak"), _audio),
    Modality.LIDAR: Cut("spot", SIDES, SIDES, ("height", "roughness", "returns"), _lidar),
}


def _squares(planes: Planes, sides: int) -> Planes:
    """The pixels of each square [T, N, P] of planes [T, H, W], row by row."""
    ticks, height, width = planes.shape
    high, wide = height // sides, width // sides
    cut = planes[:, : sides * high, : sides * wide].reshape(ticks, sides, high, sides, wide)
    return np.ascontiguousarray(cut.transpose(0, 1, 3, 2, 4)).reshape(ticks, sides * sides, high * wide)


def _mean_and_spread(planes: Planes, sides: int) -> tuple[Planes, Planes]:
    squares = _squares(planes, sides)
    return squares.mean(-1), squares.std(-1)
