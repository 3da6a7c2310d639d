"""What belongs to an event: the signals that may be blamed for it, and its part in each energy.

Knows the plant's graph and no life cycle. Shape letters: E energies, G signals.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from control.anomaly.evidence import Contributions
from fusion.plant import Modality, Plant, Role, Signal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Belonging:
    """Which signals of a plant stand beside each other, and which are asked for and not measured."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._near = (tuple[str, ...](), np.zeros((0, 0)))

    def shares(self, signals: Bools | None, contributions: Contributions) -> tuple[Floats, Floats]:
        """The largest share in each energy [E] of some signals [G] or their neighbours, and of any other.

        Without ``signals`` all are inside.
        """
        if contributions.signals is not self._near[0]:
            self._near = (contributions.signals, _neighbours(self._plant, contributions.signals))
        near = self._near[1]
        inside = np.ones(len(near), bool) if signals is None else near @ signals > 0
        shares = np.clip(np.nan_to_num(contributions.shares), 0.0, 1.0)
        return shares[:, inside].max(1, initial=0.0), shares[:, ~inside].max(1, initial=0.0)

    def may_be_blamed(self, names: Sequence[str], groups: Collection[str]) -> Bools:
        """The signals [G] of some senses but for setpoints: what an operator or a controller asks is no fault."""
        known = [self._plant.by_name.get(name) for name in names]
        return np.array([s is not None and not _is_setpoint(s) and str(s.modality) in groups for s in known], bool)


def either(one: Bools | None, other: Bools | None) -> Bools | None:
    """Signals [G] of the one or the other, where they are known."""
    return one if other is None else other if one is None else one | other


def _is_setpoint(signal: Signal) -> bool:
    """Whether a signal is asked for and not measured: it is moved, or is called the setpoint of a loop (ISA-5.1)."""
    return signal.role is Role.MANIPULATED or signal.name.upper().endswith(".SP")


def _neighbours(plant: Plant, names: Sequence[str]) -> Floats:
    """Which signals [G, G] stand beside each other in the plant's graph, each beside itself, media beside none.

    Without a graph every tag stands beside every other.
    """
    place = {name: i for i, name in enumerate(names)}
    near = np.eye(len(names))
    for a, b in plant.edges:
        if a in place and b in place:
            near[place[a], place[b]] = near[place[b], place[a]] = 1.0
    if not plant.edges:
        tags = np.array([plant.by_name[name].modality is Modality.PROCESS for name in names], np.float64)
        near = np.maximum(near, np.outer(tags, tags))
    return near
