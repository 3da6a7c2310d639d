"""Flowsheets at random: what a plant is made of, how large it is, what is measured, and what is controlled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant, Role, Signal
from fusion.simulator.flowsheets.blocks import (
    CP_KJ,
    Actuator,
    Block,
    Exchanger,
    Feed,
    Filter,
    Kettle,
    Pipe,
    Vessel,
)
from fusion.simulator.flowsheets.sheet import Loop, Node, Point, Sheet, Weather
from fusion.simulator.line.loops import Pi
from fusion.simulator.noise import keyed

Floats = NDArray[np.float64]

FEWEST, MOST = 3, 8  # blocks of the main line behind its first feed
LATER = ("vessel", "heater", "reactor", "exchanger", "pipe", "filter")
WEIGHTS = (0.25, 0.2, 0.2, 0.15, 0.1, 0.1)
VESSELS = {"vessel": "Tank", "heater": "Heater", "reactor": "Reactor"}
SIDE_FEED, RECYCLE, SOLIDS, MOVABLE = 0.4, 0.4, 0.25, 0.7  # how often there is one
SEEN = {"level": 1.0, "flow": 0.8, "temperature": 0.95, "share": 0.35, "output": 0.8, "current": 0.5, "drop": 1.0}
"""How often what could be measured is measured; what a loop needs always is."""


@dataclass(slots=True)
class _Draft:
    """A plant in the making: the stream that leaves its last block in normal operation, and what there is so far.

    ``recycle`` is the number of the vessel into which a share of what leaves the last block flows back.
    """

    size: int
    rng: np.random.Generator
    recycle: tuple[int, float] | None = None
    flow: float = 0.0
    temperature: float = 20.0
    share: float = 0.0
    nodes: list[Node] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)

    def between(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def add(self, name: str, block: Block, inlets: tuple[tuple[str, float], ...] = ()) -> None:
        self.nodes.append(Node(name=name, block=block, inlets=inlets))

    def look(
        self, letters: str, quantity: str, read: Callable[[], Floats], low: float, high: float, unit: str, text: str,
        *, needed: bool = False, role: Role = Role.MEASURED,
    ) -> str:  # fmt: skip
        """An instrument at the last block, if this plant has it; its signal's name or nothing."""
        if not needed and self.rng.uniform() > SEEN[quantity]:
            return ""
        node = self.nodes[-1].name
        name = f"{letters}{100 * len(self.nodes) + sum(p.node == node for p in self.points) + 1}"
        machine = quantity in ("output", "current")
        self.signals.append(
            Signal(
                name=name, modality=Modality.PROCESS, unit=unit, low=low, high=high, role=role, machine=machine,
                description=f"{node} {text}", equipment=node,
            )
        )  # fmt: skip
        noise = (high - low) * self.between(5e-4, 4e-3) * (0.3 if quantity == "output" else 1.0)
        self.points.append(Point(signal=name, node=node, read=read, noise=noise))
        return name

    def control(
        self, measured: str, actuator: Actuator, controller: Pi, target: float, band: tuple[float, float], rate: float
    ) -> None:
        """A loop on a signal; most let an operator move the setpoint within ``band``."""
        name = ""
        if self.rng.uniform() < MOVABLE:
            signal = next(s for s in self.signals if s.name == measured)
            name = f"{measured[0]}IC{measured[2:]}.SP"
            self.signals.append(
                Signal(
                    name=name, modality=Modality.PROCESS, unit=signal.unit, low=band[0], high=band[1], max_rate=rate,
                    role=Role.MANIPULATED, description=f"{signal.description} setpoint", equipment=signal.equipment,
                )
            )  # fmt: skip
        bias = float(actuator.command[0])
        setpoint = np.full(self.size, target)
        self.loops.append(
            Loop(measured=measured, actuator=actuator, controller=controller, bias=bias, setpoint=setpoint, name=name)
        )


def draw(seed: int, rows: int = 1) -> Sheet:
    """The flowsheet of a seed, to be played on so many rows."""
    draft = _Draft(rows, keyed(seed, "flowsheet", 0))
    rng = draft.rng
    _feed(draft, "Feed 1", draft.between(0.3, 6.0), solids=bool(rng.uniform() < SOLIDS))
    kinds = [str(k) for k in rng.choice(LATER, int(rng.integers(FEWEST, MOST + 1)), p=WEIGHTS)]
    if not (vessels := [number for number, kind in enumerate(kinds, 1) if kind in VESSELS]):
        kinds[0], vessels = "vessel", [1]
    if rng.uniform() < RECYCLE:
        draft.recycle = int(rng.choice(vessels)), float(rng.uniform(0.1, 0.3))
    for number, kind in enumerate(kinds, 1):
        ADDED[kind](draft, number)
    _close(draft)
    weather = Weather(
        supply=draft.between(0.005, 0.04), warmth=draft.between(0.3, 3.0), purity=draft.between(0.003, 0.02),
        ambient=draft.between(1.0, 6.0),
    )  # fmt: skip
    plant = Plant(name=f"flowsheet-{seed}", step_s=1.0, signals=tuple(draft.signals))
    return Sheet(
        plant=plant, nodes=tuple(draft.nodes), loops=tuple(draft.loops), points=tuple(draft.points), weather=weather
    )


def _feed(draft: _Draft, name: str, flow: float, *, solids: bool) -> None:
    rng, opening = draft.rng, float(draft.rng.uniform(0.4, 0.65))
    temperature, share = float(rng.uniform(8.0, 35.0)), float(rng.uniform(0.1, 0.9))
    feed = Feed(
        draft.size, capacity=flow / opening, start=opening, temperature=temperature, share=share,
        lag_s=draft.between(1.5, 6.0), belt_s=int(rng.integers(5, 40)) if solids else 0,
    )  # fmt: skip
    draft.add(name, feed)
    top = 1.8 * flow
    letters, text = ("WT", "belt load") if solids else ("FT", "flow")
    measured = draft.look(
        letters, "flow", lambda: feed.taken, 0.0, top, "kg/s", text, needed=True, role=Role.CONTROLLED
    )
    draft.look(
        "TT", "temperature", lambda: feed.outlet.temperature, -5.0, 60.0, "Cel", "temperature", role=Role.DISTURBANCE
    )
    draft.look("AT", "share", lambda: feed.outlet.share, 0.0, 1.0, "1", "composition", role=Role.DISTURBANCE)
    _output(draft, feed.drive, "SC" if solids else "FV", "speed" if solids else "valve")
    if solids:
        draft.look("IT", "current", lambda: 2.0 + 8.0 * _load(feed, top), 0.0, 12.0, "A", "motor current")
    gain = float(rng.uniform(0.15, 0.4)) / feed.capacity
    controller = Pi(draft.size, gain=gain, integral_s=draft.between(6.0, 15.0), low=0.0, high=1.0)
    draft.control(measured, feed.drive, controller, flow, (0.75 * flow, 1.25 * flow), 0.02 * flow)
    weight = draft.flow + flow
    draft.temperature = (draft.flow * draft.temperature + flow * temperature) / weight
    draft.share = (draft.flow * draft.share + flow * share) / weight
    draft.flow = weight


def _load(feed: Feed, top: float) -> Floats:
    """Share of its power that a belt's drive gives: for itself and for what lies on it."""
    return feed.drive.position * (0.4 + 0.6 * feed.taken / top)


def _output(draft: _Draft, actuator: Actuator, letters: str, text: str) -> None:
    draft.look(letters, "output", lambda: actuator.position, 0.0, 1.0, "1", text)


def _before(draft: _Draft) -> tuple[tuple[str, float], ...]:
    return ((draft.nodes[-1].name, 1.0),)


def _vessel(draft: _Draft, number: int, kind: str = "vessel") -> None:
    """A stirred vessel with level control or a free outlet, heated, cooled with a reaction in it, or neither."""
    rng, inlets = draft.rng, list(_before(draft))
    if rng.uniform() < SIDE_FEED:
        _feed(draft, f"Feed {number + 1}", draft.flow * float(rng.uniform(0.1, 0.6)), solids=False)
        inlets.append((draft.nodes[-1].name, 1.0))
    if draft.recycle is not None and draft.recycle[0] == number:
        draft.flow /= 1.0 - draft.recycle[1]
    residence_s, opening = draft.between(90.0, 1500.0), float(rng.uniform(0.4, 0.65))
    mass, heat_kw = draft.flow * residence_s, draft.flow * CP_KJ
    loss = heat_kw * draft.between(0.003, 0.03)
    extra, heat = {}, 0.0
    if kind == "heater":
        heat, rise = float(rng.uniform(0.4, 0.6)), float(rng.uniform(15.0, 45.0))
        draft.temperature += rise
        extra = {"duty_kw": (heat_kw * rise + loss * (draft.temperature - 20.0)) / heat}
    if kind == "reactor":
        heat, extra = _reaction(draft, residence_s, heat_kw)
    pumped = bool(rng.uniform() < 0.65)
    made = Kettle(
        mass=mass, capacity=draft.flow / opening, usual=draft.temperature, loss_kw_k=loss, pumped=pumped, **extra
    )
    lag_s = draft.between(1.5, 6.0)
    vessel = Vessel(draft.size, made, share=draft.share, opening=opening, heat=heat, lag_s=lag_s)
    draft.add(f"{VESSELS[kind]} {number}", vessel, tuple(inlets))
    _level(draft, vessel, residence_s, controlled=pumped or rng.uniform() < 0.5)
    if kind != "vessel":
        _temperature(draft, vessel, residence_s, cools=kind == "reactor")
    else:
        draft.look("TT", "temperature", lambda: vessel.temperature, 0.0, 150.0, "Cel", "temperature")
    draft.look("AT", "share", lambda: vessel.share, 0.0, 1.0, "1", "composition")
    draft.look("FT", "flow", lambda: vessel.outlet.flow, 0.0, 1.8 * draft.flow, "kg/s", "outlet flow")
    draft.look("IT", "current", lambda: 12.0 * vessel.effort, 0.0, 20.0, "A", "pump motor current")


def _reaction(draft: _Draft, residence_s: float, heat_kw: float) -> tuple[float, dict[str, float]]:
    """Opening of the jacket and parameters of a reaction that turns a part and is cooled to a temperature."""
    rng = draft.rng
    turned, adiabatic = float(rng.uniform(0.4, 0.8)), float(rng.uniform(15.0, 60.0))
    temperature = float(rng.uniform(45.0, 80.0))
    made_kw = heat_kw * adiabatic * draft.share * turned
    warm_up = heat_kw * (temperature - draft.temperature)
    draft.share *= 1.0 - turned
    opening, coolant = float(rng.uniform(0.35, 0.6)), 15.0
    cooled = made_kw - warm_up
    if cooled < 0.1 * heat_kw:  # not warm enough of itself: runs cooler
        temperature = draft.temperature + 0.6 * made_kw / heat_kw
        cooled = 0.4 * made_kw
    draft.temperature = temperature
    return opening, {
        "jacket_kw_k": cooled / (opening * max(temperature - coolant, 3.0)),
        "coolant": coolant,
        "rate_s": turned / (1.0 - turned) / residence_s,
        "activation_k": float(rng.uniform(4000.0, 8000.0)),
        "adiabatic_k": adiabatic,
    }


def _level(draft: _Draft, vessel: Vessel, residence_s: float, *, controlled: bool) -> None:
    level = draft.look(
        "LT",
        "level",
        lambda: vessel.level,
        0.0,
        100.0,
        "%",
        "level",
        needed=controlled,
        role=Role.CONTROLLED if controlled else Role.MEASURED,
    )
    if not controlled:
        return
    _output(draft, vessel.valve, "LV", "outlet valve")
    per_percent = vessel.made.mass / 50.0 / vessel.made.capacity  # seconds of full flow
    closed_s = min(0.35 * residence_s, 200.0)
    controller = Pi(draft.size, gain=-per_percent / closed_s, integral_s=4.0 * closed_s, low=0.0, high=1.0)
    draft.control(level, vessel.valve, controller, 50.0, (35.0, 65.0), 0.2)


def _temperature(draft: _Draft, vessel: Vessel, residence_s: float, *, cools: bool) -> None:
    made, usual = vessel.made, vessel.made.usual
    reading = draft.look(
        "TT",
        "temperature",
        lambda: vessel.temperature,
        0.0,
        150.0,
        "Cel",
        "temperature",
        needed=True,
        role=Role.CONTROLLED,
    )
    _output(draft, vessel.heat, "TV", "cooling valve" if cools else "steam valve")
    full_kw = made.jacket_kw_k * (usual - made.coolant) if cools else made.duty_kw
    gain_s = made.mass * CP_KJ / full_kw  # seconds of full duty for one kelvin
    closed_s = min(0.4 * residence_s, 150.0)
    controller = Pi(
        draft.size, gain=(-1.0 if cools else 1.0) * gain_s / closed_s, integral_s=4.0 * closed_s, low=0.0, high=1.0
    )
    draft.control(reading, vessel.heat, controller, usual, (usual - 4.0, usual + 4.0), 0.05)


def _exchanger(draft: _Draft, number: int) -> None:
    rng, opening = draft.rng, float(draft.rng.uniform(0.35, 0.6))
    cools = draft.temperature > 55.0
    utility = 12.0 if cools else float(rng.uniform(95.0, 140.0))
    before = draft.temperature
    draft.temperature += (utility - before) * float(rng.uniform(0.25, 0.5))
    units = -np.log((draft.temperature - utility) / (before - utility))
    ua = float(units) * CP_KJ * draft.flow / opening
    block = Exchanger(
        draft.size, utility=utility, ua_kw_k=ua, opening=opening, hold_s=draft.between(15.0, 60.0),
        lag_s=draft.between(1.5, 6.0),
    )  # fmt: skip
    block.outlet.temperature = np.full(draft.size, draft.temperature)
    draft.add(f"{'Cooler' if cools else 'Exchanger'} {number}", block, _before(draft))
    draft.look("TT", "temperature", lambda: block.inlet_temperature, 0.0, 150.0, "Cel", "inlet temperature")
    reading = draft.look(
        "TT",
        "temperature",
        lambda: block.outlet.temperature,
        0.0,
        150.0,
        "Cel",
        "outlet temperature",
        needed=True,
        role=Role.CONTROLLED,
    )
    _output(draft, block.valve, "TV", "utility valve")
    slope = abs(utility - draft.temperature) * float(units) / opening  # kelvin for the whole valve
    controller = Pi(
        draft.size, gain=(-1.0 if cools else 1.0) * 0.5 / slope, integral_s=1.5 * block.hold_s, low=0.0, high=1.0
    )
    draft.control(
        reading, block.valve, controller, draft.temperature, (draft.temperature - 4.0, draft.temperature + 4.0), 0.05
    )


def _pipe(draft: _Draft, number: int) -> None:
    block = Pipe(draft.size, delay_s=int(draft.rng.integers(20, 240)), loss=draft.between(0.005, 0.04))
    draft.add(f"Pipe {number}", block, _before(draft))
    draft.look("TT", "temperature", lambda: block.outlet.temperature, 0.0, 150.0, "Cel", "temperature at the end")
    draft.look("FT", "flow", lambda: block.outlet.flow, 0.0, 1.8 * draft.flow, "kg/s", "flow")


def _filter(draft: _Draft, number: int) -> None:
    usual = draft.between(15.0, 80.0)
    block = Filter(
        draft.size, drop_kpa=usual, usual_flow=draft.flow, full_s=draft.between(4.0, 30.0) * 3600.0,
        start=float(draft.rng.uniform()),
    )  # fmt: skip
    draft.add(f"Filter {number}", block, _before(draft))
    draft.look("PDT", "drop", lambda: block.drop, 0.0, 5.0 * usual, "kPa", "pressure drop", needed=True)


def _close(draft: _Draft) -> None:
    """Lead a share of what leaves the last block back into the vessel that was drawn for it."""
    if draft.recycle is None:
        return
    number, share = draft.recycle
    last = (draft.nodes[-1].name, share)
    for i, node in enumerate(draft.nodes):
        if isinstance(node.block, Vessel) and node.name.endswith(f" {number}"):
            draft.nodes[i] = replace(node, inlets=(*node.inlets, last))


ADDED: dict[str, Callable[[_Draft, int], None]] = {
    "vessel": _vessel,
    "heater": lambda draft, number: _vessel(draft, number, "heater"),
    "reactor": lambda draft, number: _vessel(draft, number, "reactor"),
    "exchanger": _exchanger,
    "pipe": _pipe,
    "filter": _filter,
}
