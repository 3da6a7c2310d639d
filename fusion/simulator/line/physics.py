"""Physics of the lime-slaking line, batched: silo, feeder, belt, slaker, pump and tank with their control loops.

Every array has the batch B as its first axis; one step is ``DT_S``. Mass in kg, temperature in degC, flow in kg/s or
L/s, level as a fraction. Sources: stoichiometry of CaO + H2O -> Ca(OH)2, heat of slaking 1.14 MJ per kg CaO, Arrhenius
kinetics of first order in CaO (after Ritchie and Xu, Hydrometallurgy 1990), funnel flow with an angle of repose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from fusion.simulator.line.belt import Belt
from fusion.simulator.line.laws import SLAKER_W, TANK_L_S
from fusion.simulator.line.loops import Loops
from fusion.simulator.line.silo import Silo

Floats = NDArray[np.float64]

DT_S = 0.1
STEPS_PER_S = 10
GAS_CONSTANT = 8.314
WATER_PER_CAO = 18.02 / 56.08
HYDRATE_PER_CAO = 74.09 / 56.08
HEAT_OF_SLAKING_J = 1.14e6
CP_WATER, CP_SOLID, CP_LIME = 4186.0, 1180.0, 850.0
LATENT_HEAT_J = 2.26e6
FEEDER_KG_S, WATER_KG_S, DILUTION_L_S = 0.5, 1.6, 1.5
BELT_M_S = 0.25
AGITATOR_REV_S, AGITATOR_M, POWER_NUMBER = 1.5, 0.75, 1.2
RTD_LAG_S = 18.0
LIME_PRICE, WATER_PRICE, POWER_PRICE = 0.14, 0.002, 0.12  # per kg, per kg and per kWh
OTHER_POWER_W = 4e3
SPREAD = (
    "slaker_m3",
    "tank_m3",
    "rate_80_per_s",
    "heat_loss_w_k",
    "friction",
)  # what widely different plants differ in


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """One line's constants; a plant of the same kind differs in these."""

    water_degc: float = 15.0
    cao: float = 0.90
    reactivity: float = 1.0
    silo_level_m: float = 3.9
    demand_l_s: float = 1.0
    activation_j: float = 50_000.0
    rate_80_per_s: float = 1.0 / 150.0
    heat_loss_w_k: float = 250.0
    ambient_degc: float = 20.0
    repose_deg: float = 38.0
    channel_m: float = 0.45
    friction: float = 3.2e6
    slaker_m3: float = 2.0
    tank_m3: float = 8.0
    noise: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Parameters:
        """Feed and weather of one ordinary day."""
        return cls(
            water_degc=rng.uniform(9.0, 21.0),
            cao=rng.uniform(0.86, 0.94),
            reactivity=rng.uniform(0.8, 1.2),
            silo_level_m=rng.uniform(3.2, 4.4),
            demand_l_s=rng.uniform(0.85, 1.15),
            activation_j=rng.uniform(45_000.0, 55_000.0),
        )

    def another_plant(self, rng: np.random.Generator, spread: float = 1.0) -> Parameters:
        """The same day on another plant of the kind: other kinetics, geometry and instruments.

        With a ``spread`` above one, volumes, kinetics, friction and heat loss are drawn about the nominal ones instead,
        the largest as many times the smallest.
        """
        drawn = replace(
            self,
            activation_j=rng.uniform(42_000.0, 58_000.0),
            rate_80_per_s=1.0 / rng.uniform(110.0, 210.0),
            heat_loss_w_k=rng.uniform(150.0, 400.0),
            friction=rng.uniform(2.7e6, 3.7e6),
            repose_deg=rng.uniform(33.0, 42.0),
            channel_m=rng.uniform(0.38, 0.52),
            slaker_m3=rng.uniform(1.7, 2.4),
            tank_m3=rng.uniform(6.5, 9.5),
            noise=rng.uniform(0.7, 1.5),
        )
        if spread <= 1.0:
            return drawn
        nominal = Parameters()
        wide = {name: getattr(nominal, name) * spread ** rng.uniform(-0.5, 0.5) for name in SPREAD}
        return replace(drawn, **wide)


class Line:
    """B lines side by side; ``fault`` and ``sp`` are set from outside, ``truth`` and ``tags`` are read."""

    def __init__(self, parameters: Sequence[Parameters]) -> None:
        self.size = len(parameters)
        self.p = {f.name: np.array([getattr(p, f.name) for p in parameters]) for f in fields(Parameters)}
        self.silo = Silo(self.p["silo_level_m"], self.p["repose_deg"], self.p["channel_m"])
        self.belt = Belt(self.size, BELT_M_S)
        self.fault: dict[str, Floats] = {}
        self.manual = np.zeros(self.size, bool)
        self.broken: dict[str, Floats] = {}
        self.unheard: dict[tuple[int, str], float] = {}
        self.followed: dict[tuple[int, str], float] = {}
        self.water, self.lime, self.hydrate, self.inert = (
            self._full(v) * self.p["slaker_m3"] / 2.0 for v in (1085.0, 6.0, 320.0, 30.0)
        )
        self.temperature = self._full(80.0)
        self.rtd = self._full(80.0)
        self.tank_l, self.tank_solids = 600.0 * self.p["tank_m3"], self._full(0.18)
        self.lime_in = self._full(0.18)
        self.scale = self._full(0.72)
        self.demand = self.p["demand_l_s"].copy()
        self.cao, self.reactivity = self.p["cao"].copy(), self.p["reactivity"].copy()
        self.vibrator, self.refill = self._full(0.0), self._full(0.0)
        self.feed_noise = self._full(0.0)
        self.sp = {
            "TIC101.SP": self._full(80.0),
            "LIC101.SP": self._full(0.62),
            "DIC201.SP": self._full(0.18),
            "LIC201.SP": self._full(0.60),
            "SC103.SP": self._full(1.0),
            "ST102.SP": self._full(1.0),
        }
        self.agitator, self.belt_drive = self._full(1.0), self._full(1.0)
        self.loops = Loops(self.size)
        self.phase = {name: self._full(0.0) for name in ("belt", "agitator", "pump")}
        self._derived()
        self.begin()

    def _full(self, value: float) -> Floats:
        return np.full(self.size, value)

    def f(self, name: str) -> Floats | float:
        """Present severity of a fault, 0..1."""
        return self.fault.get(name, 0.0)

    def begin(self) -> None:
        """Once per second, before its steps: what drives, valves, faults and the day hold still until its end."""
        self._feed()
        self._stir()
        self._pipe()

    def step(self) -> None:
        """Advance by ``DT_S``."""
        out, load = self.belt.step(self.feed_rate, self.belt_m_s, DT_S)
        self.lime_in += 0.5 * (out - self.lime_in)
        self.scale += DT_S * (load * self._scale_gain - self.scale)
        self._slaker()
        self._storage()

    def second(self, measured: Mapping[str, Floats]) -> None:
        """Once per second, after its steps: loops act on what they measure, shafts have turned, the silo settles."""
        for name, rev_s in self.shafts().items():
            self.phase[name] += rev_s
        self.loops.act(measured, self._heard(), self.manual)
        self.agitator += 0.2 * (self.sp["SC103.SP"] - self.agitator)
        self.belt_drive += 0.3 * (self.sp["ST102.SP"] - self.belt_drive)
        rathole = self.f("rat_hole")
        stuck = self.f("bridging")
        self.silo.second(self.feed_rate, self.refill, rathole, stuck)

    def _heard(self) -> Mapping[str, Floats]:
        """The setpoints as the loops take them: those shown, unless a law about actions is broken."""
        if not self.unheard:
            return self.sp
        heard = {name: value.copy() for name, value in self.sp.items()}
        for (row, name), was in self.unheard.items():
            heard[name][row] = was + self.followed[row, name] * (heard[name][row] - was)
        return heard

    def _feed(self) -> None:
        bridge = 1.0 - self.f("bridging") * (1.0 - self.vibrator)
        available = self.silo.available() * bridge * (1.0 - 0.6 * self.f("chute_block"))
        self.feed_rate = FEEDER_KG_S * self.loops.feeder * available * (1.0 + self.feed_noise)
        self.drive_m_s = BELT_M_S * self.belt_drive
        self.belt_m_s = self.drive_m_s * (1.0 - 0.5 * self.f("belt_slip"))
        self._scale_gain = 1.0 + 0.15 * self.f("scale_drift")

    def _stir(self) -> None:
        p, blade = self.p, self.f("agitator_blade")
        mixing = 0.4 + 0.6 * np.minimum(1.0, self.agitator) * (1.0 - 0.5 * blade)
        quick = self.reactivity * (1.0 - 0.5 * self.f("low_reactivity"))
        self._barrier_k = p["activation_j"] / GAS_CONSTANT
        self._rate_per_s = p["rate_80_per_s"] * np.exp(self._barrier_k / 353.15) * mixing * quick
        turning = POWER_NUMBER * (AGITATOR_REV_S * self.agitator) ** 3 * AGITATOR_M**5
        self._stirring_w = turning * (1.0 - 0.3 * blade)
        self.water_flow = WATER_KG_S * self.loops.water * (1.0 - 0.35 * self.f("water_valve_blocked"))
        self._water_w_k = self.water_flow * CP_WATER
        law = SLAKER_W * self.broken.get("heat_without_lime", 0.0)
        self._inlet_w = self._water_w_k * p["water_degc"] + p["heat_loss_w_k"] * p["ambient_degc"] + law
        self._outlet_w_k = self._water_w_k + p["heat_loss_w_k"]

    def _pipe(self) -> None:
        self.head_m = 18.0 * self.loops.pump**2
        self._friction = self.p["friction"] * (1.0 + 3.0 * self.f("line_scaling"))
        self._pumping = 1000.0 * (1.0 - 0.05 * self.f("cavitation"))
        self.dilution_l_s = DILUTION_L_S * self.loops.dilution
        law = TANK_L_S * self.broken.get("level_without_inflow", 0.0)
        self._tank_gain = DT_S * (self.dilution_l_s - self.demand - 0.12 * self.f("leak") + law)

    def _derived(self) -> None:
        mass = self.water + self.lime + self.hydrate + self.inert
        self.mass = mass
        self.solids = (self.lime + self.hydrate + self.inert) / mass
        self.density = 1000.0 * (1.0 + 0.65 * (self.hydrate + self.inert) / mass)
        self.level = mass / self.density / self.p["slaker_m3"]

    def _slaker(self) -> None:
        self._derived()
        warm, lime_in = self.temperature, self.lime_in
        rate = self._rate_per_s * np.exp(-self._barrier_k / (warm + 273.15)) * self.lime
        vapour = 0.004 * np.exp(np.minimum(0.12 * (warm - 95.0), 3.0))
        flow = np.sqrt(np.maximum(0.0, self.head_m - 4.0 - 2.0 * self.level) / self._friction)
        self.slurry_l_s = self._pumping * flow
        out = self.slurry_l_s / 1000.0 * self.density
        self.agitator_w = self._stirring_w * self.density * (1.0 + 4.0 * np.maximum(0.0, self.solids - 0.18))
        heat = HEAT_OF_SLAKING_J * rate + self._inlet_w - self._outlet_w_k * warm - vapour * LATENT_HEAT_J
        heat += lime_in * CP_LIME * (self.p["ambient_degc"] - warm) + self.agitator_w
        share = DT_S * out / self.mass
        self.temperature = warm + DT_S * heat / (self.water * (CP_WATER - CP_SOLID) + self.mass * CP_SOLID)
        self.hydrate_rate = out * self.hydrate / self.mass
        self.water += DT_S * (self.water_flow - WATER_PER_CAO * rate - vapour) - share * self.water
        self.hydrate += DT_S * HYDRATE_PER_CAO * rate - share * self.hydrate
        self.lime += DT_S * (lime_in * self.cao - rate) - share * self.lime
        self.inert += DT_S * lime_in * (1.0 - self.cao) - share * self.inert
        self.rtd += DT_S / RTD_LAG_S * (self.temperature - self.rtd)

    def _storage(self) -> None:
        inflow = DT_S * self.slurry_l_s
        gain = inflow * (self.solids - self.tank_solids) - DT_S * self.dilution_l_s * self.tank_solids
        self.tank_solids += gain / np.maximum(self.tank_l, 300.0)
        level_l = self.tank_l + inflow + self._tank_gain
        self.tank_l = np.minimum(np.maximum(level_l, 200.0), 1000.0 * self.p["tank_m3"])

    def shafts(self) -> dict[str, Floats]:
        """Motor shaft speeds [rev/s] of belt, agitator and pump."""
        return {"belt": 24.0 * self.belt_drive, "agitator": 25.0 * self.agitator, "pump": 48.0 * self.loops.pump}

    def tags(self) -> dict[str, Floats]:
        """What perfect instruments would read; noise and drift are added by ``sensors``."""
        loops = self.loops
        return {
            "LT001": self.silo.point_level(),
            "SC101": loops.feeder,
            "IT101": 1.2 + 2.0 * loops.feeder * (1.0 + 1.2 * self.f("chute_block")),
            "ST102": self.drive_m_s,
            "WT101": self.scale * self.drive_m_s,
            "WT101M": self.scale,
            "IT102": 1.5 + 1.6 * self.belt.mass(),
            "TT101": self.rtd - 6.0 * self.f("thermometer_drift") - 18.0 * self.f("boil_over"),
            "TT102": self.rtd - 18.0 * self.f("boil_over"),
            "LT101": self.level,
            "FT101": self.water_flow,
            "FV101": loops.water,
            "IT103": 3.0 + self.agitator_w / 250.0,
            "FT102": self.slurry_l_s,
            "PT102": self.head_m * 9.81e-5 * self.density,
            "IT104": 2.0 + 6.0 * loops.pump**2 * (1.0 + 0.2 * self.slurry_l_s),
            "DT201": self.tank_solids,
            "LT201": self.tank_l / (1000.0 * self.p["tank_m3"]),
            "FV201": loops.dilution,
            "FT103": self.demand,
            "TT103": self.p["water_degc"],
            "WIC101.SP": loops.lime_sp,
            "SC102": loops.pump,
            **self.sp,
            "VIB001": self.vibrator,
            "XV001": (self.refill > 0.0).astype(float),
        }

    def truth(self) -> dict[str, Floats]:
        """Hidden states, one value per line."""
        utilisation = np.clip(1.0 - 0.0085 * np.maximum(0.0, 85.0 - self.temperature), 0.5, 1.0)
        active = self.hydrate_rate * utilisation
        power_kw = (self.agitator_w + OTHER_POWER_W) / 1e3
        made = np.maximum(active, 1e-3)
        cost = LIME_PRICE * self.lime_in + WATER_PRICE * self.water_flow + POWER_PRICE * power_kw / 3600.0
        return {
            "silo_level_m": self.silo.mean_level(),
            "silo_centre_m": self.silo.centre(),
            "silo_volume_m3": self.silo.volume(),
            "feed_rate_kg_s": self.feed_rate,
            "belt_m_s": self.belt_m_s,
            "belt_mass_kg": self.belt.mass(),
            "slaker_degc": self.temperature,
            "unreacted_lime": self.lime / self.mass,
            "cao": self.cao,
            "reactivity": self.reactivity,
            "slurry_l_s": self.slurry_l_s,
            "utilisation": utilisation,
            "active_hydrate_kg_s": active,
            "lime_kg_per_kg": self.lime_in / made,
            "water_kg_per_kg": (self.water_flow + self.dilution_l_s) / made,
            "power_kwh_per_kg": power_kw / 3600.0 / made,
            "cost_per_kg": cost / made,
        }
