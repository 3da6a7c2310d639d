"""The hidden condition of a line: what wears, fouls and drifts unread, and the fault that brings it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fusion.simulator.line.physics import Line

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wear:
    """A hidden state in words, its ``unit`` and the ``fault`` that changes it; in % it is told as a ratio."""

    words: str
    unit: str
    fault: str


WEAR: Mapping[str, Wear] = MappingProxyType(
    {
        "reactivity": Wear(words="reactivity of the lime", unit="%", fault="low_reactivity"),
        "line_friction": Wear(words="flow resistance of the slurry line", unit="%", fault="line_scaling"),
        "water_valve": Wear(words="what the water valve passes", unit="%", fault="water_valve_blocked"),
        "belt_grip": Wear(words="belt speed at a speed of its drive", unit="%", fault="belt_slip"),
        "scale_bias": Wear(words="reading of the belt scale", unit="%", fault="scale_drift"),
        "thermometer_bias": Wear(
            words="reading of the first slaker thermometer", unit="Cel", fault="thermometer_drift"
        ),
    }
)


def condition(line: Line) -> Floats:
    """Each state of ``WEAR`` [X, B] now: a factor where it is told in %, else in its unit."""
    states = {
        "reactivity": line.reactivity * (1.0 - 0.5 * line.f("low_reactivity")),
        "line_friction": 1.0 + 3.0 * line.f("line_scaling"),
        "water_valve": 1.0 - 0.35 * line.f("water_valve_blocked"),
        "belt_grip": 1.0 - 0.5 * line.f("belt_slip"),
        "scale_bias": 1.0 + 0.15 * line.f("scale_drift"),
        "thermometer_bias": -6.0 * line.f("thermometer_drift"),
    }
    return np.stack([np.broadcast_to(states[name], line.size) for name in WEAR]).astype(np.float64)
