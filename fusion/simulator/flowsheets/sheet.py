"""A flowsheet: blocks and what flows between them, the loops that run it, and the instruments that show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.simulator.flowsheets.blocks import Actuator, Block, Exchanger, Feed, Filter, Pipe, Vessel, joined
from fusion.simulator.line.loops import Pi

Floats = NDArray[np.float64]

PROCESS_FAULTS: Mapping[type[Block], tuple[str, ...]] = {
    Feed: ("pump_worn", "feed_poor", "valve_stuck", "valve_slipped"),
    Vessel: ("leak", "blocked", "pump_worn", "fouled", "insulation", "catalyst", "valve_stuck", "valve_slipped"),
    Exchanger: ("fouled", "valve_stuck", "valve_slipped"),
    Pipe: ("insulation",),
    Filter: ("blocked",),
}
"""What can go wrong with each kind of block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A block with its name, and what flows into it: names of other nodes and the share that it gets of each."""

    name: str
    block: Block
    inlets: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What an instrument looks at: a signal of the plant, and the block whose state it shows."""

    signal: str
    node: str
    read: Callable[[], Floats]
    noise: float


@dataclass(slots=True, kw_only=True)
class Loop:
    """A PI loop from a measured signal to an actuator; ``setpoint`` [B] is a signal of its own where it has a name."""

    measured: str
    actuator: Actuator
    controller: Pi
    bias: float
    setpoint: Floats
    name: str = ""

    def second(self, reading: Floats) -> None:
        """One second of control on what the instrument says."""
        self.actuator.command = self.controller.act(self.setpoint - reading, self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How unsteady the world around a plant is, as deviations: supply, its temperature [K], its purity, ambient [K]."""

    supply: float
    warmth: float
    purity: float
    ambient: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A plant that can be played: nodes in the order in which they are reckoned, loops, points and its description."""

    plant: Plant
    nodes: tuple[Node, ...]
    loops: tuple[Loop, ...]
    points: tuple[Point, ...]
    weather: Weather

    def second(self, supply: Floats, warmer: Floats, richer: Floats, ambient: Floats) -> None:
        """All blocks one second on; what flows back is that of the second before."""
        by_name = {node.name: node.block for node in self.nodes}
        for node in self.nodes:
            block = node.block
            if isinstance(block, Feed):
                block.second(supply, warmer, richer)
                continue
            inlet = joined([by_name[name].outlet.part(share) for name, share in node.inlets])
            if isinstance(block, Vessel | Pipe):
                block.second(inlet, ambient)
            elif isinstance(block, Exchanger | Filter):
                block.second(inlet)

    def faults(self) -> tuple[tuple[str, str], ...]:
        """All process faults that this plant can have, as pairs of fault and node."""
        found = []
        for node in self.nodes:
            names = PROCESS_FAULTS[type(node.block)]
            if isinstance(node.block, Vessel):
                made = node.block.made
                without = {
                    "catalyst": made.rate_s,
                    "fouled": made.duty_kw + made.jacket_kw_k,
                    "insulation": made.loss_kw_k,
                }
                names = tuple(n for n in names if without.get(n, 1.0) > 0.0)
            found += [(name, node.name) for name in names]
        return tuple(found)
