"""Generic deterministic features of one point cloud: a height map about its own centre, rings, sectors, dust.

Knows nothing about what is scanned. The map spans the cloud's own horizontal extent in the plant frame, so the rings
follow the scene and not the sensor. Shape letters: P points, G grid side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features.quantiles import median, quantiles, row_quantiles

Array = NDArray[np.float64]

GRID = 24
RINGS = 8
SECTORS = 8
FEWEST_POINTS = 30
ISOLATED_M = 0.25  # further than this above its cell's median, a return is no surface

_EXTENT = np.array([0.02, 0.98])
_LEVELS = np.array([0.5, 0.1, 0.25, 0.75, 0.9])
_QUARTILES = np.array([0.25, 0.5, 0.75])
_RANGES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_BRIGHT = np.array([0.9])

_SCALARS = (
    *("level", "level_q10", "level_q25", "level_q75", "level_q90", "volume", "slope_x", "slope_y", "roughness"),
    *("extent_x", "extent_y", "range_q05", "range_q25", "range_q50", "range_q75", "range_q95", "log_returns"),
    *("near_fraction", "isolated_fraction", "intensity_mean", "intensity_std", "intensity_q90"),
)

_QUALITY = (
    *("range_q05", "range_q95", "log_returns", "near_fraction", "isolated_fraction"),
    *("intensity_mean", "intensity_std", "intensity_q90"),
)


class LidarStem:
    """Features of a cloud [P, 4] (x, y, z in m in the sensor frame, intensity) placed by ``pose``.

    ``pose`` is x, y, z [m], roll, pitch, yaw [rad]. Heights are in m in the plant frame; ring and sector heights are
    relative to the median of the map, so they say shape and not level.
    """

    def __init__(self, pose: tuple[float, ...] = ()) -> None:
        self._rotation, self._origin = _transform(pose or (0.0,) * 6)
        self.names: tuple[str, ...] = (
            *_SCALARS,
            *(f"ring_{i}" for i in range(RINGS)),
            *(f"ring_spread_{i}" for i in range(RINGS)),
            *(f"sector_{i}" for i in range(SECTORS)),
        )
        level = ("level", "volume")
        self.level_like: tuple[str, ...] = tuple(n for n in _SCALARS if n.startswith(level))
        self.health: tuple[str, ...] = ()
        self.quality: tuple[str, ...] = _QUALITY
        self.patch_shape: tuple[int, ...] = (2, GRID, GRID)
        radius, sector = _polar()
        self._inside = radius <= 1
        self._groups = _groups(radius, sector)

    def compute(self, value: NDArray[Any]) -> tuple[Array, NDArray[np.float16]] | None:
        """Features and patches (height minus median [m], occupancy); None where there are too few returns."""
        cloud = np.asarray(value, np.float64).reshape(-1, value.shape[-1] if value.ndim > 1 else 4)
        ranges = np.sqrt(np.einsum("pi,pi->p", cloud[:, :3], cloud[:, :3]))
        cloud, ranges = cloud[good := np.isfinite(ranges) & (ranges > 1e-3)], ranges[good]
        if len(cloud) < FEWEST_POINTS:
            return None
        points = self._rotation @ cloud[:, :3].T + self._origin[:, None]
        low, high = quantiles(np.sort(points[:2], axis=1), _EXTENT).T
        height, cell = _height_map(points, low, high)
        seen = np.isfinite(height)
        levels = quantiles(np.sort(height[seen]), _LEVELS)
        relative = height - levels[0]
        features = [
            self._heights(height, seen, levels, high - low),
            _returns(cloud, ranges, points[2], height.reshape(-1)[cell]),
            self._shape(relative),
        ]
        planes = np.stack([np.where(seen, relative, 0.0), seen])
        return np.concatenate(features), np.clip(planes, -100, 100).astype(np.float16)

    def _heights(self, height: Array, seen: NDArray[np.bool_], levels: Array, extent: Array) -> Array:
        slope = _slope(height, seen) * GRID / np.maximum(extent, 1e-3)
        around = (height[1:-1, :-2] + height[1:-1, 2:] + height[:-2, 1:-1] + height[2:, 1:-1]) / 4
        rough = np.abs(height[1:-1, 1:-1] - around)
        roughness = median(rough[np.isfinite(rough)])
        inner = height[seen & self._inside]
        volume = inner.mean() if len(inner) else levels[0]
        return np.array([*levels, volume, *slope, roughness, *extent])

    def _shape(self, relative: Array) -> Array:
        """Median and spread of each ring, median of each sector, relative to the level [m]; 0 where not seen."""
        # one sort for all of them: NaN, a cell not seen as well as the padding, goes to the end of its row
        ordered = np.sort(np.append(relative, np.nan)[self._groups], axis=1)
        low, middle, high = row_quantiles(ordered, _QUARTILES).T
        return np.concatenate([middle[:RINGS], high[:RINGS] - low[:RINGS], middle[RINGS:]])


def _returns(cloud: Array, ranges: Array, z: Array, surface: Array) -> Array:
    ordered = np.sort(ranges)
    ranged = quantiles(ordered, _RANGES)
    near = float(np.searchsorted(ordered, 0.3 * ranged[2])) / len(ordered)
    isolated = np.count_nonzero(z - surface > ISOLATED_M) / len(z)
    intensity = np.ascontiguousarray(cloud[:, 3]) if cloud.shape[1] > 3 else np.zeros(len(cloud))
    bright = quantiles(np.sort(intensity), _BRIGHT)
    return np.array([*ranged, np.log(len(cloud)), near, isolated, intensity.mean(), intensity.std(), *bright])


def _slope(height: Array, seen: NDArray[np.bool_]) -> Array:
    """Slope of the plane of least squares through the map along x and y, per cell."""
    (rows, columns), z = np.nonzero(seen), height[seen]
    x, y, above = columns - columns.mean(), rows - rows.mean(), z - z.mean()
    xx, xy, yy, xz, yz = x @ x, x @ y, y @ y, x @ above, y @ above
    determinant = xx * yy - xy**2
    if determinant <= 1e-9 * max(xx, yy) ** 2:  # all on one line: of the planes through it, that of least norm
        design = np.stack([np.ones(len(z)), columns - GRID / 2, rows - GRID / 2], 1)
        return np.asarray(np.linalg.lstsq(design, z, rcond=None)[0][1:])
    return np.array([(yy * xz - xy * yz) / determinant, (xx * yz - xy * xz) / determinant])


def _height_map(points: Array, low: Array, high: Array) -> tuple[Array, NDArray[np.intp]]:
    """Median height of the points [3, P] in each cell [G, G] (rows are y), NaN where none fell; each point's cell."""
    scaled = (points[:2] - low[:, None]) / np.maximum(high - low, 1e-6)[:, None] * GRID
    x, y = np.clip(scaled, 0, GRID - 1).astype(np.intp)
    cell, z = y * GRID + x, points[2]
    lowest = float(z.min())
    order = np.argsort(cell * (float(z.max()) - lowest + 1.0) + (z - lowest))
    counts = np.bincount(cell, minlength=GRID * GRID)
    starts = np.cumsum(counts) - counts
    z = z[order]
    below, above = starts + np.maximum(counts - 1, 0) // 2, starts + counts // 2
    last = len(z) - 1
    median = 0.5 * (z[np.minimum(below, last)] + z[np.minimum(above, last)])
    return np.where(counts > 0, median, np.nan).reshape(GRID, GRID), cell


def _polar() -> tuple[Array, NDArray[np.intp]]:
    at = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    y, x = np.meshgrid(at, at, indexing="ij")
    angle = np.arctan2(y, x) / (2 * np.pi) % 1.0
    return np.hypot(x, y), np.minimum((angle * SECTORS).astype(np.intp), SECTORS - 1)


def _groups(radius: Array, sector: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places of the cells of each ring, then of each sector, in the flat map [R, N], filled up with its length."""
    ring = np.minimum((radius * RINGS).astype(np.intp), RINGS)
    masks = [*(ring == i for i in range(RINGS)), *((sector == i) & (ring < RINGS) for i in range(SECTORS))]
    groups = np.full((len(masks), max(int(mask.sum()) for mask in masks)), GRID * GRID)
    for row, mask in zip(groups, masks, strict=True):
        row[: mask.sum()] = np.flatnonzero(mask)
    return groups


def _transform(pose: tuple[float, ...]) -> tuple[Array, Array]:
    """Rotation [3, 3] (yaw after pitch after roll) and origin [3] of a pose."""
    x, y, z, roll, pitch, yaw = pose
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x, np.array([x, y, z], np.float64)
