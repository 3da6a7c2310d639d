"""The silo: a surface that funnels down over the outlet, slides at the angle of repose and piles up when filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RADIUS_M, HEIGHT_M = 1.5, 6.0
BULK_KG_M3 = 950.0
CELLS = 32
FILL_KG_S = 6.0
_SWEEPS = 4


class Silo:
    """Heights [B, CELLS, CELLS] in metres over a square grid; cells outside the wall stay at zero."""

    def __init__(self, level_m: Floats, repose_deg: Floats, channel_m: Floats) -> None:
        axis = np.linspace(-RADIUS_M, RADIUS_M, CELLS)
        self.axis = axis
        self.cell_m = float(axis[1] - axis[0])
        x, y = np.meshgrid(axis, axis, indexing="ij")
        self._radius = np.hypot(x, y)
        self.inside = self._radius <= RADIUS_M - 0.5 * self.cell_m
        self._repose, self._channel = repose_deg[:, None, None], channel_m[:, None, None]
        self.height = np.where(self.inside, level_m[:, None, None] + 0.3 - 0.35 * self._radius, 0.0)
        pile = np.exp(-0.5 * ((x - 0.25) ** 2 + y**2) / 0.16) * self.inside
        self._pile = pile / pile.sum()
        self._along_x = (self.inside[1:] & self.inside[:-1])[None]
        self._along_y = (self.inside[:, 1:] & self.inside[:, :-1])[None]

    def second(self, out_kg_s: Floats, fill_kg_s: Floats, rathole: Floats | float, stuck: Floats | float) -> None:
        """One second of draw-down, filling and sliding; a rat-hole is a narrow pipe with a wall that stands."""
        hole = np.broadcast_to(np.asarray(rathole, float).reshape(-1, 1, 1), self._repose.shape)
        weight = np.exp(-0.5 * (self._radius / (self._channel * (1.0 - 0.7 * hole))) ** 2) * self.inside
        weight = weight * (self.height > 0.02)
        total = np.maximum(weight.sum((1, 2), keepdims=True), 1e-9)
        area = BULK_KG_M3 * self.cell_m**2
        self.height += (fill_kg_s[:, None, None] * self._pile - out_kg_s[:, None, None] * weight / total) / area
        self._slide(np.tan(np.radians(self._repose + (86.0 - self._repose) * np.sqrt(hole))) * self.cell_m)
        np.maximum(self.height, 0.0, out=self.height)

    def _slide(self, limit: Floats) -> None:
        h = self.height
        for _ in range(_SWEEPS):
            step = h[:, 1:] - h[:, :-1]
            move = 0.25 * (step - np.clip(step, -limit, limit)) * self._along_x
            h[:, 1:] -= move
            h[:, :-1] += move
            step = h[:, :, 1:] - h[:, :, :-1]
            move = 0.25 * (step - np.clip(step, -limit, limit)) * self._along_y
            h[:, :, 1:] -= move
            h[:, :, :-1] += move

    def available(self) -> Floats:
        """How freely material reaches the outlet, 0..1: it runs out when the channel is empty."""
        return 1.0 / (1.0 + np.exp(-(self.centre() - 0.15) / 0.03))

    def centre(self) -> Floats:
        """Height over the outlet [m]."""
        c = CELLS // 2
        centre: Floats = self.height[:, c - 1 : c + 1, c - 1 : c + 1].mean((1, 2))
        return centre

    def mean_level(self) -> Floats:
        """Mean height [m]."""
        return np.asarray(self.height.sum((1, 2)) / self.inside.sum())

    def volume(self) -> Floats:
        """Bulk volume [m3]."""
        return np.asarray(self.height.sum((1, 2)) * self.cell_m**2)

    def point_level(self) -> Floats:
        """What a level probe near the wall reads, as a fraction of the height."""
        level: Floats = self.height[:, CELLS // 2 + 9, CELLS // 2] / HEIGHT_M
        return level
