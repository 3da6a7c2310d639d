"""The plant's own control loops: they act once per second on measured values and belong to the plant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Pi:
    """A PI controller with clamped output and integral anti-windup; all values [B]."""

    def __init__(self, size: int, *, gain: float, integral_s: float, low: float, high: float) -> None:
        self._gain, self._integral_s, self._low, self._high = gain, integral_s, low, high
        self._sum = np.zeros(size)

    def follow(self, output: Floats, error: Floats, feedforward: Floats | float, rows: NDArray[np.bool_]) -> None:
        """In these rows, where an operator sets the output, bring the integral to where going on makes no bump."""
        settled = (output - feedforward) / self._gain - error - error / self._integral_s
        self._sum = np.where(rows, settled, self._sum)

    def act(self, error: Floats, feedforward: Floats | float) -> Floats:
        """Output for one second of ``error`` on top of ``feedforward``."""
        wanted = feedforward + self._gain * (error + self._sum + error / self._integral_s)
        output = np.clip(wanted, self._low, self._high)
        free = (wanted == output) | (np.sign(error) * np.sign(self._gain) != np.sign(wanted - output))
        self._sum += np.where(free, error / self._integral_s, 0.0)
        return output


class Loops:
    """Tank level sets the lime rate; temperature acts on water, slaker level on the pump, density on dilution."""

    def __init__(self, size: int) -> None:
        self.feeder, self.water = np.full(size, 0.35), np.full(size, 0.36)
        self.pump, self.dilution = np.full(size, 0.61), np.full(size, 0.25)
        self.lime_sp = np.full(size, 0.175)
        self._tank = Pi(size, gain=1.5, integral_s=4000.0, low=0.05, high=0.32)
        self._lime = Pi(size, gain=0.8, integral_s=20.0, low=0.0, high=1.0)
        self._temperature = Pi(size, gain=0.05, integral_s=500.0, low=0.02, high=1.0)
        self._level = Pi(size, gain=5.0, integral_s=1000.0, low=0.0, high=1.0)
        self._density = Pi(size, gain=25.0, integral_s=2000.0, low=0.0, high=1.0)

    def act(self, measured: Mapping[str, Floats], sp: Mapping[str, Floats], manual: NDArray[np.bool_]) -> None:
        """One second of control; in ``manual`` rows the water valve stays where it is."""
        self.lime_sp = self._tank.act(sp["LIC201.SP"] - measured["LT201"], 0.175)
        self.feeder = self._lime.act(self.lime_sp - measured["WT101"], self.lime_sp / 0.5)
        ratio = 3.3 * measured["WT101"] / 1.6
        error = measured["TT101"] - sp["TIC101.SP"]
        if manual.any():
            self._temperature.follow(self.water, error, ratio, manual)
        self.water = np.where(manual, self.water, self._temperature.act(error, ratio))
        self.pump = self._level.act(measured["LT101"] - sp["LIC101.SP"], 0.61)
        self.dilution = self._density.act(measured["DT201"] - sp["DIC201.SP"], 0.25)
