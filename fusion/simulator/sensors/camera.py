"""The camera above the belt: grey pictures of a bed of lime that moves with the true belt speed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fusion.simulator.noise import keyed
from fusion.simulator.sensors.scene import BELT_EDGE, FLOOR, Scene

SIZE = 96
PIXELS_PER_M = 100.0
VIEW_START_M = 0.4
LUMP_EVERY, LUMP_SEEN = 37, 6  # pictures between two lumps at full severity, and with one in view
_ROWS = 2048
_SUB = 4


class Camera:
    """Renders SIZE x SIZE pictures; the texture of belt and lime depends on ``texture_seed``, noise on ``seed``."""

    def __init__(self, seed: int, texture_seed: int | None = None) -> None:
        self._seed = seed
        rng = keyed(seed if texture_seed is None else texture_seed, "camera.texture", 0)
        self._belt = (60.0 + 10.0 * _texture(rng, 2)).astype(np.float32)
        for row in range(4):
            self._belt[row::128] += 14.0
        self._lime = (175.0 + 28.0 * _texture(rng, 0)).astype(np.float32)
        across = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
        self._across = across[None, :]
        down = np.linspace(0.85, 1.05, SIZE, dtype=np.float32)[:, None]
        self._light = (1.0 - 0.7 * self._across**2) * down
        self._scene = Scene(seed, SIZE)

    def picture(
        self, frame: int, travel_m: float, load_kg_m: NDArray[np.float64], fault: Mapping[str, float], light: float
    ) -> NDArray[np.uint8]:
        """One picture [SIZE, SIZE]; row r shows the belt ``r / PIXELS_PER_M`` m downstream of the view's start.

        ``load_kg_m`` [SIZE] is the load per row; ``light`` scales the lamp.
        """
        rows = (int(travel_m * PIXELS_PER_M * _SUB) - _SUB * np.arange(SIZE)) % _ROWS
        half = np.sqrt(np.maximum(load_kg_m, 0.0) / 36.0).astype(np.float32)[:, None]
        belt_x = self._across - np.float32(0.12 * fault.get("belt_drift", 0.0))
        x = belt_x - self._scene.bed_shift(fault)
        bed = (half - np.abs(x)) * 24.0
        bed += 0.5
        np.clip(bed, 0.0, 1.0, out=bed)
        heap = x / (half + np.float32(1e-3))
        heap *= heap
        np.minimum(heap, 1.0, out=heap)
        image = self._belt[rows]
        self._scene.on_belt(image, rows, _ROWS, fault)
        np.copyto(image, FLOOR, where=np.abs(belt_x) > BELT_EDGE)
        lime = self._scene.hung(self._lime[rows], self._lime[: _SUB * SIZE : _SUB], fault)
        lime *= 1.0 - 0.35 * heap
        lime -= image
        lime *= bed
        image += lime
        self._scene.stand(image, frame, fault)
        self._scene.light(image, fault)
        image *= self._light
        image *= light
        rng = keyed(self._seed, "camera", frame)
        lumps = fault.get("tramp_lump", 0.0)
        passing = frame % round(LUMP_EVERY / lumps) if lumps > 0.0 else LUMP_EVERY
        if passing < LUMP_SEEN:
            row, column = 8 + 14 * passing, SIZE // 2
            image[row : row + 9, column - 5 : column + 5] = 40.0
        self._scene.between(image, frame, fault)
        dirt = 0.6 * fault.get("dirty_camera", 0.0)
        if dirt:
            image = image * (1.0 - dirt) + 110.0 * dirt
        image += _grain(rng, image.shape)
        np.clip(image, 0.0, 255.0, out=image)
        return image.astype(np.uint8)


def _grain(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Noise of 3 grey levels: a count of 16 fair bits has a standard deviation of 2, and costs little to draw."""
    bits = rng.bit_generator.random_raw(shape[0] * shape[1] // 4).view(np.uint16).reshape(shape)
    return (np.bitwise_count(bits).astype(np.float32) - np.float32(8.0)) * np.float32(1.5)


def _texture(rng: np.random.Generator, smooth: int) -> NDArray[np.float64]:
    grain = rng.standard_normal((_ROWS // _SUB, SIZE))
    for _ in range(smooth):
        grain = (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1)) / 3.0
    fine = np.repeat(grain, _SUB, 0)
    shifted = sum(np.roll(fine, k, 0) for k in range(_SUB))
    return np.asarray(shifted / (2.0 if smooth else 2.5))
