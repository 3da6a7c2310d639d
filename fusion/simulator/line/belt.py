"""The belt: material lies still on a moving band, so everything follows from the mass laid down against belt travel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LENGTH_M = 3.0
_SCALE_M = (1.2, 1.8)
_STATIONS = np.array([LENGTH_M, _SCALE_M[1], _SCALE_M[0]])
_KEPT = 512


class Belt:
    """Cumulative mass M against travel X for B belts; positions are metres downstream of the chute."""

    def __init__(self, size: int, start_m_s: float, start_kg_m: float = 0.72) -> None:
        self._rows = range(size)
        self._travel = np.zeros((size, 4 * _KEPT))
        self._mass = np.zeros((size, 4 * _KEPT))
        past = np.linspace(-LENGTH_M - start_m_s, 0.0, _KEPT)
        self._travel[:, :_KEPT] = past
        self._mass[:, :_KEPT] = start_kg_m * past
        self._end = _KEPT
        self._gone = np.full(size, -start_kg_m * LENGTH_M)

    def step(self, feed_kg_s: Floats, speed_m_s: Floats, dt_s: float) -> tuple[Floats, Floats]:
        """Lay down ``feed_kg_s`` and move; returns the flow off the end [kg/s] and the load at the scale [kg/m]."""
        if self._end == self._travel.shape[1]:
            self._travel[:, :_KEPT] = self._travel[:, -_KEPT:]
            self._mass[:, :_KEPT] = self._mass[:, -_KEPT:]
            self._end = _KEPT
        last = self._end - 1
        self._travel[:, self._end] = self._travel[:, last] + np.maximum(speed_m_s, 1e-4) * dt_s
        self._mass[:, self._end] = self._mass[:, last] + feed_kg_s * dt_s
        self._end += 1
        laid = np.array([self._laid(row, _STATIONS) for row in self._rows])
        out = (laid[:, 0] - self._gone) / dt_s
        self._gone = laid[:, 0]
        return out, (laid[:, 2] - laid[:, 1]) / (_SCALE_M[1] - _SCALE_M[0])

    @property
    def travel(self) -> Floats:
        """How far each belt has moved [m]."""
        return self._travel[:, self._end - 1]

    def mass(self) -> Floats:
        """Mass on the belt [kg]."""
        return np.asarray(self._mass[:, self._end - 1] - self._gone)

    def profile(self, row: int, edges_m: Floats) -> Floats:
        """Load of one belt between consecutive ascending positions [kg/m]."""
        profile: Floats = -np.diff(self._laid(row, edges_m)) / np.diff(edges_m)
        return profile

    def _laid(self, row: int, positions_m: Floats) -> Floats:
        """Cumulative mass at the material that is now at these positions of one belt."""
        window = slice(self._end - _KEPT, self._end)
        travel = self._travel[row, window]
        return np.asarray(np.interp(travel[-1] - positions_m, travel, self._mass[row, window]))
