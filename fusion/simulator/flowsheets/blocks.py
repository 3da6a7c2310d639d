"""Blocks of a flowsheet, second by second on B rows at once: what they hold, pass on, lose and turn into heat.

Streams carry mass [kg/s], temperature [Cel] and the share of one component. Each block keeps in ``wrong`` how strong
each of its faults is [B], 0..1; a fault that is not there is not in it. Balances are those of Seborg, Edgar, Mellichamp
and Doyle, *Process Dynamics and Control*, ch. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CP_KJ = 4.18  # heat capacity of what flows [kJ/(kg K)]
KELVIN = 273.15
HOTTEST, COLDEST = 180.0, -20.0  # [Cel]
EMPTY = 0.02  # of its mass in normal operation, what a vessel never falls below


@dataclass(slots=True)
class Stream:
    """What flows between two blocks: ``flow`` [B, kg/s], ``temperature`` [B, Cel], ``share`` [B] of the component."""

    flow: Floats
    temperature: Floats
    share: Floats

    def part(self, share: float) -> Stream:
        """A part of it."""
        return Stream(self.flow * share, self.temperature, self.share)


def joined(streams: Sequence[Stream]) -> Stream:
    """Several streams as one."""
    if len(streams) == 1:
        return streams[0]
    flow = np.sum([s.flow for s in streams], axis=0)
    weight = np.maximum(flow, 1e-9)
    temperature = np.sum([s.flow * s.temperature for s in streams], axis=0) / weight
    return Stream(flow, temperature, np.sum([s.flow * s.share for s in streams], axis=0) / weight)


class Actuator:
    """A valve, pump or drive: its position [B], 0..1, follows the command with a lag, unless it sticks or is off."""

    def __init__(self, size: int, start: float, lag_s: float) -> None:
        self.command = np.full(size, start)
        self.position = np.full(size, start)
        self.lag_s = lag_s

    def second(self, wrong: dict[str, Floats]) -> None:
        """One second: a stuck one moves the less the worse it is, one that slipped passes less than it is told."""
        target = self.command * (1.0 - 0.35 * wrong["valve_slipped"]) if "valve_slipped" in wrong else self.command
        pace = (1.0 - wrong["valve_stuck"]) / self.lag_s if "valve_stuck" in wrong else 1.0 / self.lag_s
        self.position = self.position + pace * (target - self.position)


class Block:
    """One part of a plant."""

    actuators: tuple[Actuator, ...] = ()

    def __init__(self, size: int) -> None:
        self.wrong: dict[str, Floats] = {}
        self.outlet = Stream(np.zeros(size), np.full(size, 20.0), np.zeros(size))

    def less(self, fault: str, most: float) -> Floats | float:
        """The factor by which a fault reduces something, down to one minus ``most``."""
        return 1.0 - most * self.wrong[fault] if fault in self.wrong else 1.0


class Feed(Block):
    """A supply behind a valve or belt; what a belt carries arrives later than it is taken."""

    def __init__(
        self, size: int, *, capacity: float, start: float, temperature: float, share: float, lag_s: float, belt_s: int
    ) -> None:
        super().__init__(size)
        self.drive = Actuator(size, start, lag_s)
        self.actuators = (self.drive,)
        self.capacity, self.temperature, self.share = capacity, temperature, share
        self._belt = [np.full(size, capacity * start)] * belt_s
        self.taken = np.full(size, capacity * start)

    def second(self, pressure: Floats, warmer: Floats, richer: Floats) -> None:
        """One second at this supply ``pressure`` (1 is usual), so much ``warmer`` [K] and ``richer``."""
        self.drive.second(self.wrong)
        self.taken = self.capacity * self.drive.position * pressure * self.less("pump_worn", 0.35)
        self._belt.append(self.taken)
        share = np.clip((self.share + richer) * self.less("feed_poor", 0.4), 0.0, 1.0)
        self.outlet = Stream(self._belt.pop(0), self.temperature + warmer, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kettle:
    """What a vessel is: mass in normal operation [kg], its outlet's capacity [kg/s], heat paths and reaction.

    ``duty_kw`` heats, ``jacket_kw_k`` cools towards ``coolant``; ``rate_s`` is that of the reaction at ``usual`` [Cel],
    which grows by ``activation_k`` [K] and warms by ``adiabatic_k`` [K] for a share of one.
    """

    mass: float
    capacity: float
    usual: float
    loss_kw_k: float
    pumped: bool
    duty_kw: float = 0.0
    jacket_kw_k: float = 0.0
    coolant: float = 15.0
    rate_s: float = 0.0
    activation_k: float = 0.0
    adiabatic_k: float = 0.0


class Vessel(Block):
    """A stirred vessel: what is in it has one temperature and one composition."""

    def __init__(self, size: int, made: Kettle, *, share: float, opening: float, heat: float, lag_s: float) -> None:
        super().__init__(size)
        self.made = made
        self.mass, self.temperature = np.full(size, made.mass), np.full(size, made.usual)
        self.share = np.full(size, share)
        self.valve, self.heat = Actuator(size, opening, lag_s), Actuator(size, heat, 2.0 * lag_s)
        self.actuators = (self.valve, self.heat)
        self.duty = np.zeros(size)

    @property
    def level(self) -> Floats:
        """How full it is [%]; half full in normal operation."""
        return 50.0 * self.mass / self.made.mass

    @property
    def effort(self) -> Floats:
        """Share of its current that the outlet's drive draws: idle, and what it moves against what it has to."""
        worn = 1.0 + 0.4 * self.wrong["blocked"] if "blocked" in self.wrong else 1.0
        return 0.25 + 0.75 * self.valve.position * worn * np.sqrt(np.maximum(self.outlet.flow / self.made.capacity, 0))

    def second(self, inlet: Stream, ambient: Floats) -> None:
        """One second of balances of mass, heat and component."""
        made = self.made
        for actuator in self.actuators:
            actuator.second(self.wrong)
        head = 1.0 if made.pumped else np.sqrt(np.maximum(self.mass / made.mass, 0.0))
        out = made.capacity * self.valve.position * head * self.less("blocked", 0.5) * self.less("pump_worn", 0.35)
        out = np.where(self.mass > EMPTY * made.mass, out, 0.0)
        lost = 0.2 * self.wrong["leak"] * inlet.flow if "leak" in self.wrong else 0.0
        old = np.maximum(self.mass, EMPTY * made.mass)
        colder = 1.0 + 5.0 * self.wrong["insulation"] if "insulation" in self.wrong else 1.0
        lost_kw = made.loss_kw_k * colder * (self.temperature - ambient)
        self.duty = made.duty_kw * self.heat.position * self.less("fouled", 0.5)
        cooled_kw = made.jacket_kw_k * self.heat.position * self.less("fouled", 0.5) * (self.temperature - made.coolant)
        speed = made.rate_s * np.exp(
            made.activation_k * (1.0 / (made.usual + KELVIN) - 1.0 / (self.temperature + KELVIN))
        )
        turned = np.minimum(speed * self.less("catalyst", 0.5), 0.5) * self.share
        warmed = made.adiabatic_k * turned + (self.duty - lost_kw - cooled_kw) / (CP_KJ * old)
        fresh = np.minimum(inlet.flow / old, 1.0)
        self.temperature = np.clip(
            self.temperature + fresh * (inlet.temperature - self.temperature) + warmed, COLDEST, HOTTEST
        )
        self.share = np.clip(self.share + fresh * (inlet.share - self.share) - turned, 0.0, 1.0)
        self.mass = np.clip(self.mass + inlet.flow - out - lost, 0.0, 2.0 * made.mass)
        self.outlet = Stream(out, self.temperature, self.share)


class Exchanger(Block):
    """Heated or cooled by a utility through a wall: effectiveness of one stream that changes temperature, and a lag."""

    def __init__(
        self, size: int, *, utility: float, ua_kw_k: float, opening: float, hold_s: float, lag_s: float
    ) -> None:
        super().__init__(size)
        self.valve = Actuator(size, opening, lag_s)
        self.actuators = (self.valve,)
        self.utility, self.ua_kw_k, self.hold_s = utility, ua_kw_k, hold_s
        self.inlet_temperature = np.full(size, 20.0)

    def second(self, inlet: Stream) -> None:
        """One second."""
        self.valve.second(self.wrong)
        units = self.ua_kw_k * self.less("fouled", 0.5) * self.valve.position / (CP_KJ * np.maximum(inlet.flow, 1e-3))
        reached = self.utility + (inlet.temperature - self.utility) * np.exp(-units)
        self.inlet_temperature = inlet.temperature
        now = self.outlet.temperature + (reached - self.outlet.temperature) / self.hold_s
        self.outlet = Stream(inlet.flow, now, inlet.share)


class Pipe(Block):
    """A long pipe: temperature and composition arrive later, and a little cooler."""

    def __init__(self, size: int, *, delay_s: int, loss: float) -> None:
        super().__init__(size)
        self._under_way = [(np.full(size, 20.0), np.zeros(size))] * delay_s
        self.loss = loss

    def second(self, inlet: Stream, ambient: Floats) -> None:
        """One second."""
        self._under_way.append((inlet.temperature, inlet.share))
        temperature, share = self._under_way.pop(0)
        loss = self.loss * (1.0 + 5.0 * self.wrong["insulation"] if "insulation" in self.wrong else 1.0)
        self.outlet = Stream(inlet.flow, temperature - loss * (temperature - ambient), share)


class Filter(Block):
    """A filter whose cake grows with what passes until it is cleaned: pressure drop [kPa]."""

    def __init__(self, size: int, *, drop_kpa: float, usual_flow: float, full_s: float, start: float) -> None:
        super().__init__(size)
        self.drop_kpa, self.usual_flow, self.full_s = drop_kpa, usual_flow, full_s
        self.cake = np.full(size, start)
        self.drop = np.full(size, drop_kpa)

    def second(self, inlet: Stream) -> None:
        """One second; a full one is cleaned at once."""
        grown = self.cake + inlet.flow / self.usual_flow / self.full_s
        self.cake = np.where(grown >= 1.0, 0.0, grown)
        clogged = 1.0 + 1.5 * self.wrong["blocked"] if "blocked" in self.wrong else 1.0
        self.drop = self.drop_kpa * (1.0 + self.cake) * clogged * (inlet.flow / self.usual_flow) ** 2
        self.outlet = inlet
