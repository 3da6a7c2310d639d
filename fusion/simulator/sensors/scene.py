"""What stands, hangs, drifts or sticks in the picture of the belt: drawn where it is, from the belt up to the lens.

Places differ from day to day; sizes and depths follow the severity. Shape letters: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fusion.simulator.noise import keyed

Picture = NDArray[np.float32]
Fault = Mapping[str, float]

BELT_EDGE = 0.42  # of the half width of 0.5: beyond it is the floor
FLOOR, CAKE, IRON, DRIED = 25.0, 150.0, 70.0, 120.0  # grey levels
TORN_SHARE, TORN_DEPTH = 0.12, 0.09  # of the belt's length and of the picture's width
SKEW = 0.09  # of the picture's width


class Scene:
    """Draws on pictures [H, W] of ``side`` pixels while they are made; without a fault it draws nothing."""

    def __init__(self, seed: int, side: int) -> None:
        across = np.linspace(-0.5, 0.5, side, dtype=np.float32)
        self._across = np.broadcast_to(across[None, :], (side, side))
        self._down = np.broadcast_to((across + np.float32(0.5))[:, None], (side, side))
        rng = keyed(seed, "camera.scene", 0)
        self._side = float(rng.choice((-1.0, 1.0)))
        self._row, self._column = rng.uniform(0.3, 0.7), rng.uniform(-0.1, 0.1)
        grain = rng.standard_normal((side, side))
        for _ in range(60):
            grain = (grain + sum(np.roll(grain, k, axis) for k in (-1, 1) for axis in (0, 1))) / 5.0
        self._cloud = (grain / grain.std()).astype(np.float32)

    def on_belt(self, image: Picture, rows: NDArray[np.int64], length: int, fault: Fault) -> None:
        """What moves with the belt, whose texture of ``length`` rows is seen at ``rows`` [H]."""
        turn = (rows / length).astype(np.float32)[:, None]
        edge = np.float32(self._side) * self._across
        if caked := fault.get("build_up", 0.0):
            patchy = np.sin(2.0 * np.pi * 23.0 * turn) + np.sin(2.0 * np.pi * 38.0 * turn) > 1.5 - 3.0 * caked
            image += (CAKE - image) * (0.7 * patchy * (edge > 0.33) * (edge < 0.40))
        if torn := fault.get("torn_edge", 0.0):
            depth = TORN_DEPTH * torn * np.abs(np.sin(2.0 * np.pi * 11.0 * turn)) * (turn < TORN_SHARE)
            np.copyto(image, FLOOR, where=edge > BELT_EDGE - depth)

    def bed_shift(self, fault: Fault) -> np.float32:
        """How far to the side of the belt the bed lies, as a share of the picture's width."""
        return np.float32(self._side * SKEW * fault.get("skewed_bed", 0.0))

    def hung(self, lime: Picture, resting: Picture, fault: Fault) -> Picture:
        """The lime that is seen: where a patch of it hangs, the ``resting`` one."""
        if stalled := fault.get("stalled_bed", 0.0):
            patch = self._blob(self._row, self._column, 0.08 + 0.14 * stalled, 0.05 + 0.09 * stalled)
            return np.asarray(lime + (resting - lime) * patch)
        return lime

    def stand(self, image: Picture, frame: int, fault: Fault) -> None:
        """What stands beside the belt or over it."""
        if spilt := fault.get("spill", 0.0):
            heap = self._blob(self._row, self._side * 0.5, 0.08 + 0.3 * spilt, 0.1)
            image += (165.0 + 12.0 * self._cloud - image) * (heap * (np.abs(self._across) > BELT_EDGE))
        if caught := fault.get("caught_object", 0.0):
            height, width = 0.02 + 0.05 * caught, 0.03 + 0.09 * caught
            lies = (np.abs(self._down - self._row) < height) & (np.abs(self._across - self._column) < width)
            np.copyto(image, IRON, where=lies)
        if near := fault.get("person", 0.0):
            sway = 0.02 * np.sin(2.0 * np.pi * frame / 67.0)
            body = self._blob(self._row + sway, self._side * 0.52, 0.24, 0.04 + 0.12 * near)
            head = self._blob(self._row - 0.12 + sway, self._side * 0.48, 0.07, 0.03 + 0.07 * near)
            image += (45.0 - image) * body
            image += (140.0 - image) * head

    def light(self, image: Picture, fault: Fault) -> None:
        """Where the lamps do not reach."""
        if dark := fault.get("dark_corner", 0.0):
            away = np.hypot(self._down, self._across - np.float32(self._side * 0.5))
            image *= 1.0 - 0.6 * dark * np.clip(1.0 - away / 0.5, 0.0, 1.0)

    def between(self, image: Picture, frame: int, fault: Fault) -> None:
        """What is in the air or on the lens, which no lamp of the line lights."""
        if steam := fault.get("steam", 0.0):
            drift = np.roll(self._cloud, (-frame // 2, frame // 5), (0, 1))
            near = np.clip(1.0 - np.hypot(self._down - self._row, self._across - self._side * 0.3) / 0.6, 0.0, 1.0)
            image += (200.0 - image) * (0.35 * steam * near * np.clip(0.6 + 0.5 * drift, 0.0, 1.5))
        if spot := fault.get("lens_spot", 0.0):
            drop = self._blob(self._row, self._column + self._side * 0.15, 0.13, 0.13)
            image += (DRIED - image) * (0.6 * spot * drop)

    def _blob(self, row: float, column: float, height: float, width: float) -> Picture:
        """A soft ellipse, from 0 to 1."""
        away = ((self._down - row) / height) ** 2 + ((self._across - column) / width) ** 2
        return np.clip(2.0 - 2.0 * away, 0.0, 1.0).astype(np.float32)
