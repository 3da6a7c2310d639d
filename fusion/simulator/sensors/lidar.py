"""The LiDAR over the silo: 16 beams on a spinning head, cast on the surface and the wall, with a VLP-16's quantum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from fusion.simulator.line.silo import CELLS, RADIUS_M, Silo
from fusion.simulator.noise import keyed
from fusion.simulator.servers.vlp16 import ELEVATION_DEG, FIRINGS, QUANTUM_M, RING_M, SKEW_DEG

CRUST_M, CRUST_WIDTH_M = 0.5, 0.2  # on the wall, at full severity


class Lidar:
    """Scans in the frame in which decoders deliver them: x along azimuth zero, y to the left, z up; ``pose`` places it.

    The channels of a firing fire one after another while the head turns (``SKEW_DEG``), from a ring about the axis
    (``RING_M``).
    """

    def __init__(self, seed: int, pose: tuple[float, ...], axis: NDArray[np.float64]) -> None:
        self._seed = seed
        azimuth_deg = (np.arange(FIRINGS)[:, None] * 360.0 / FIRINGS + SKEW_DEG[None, :]).ravel()
        azimuth, elevation = np.radians(azimuth_deg), np.radians(np.tile(ELEVATION_DEG, FIRINGS))
        along = np.stack([np.cos(azimuth), -np.sin(azimuth), np.zeros_like(azimuth)], -1)
        self._azimuth_deg = azimuth_deg
        self._cos_elevation = np.cos(elevation)
        self._ring = RING_M * along
        self._ray = along * self._cos_elevation[:, None]
        self._ray[:, 2] = np.sin(elevation)
        turn = rotation(*pose[3:])
        origin, ray = np.asarray(pose[:3]) + self._ring @ turn.T, self._ray @ turn.T
        self._to_wall = _wall_distance(origin, ray)
        self._cast = np.concatenate([origin, ray], 1).astype(np.float32)
        self._xy = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        self._triangles = _grid_triangles(CELLS)
        self._crust = _at_wall(self._xy, keyed(seed, "lidar.crust", 0))

    def scan(self, scan: int, silo: Silo, row: int, fault: Mapping[str, float], dust: float) -> NDArray[np.float32]:
        """One cloud [P, 4]: x, y, z [m] in the sensor frame and intensity 0..255; what does not return is absent."""
        crust = self._crust * fault.get("wall_crust", 0.0) * silo.inside
        distance = np.minimum(self._surface(silo.height[row] + crust), self._to_wall)
        rng = keyed(self._seed, "lidar", scan)
        distance = distance + rng.normal(0.0, 0.01, len(distance))
        intensity = 90.0 + rng.normal(0.0, 4.0, len(distance))
        if dust > 0.0:
            floating = rng.uniform(size=len(distance)) < 0.5 * dust
            distance = np.where(floating, distance * rng.uniform(0.15, 1.0, len(distance)), distance)
            intensity = np.where(floating, 20.0, intensity * (1.0 - 0.4 * dust))
        seen = np.isfinite(distance) & (distance > 0.4) & (distance < 30.0)
        seen &= rng.uniform(size=len(distance)) > 0.01 + 0.3 * dust
        seen &= (self._azimuth_deg < 90.0) | (self._azimuth_deg > 90.0 + 90.0 * fault.get("blocked_lidar", 0.0))
        offset = RING_M / self._cos_elevation[seen]
        r = np.round((distance[seen] + offset) / QUANTUM_M) * QUANTUM_M - offset
        points = self._ring[seen] + self._ray[seen] * r[:, None]
        strength = np.clip(intensity[seen], 0, 255).round()
        return np.column_stack([points, strength]).astype(np.float32)

    def _surface(self, height: NDArray[np.float64]) -> NDArray[np.float64]:
        vertices = np.column_stack([self._xy, height.ravel()]).astype(np.float32)
        scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        scene.add_triangles(o3d.core.Tensor.from_numpy(vertices), o3d.core.Tensor.from_numpy(self._triangles))
        hit = scene.cast_rays(o3d.core.Tensor.from_numpy(self._cast), nthreads=1)["t_hit"]
        return np.asarray(hit.numpy(), dtype=float)


def rotation(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """Rotation matrix from the sensor to the plant frame, about x, then y, then z [rad]."""
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a), np.sin(a)) for a in (roll, pitch, yaw))
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _wall_distance(origin: NDArray[np.float64], ray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance along each ray to the cylinder wall; infinite for rays that leave through the open top."""
    a = (ray[:, :2] ** 2).sum(1)
    b = (ray[:, :2] * origin[:, :2]).sum(1)
    c = (origin[:, :2] ** 2).sum(1) - RADIUS_M**2
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (-b + np.sqrt(np.maximum(b * b - a * c, 0.0))) / a
    return np.where((ray[:, 2] < 0.1) & np.isfinite(distance), distance, np.inf)


def _at_wall(xy: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A lump at the wall [CELLS, CELLS] in metres over what lies there, on either side where the beams pass."""
    angle = rng.choice((0.0, np.pi)) + rng.uniform(-0.3, 0.3)
    where = 0.85 * RADIUS_M * np.array([np.cos(angle), np.sin(angle)])
    away = ((xy - where) ** 2).sum(1) / CRUST_WIDTH_M**2
    return np.asarray(CRUST_M * np.exp(-0.5 * away)).reshape(CELLS, CELLS)


def _grid_triangles(cells: int) -> NDArray[np.uint32]:
    index = np.arange(cells * cells, dtype=np.uint32).reshape(cells, cells)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
