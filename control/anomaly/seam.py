"""Missing ticks: for how long a gap speaks like a fault in what is judged by the ticks before it.

Shape letters: E energies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.records import NS_PER_S, Energy, Origin

Floats = NDArray[np.float64]
LOOKS_BACK_S = {Origin.AHEAD: 120.0, Origin.LATER: 120.0, Origin.LAW: 600.0}
LOOKS_BACK_TICKS = 40  # at least: as far as the forecasts that are judged reach, and their averages


class Seam:
    """Where ticks are missing in a stream; energies that look back over it would say that the gap is a fault."""

    def __init__(self, energies: Sequence[Energy], step_s: float) -> None:
        back_s = {origin: max(known_s, LOOKS_BACK_TICKS * step_s) for origin, known_s in LOOKS_BACK_S.items()}
        self._ahead_s = back_s[Origin.AHEAD]
        self._back_s = np.array([back_s.get(energy.origin, 0.0) for energy in energies])
        self._t_ns: int | None = None

    def begin(self, t_ns: int) -> None:
        """Note that ticks are missing just before a time."""
        self._t_ns = t_ns

    def left_s(self, t_ns: int) -> float:
        """For how long forecasts still take no part; 0 where they do."""
        return max(self._ahead_s - self._since_s(t_ns), 0.0)

    def trusted(self, energies: Floats, t_ns: int) -> Floats:
        """Energies [E] of a tick without those that look back over the seam."""
        return np.where(self._since_s(t_ns) < self._back_s, np.nan, energies)

    def _since_s(self, t_ns: int) -> float:
        return np.inf if self._t_ns is None else (t_ns - self._t_ns) / NS_PER_S
