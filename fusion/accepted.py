"""What somebody accepted as normal: no alarm any more, and still nothing that the model knows.

Shape letters: E energies, of which the monitors' are the first M.
"""
# shape-suffixed names of arrays

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from control.anomaly.calibration import Calibration

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Accepted:
    """Whether an anomaly would stand, had nobody accepted it; it is over once it has not for ``lasting_ns``."""

    def __init__(self, calibration: Calibration, monitored: int, lasting_ns: int) -> None:
        self._calibration, self._lasting_ns = calibration, lasting_ns
        self._which_M = np.zeros(monitored, bool)
        self._until_ns = 0

    def add(self, which_E: Bools) -> None:
        """Note that the level of some energies was accepted."""
        self._which_M |= which_E[: len(self._which_M)]

    def watch(self, t_ns: int, energies_E: Floats, relief_M: Floats | None) -> None:
        """Take the energies of a tick as they are judged, and what those that were accepted are divided by."""
        if relief_M is None or not self._which_M.any():
            return
        own_E = energies_E.copy()
        own_E[: len(relief_M)] *= np.where(self._which_M, relief_M, 1.0)
        factor_M = self._calibration.score(own_E).factor[: len(relief_M)]
        if bool((factor_M[self._which_M] >= 1.0).any()):
            self._until_ns = t_ns + self._lasting_ns

    def stands(self, t_ns: int) -> bool:
        """Whether it does at a time."""
        return t_ns < self._until_ns
