"""Generic deterministic features of one point cloud: a height map about its own centre, rings, sectors, dust.

Knows nothing about what is scanned. The map spans the cloud's own horizontal extent in the plant frame, so the rings
follow the scene and not the sensor. Shape letters: P points, G grid side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GRID = 24
RINGS = 8
SECTORS = 8
FEWEST_POINTS = 30
ISOLATED_M = 0.25  # further than this above its cell's median, a return is no surface

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
        self._radius, self._sector = _polar()

    def compute(self, value: NDArray[Any]) -> tuple[Array, NDArray[np.float16]] | None:
        """Features and patches (height minus median [m], occupancy); None where there are too few returns."""
        cloud = np.asarray(value, np.float64).reshape(-1, value.shape[-1] if value.ndim > 1 else 4)
        ranges = np.sqrt((cloud[:, :3] ** 2).sum(1))
        cloud, ranges = cloud[good := np.isfinite(ranges) & (ranges > 1e-3)], ranges[good]
        if len(cloud) < FEWEST_POINTS:
            return None
        points = cloud[:, :3] @ self._rotation.T + self._origin
        low, high = np.percentile(points[:, :2], [2, 98], axis=0)
        height, cell = _height_map(points, low, high)
        level = float(np.nanmedian(height))
        features = [
            self._heights(height, level, high - low),
            _returns(cloud, ranges, points[:, 2], height.reshape(-1)[cell]),
            self._shape(height - level),
        ]
        planes = np.stack([np.nan_to_num(height - level), np.isfinite(height).astype(float)])
        return np.concatenate(features), np.clip(planes, -100, 100).astype(np.float16)

    def _heights(self, height: Array, level: float, extent: Array) -> Array:
        seen = np.isfinite(height)
        quantiles = np.percentile(height[seen], [10, 25, 75, 90])
        y, x = np.indices(height.shape)[:, seen]
        design = np.stack([np.ones(len(x)), x - GRID / 2, y - GRID / 2], 1)
        slope = np.linalg.lstsq(design, height[seen], rcond=None)[0][1:] * GRID / np.maximum(extent, 1e-3)
        around = np.stack([height[1:-1, :-2], height[1:-1, 2:], height[:-2, 1:-1], height[2:, 1:-1]]).mean(0)
        rough = np.abs(height[1:-1, 1:-1] - around)
        rough = rough[np.isfinite(rough)]
        roughness = float(np.median(rough)) if len(rough) else 0.0
        inner = height[seen & (self._radius <= 1)]
        volume = float(inner.mean()) if len(inner) else level
        return np.array([level, *quantiles, volume, *slope, roughness, *extent])

    def _shape(self, relative: Array) -> Array:
        """Median and spread of each ring, median of each sector, relative to the level [m]; 0 where not seen."""
        ring = np.minimum((self._radius * RINGS).astype(int), RINGS)
        rings = [_seen(relative[ring == i]) for i in range(RINGS)]
        sectors = [_seen(relative[(self._sector == i) & (ring < RINGS)]) for i in range(SECTORS)]
        medians = [float(np.median(v)) if len(v) else 0.0 for v in rings]
        spreads = [float(np.percentile(v, 75) - np.percentile(v, 25)) if len(v) else 0.0 for v in rings]
        return np.array([*medians, *spreads, *(float(np.median(v)) if len(v) else 0.0 for v in sectors)])


def _seen(values: Array) -> Array:
    return values[np.isfinite(values)]


def _returns(cloud: Array, ranges: Array, z: Array, surface: Array) -> Array:
    quantiles = np.percentile(ranges, [5, 25, 50, 75, 95])
    near = float((ranges < 0.3 * quantiles[2]).mean())
    isolated = float((z - surface > ISOLATED_M).mean())
    intensity = cloud[:, 3] if cloud.shape[1] > 3 else np.zeros(len(cloud))
    strength = (float(intensity.mean()), float(intensity.std()), float(np.percentile(intensity, 90)))
    return np.array([*quantiles, np.log(len(cloud)), near, isolated, *strength])


def _height_map(points: Array, low: Array, high: Array) -> tuple[Array, NDArray[np.intp]]:
    """Median height of the points in each cell [G, G] (rows are y), NaN where none fell; and each point's cell."""
    scaled = (points[:, :2] - low) / np.maximum(high - low, 1e-6) * GRID
    x, y = np.clip(scaled, 0, GRID - 1).astype(np.intp).T
    cell = y * GRID + x
    spread = float(np.ptp(points[:, 2])) + 1.0
    order = np.argsort(cell * spread + (points[:, 2] - points[:, 2].min()))
    counts = np.bincount(cell, minlength=GRID * GRID)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    z = points[order, 2]
    below, above = starts + np.maximum(counts - 1, 0) // 2, starts + counts // 2
    last = len(z) - 1
    median = 0.5 * (z[np.minimum(below, last)] + z[np.minimum(above, last)])
    return np.where(counts > 0, median, np.nan).reshape(GRID, GRID), cell


def _polar() -> tuple[Array, NDArray[np.intp]]:
    at = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    y, x = np.meshgrid(at, at, indexing="ij")
    angle = np.arctan2(y, x) / (2 * np.pi) % 1.0
    return np.hypot(x, y), np.minimum((angle * SECTORS).astype(np.intp), SECTORS - 1)


def _transform(pose: tuple[float, ...]) -> tuple[Array, Array]:
    """Rotation [3, 3] (yaw after pitch after roll) and origin [3] of a pose."""
    x, y, z, roll, pitch, yaw = pose
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x, np.array([x, y, z], np.float64)
