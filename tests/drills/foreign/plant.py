"""A pasteuriser that no simulator of ours knows: tank, pump, exchanger, PI loops; camera and microphone at the pump.

Only numpy: `servers.py` serves it from a process of its own. Flows in m3/h, levels in %, temperatures in Cel, rpm.
"""

import json
import math
from pathlib import Path

import numpy as np

FAULTS = (
    "fouling", "pump_wear", "leak", "stiction", "drift", "frozen_level",
    "object", "dirt", "stuck_wheel", "frozen_camera", "dark", "squeal", "silence", "bad_quality", "clock_1h",
)  # fmt: skip
HEIGHT, WIDTH, PICTURES_HZ, SOUND_HZ = 240, 320, 10, 16_000
STEP_S = 1.0 / PICTURES_HZ
FLOWS = (14.0, 17.0, 20.0)
"""The setpoints between which the shift changes the flow."""
RAMP_S = 60.0
TAGS = json.loads((Path(__file__).parent / "tags.json").read_text())
"""What the server calls what `Pasteuriser.values` shows."""


class Wander:
    """Something that wanders around zero: deviation, and time to forget [s]."""

    def __init__(self, deviation, memory_s, rng):
        self.deviation, self.keep, self.rng = deviation, math.exp(-STEP_S / memory_s), rng
        self.value = deviation * rng.normal()

    def step(self):
        self.value = self.keep * self.value + self.deviation * math.sqrt(1 - self.keep**2) * self.rng.normal()
        return self.value


class Loop:
    """A PI controller with limits from 0 to 100 %."""

    def __init__(self, gain, reset_s, setpoint, output):
        self.gain, self.reset_s, self.setpoint, self.integral = gain, reset_s, setpoint, output
        self.output = output

    def step(self, measured):
        error = self.setpoint - measured
        self.output = min(100.0, max(0.0, self.integral + self.gain * error))
        if 0.0 < self.output < 100.0:
            self.integral += self.gain * error * STEP_S / self.reset_s
        return self.output


class Pasteuriser:
    """The plant itself; `step` goes on by a tenth of a second, `faults` are severities by name."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.faults = {}
        self._since = {}
        self.t_s = 0.0
        self.level, self.feed, self.speed, self.flow = 60.0, 17.0, 1150.0, 17.0
        self.outlet, self.wall, self.bearing, self.valve = 72.0, 71.0, 42.0, 21.0
        self.flow_loop = Loop(1.2, 6.0, 17.0, 60.0)
        self.level_loop = Loop(2.0, 180.0, 60.0, 55.0)
        self.heat_loop = Loop(1.5, 40.0, 72.0, 21.0)
        self.steam, self.inlet = Wander(0.12, 90.0, self.rng), Wander(0.8, 300.0, self.rng)
        self.back, self.supply = Wander(0.06, 20.0, self.rng), Wander(0.25, 60.0, self.rng)
        self.next_change_s = 60.0
        self.hours, self.beat, self.total = 10_432.0, 0, 98_231.0
        self._held_level = None

    def order(self, name, severity):
        if name == "clear":
            self.faults.clear()
            self._since.clear()
        elif name in FAULTS:
            self.faults[name] = severity
            self._since.setdefault(name, self.t_s)

    def of(self, name, ramp_s=0.0):
        """The severity of a fault now, grown over a time."""
        severity = self.faults.get(name, 0.0)
        return severity * min(1.0, (self.t_s - self._since[name]) / ramp_s) if severity and ramp_s else severity

    def step(self):
        self.t_s += STEP_S
        self._shift()
        measured = self.measured_outlet = self.outlet + 4.0 * self.of("drift", RAMP_S)
        self.flow_loop.step(self.flow)
        self.level_loop.step(self.level)
        asked = self.heat_loop.step(measured)
        if abs(asked - self.valve) > 6.0 * self.of("stiction"):
            self.valve += (asked - self.valve) * STEP_S / 1.5
        self._pump()
        self._heat()
        feed = 0.32 * self.level_loop.output * (1 + 0.04 * self.supply.step())
        self.feed += (feed - self.feed) * STEP_S / 4.0
        lost = 2.5 * self.of("leak")
        self.level += (self.feed - self.flow - lost) / 3600.0 / 2.0 * 100.0 * STEP_S
        self.hours += STEP_S / 3600.0
        self.total += self.flow * STEP_S / 3600.0

    def _shift(self):
        if self.t_s >= self.next_change_s:
            self.flow_loop.setpoint = float(self.rng.choice([f for f in FLOWS if f != self.flow_loop.setpoint]))
            self.next_change_s = self.t_s + self.rng.uniform(150.0, 420.0)

    def _pump(self):
        speed = 600.0 + 9.0 * self.flow_loop.output
        self.speed += (speed - self.speed) * STEP_S / 2.0
        worn = 1.0 - 0.15 * self.of("pump_wear", RAMP_S)
        flow = worn * 0.0149 * self.speed * (1.0 + 0.06 * (self.level - 60.0) / 60.0) * (1 - 0.4 * self.back.step())
        self.flow += (flow - self.flow) * STEP_S / 1.2
        self.power = 0.9 + 4.2 * (self.speed / 1500.0) ** 3 + 0.05 * self.flow
        warm = 30.0 + 3.4 * self.power + 8.0 * self.of("squeal", 300.0)
        self.bearing += (warm - self.bearing) * STEP_S / 240.0

    def _heat(self):
        self.steam_bar = 3.0 + self.steam.step()
        self.inlet_c = 8.0 + self.inlet.step()
        steam = 0.235 * self.valve * self.steam_bar / 3.0
        self.wall += (135.0 * (0.3 + 0.01 * self.valve * self.steam_bar / 3.0) / 1.0 - self.wall) * STEP_S / 15.0
        exchange = (1.0 - 0.35 * self.of("fouling", RAMP_S)) * (1 - math.exp(-38.0 / max(self.flow, 2.0)))
        reached = self.inlet_c + (self.wall + 22.0 - self.inlet_c) * exchange * 0.86
        self.outlet += (reached - self.outlet) * STEP_S / 9.0
        self.steam_flow = steam * 40.0
        self.condensate = self.wall * 0.9 + 10.0
        self.fall_mbar = 1.15 * self.flow**1.8 * (1 + 0.5 * self.of("fouling", RAMP_S))

    # --- what instruments show

    def values(self):
        """What every tag shows, by its name in `TAGS`; strings and booleans among them."""
        noise = self.rng.normal
        self.beat = (self.beat + 1) % 256
        level = self.level + noise(0, 0.08)
        if self.of("frozen_level"):
            self._held_level = level = self._held_level or level
        else:
            self._held_level = None
        head = 2.1 * (self.speed / 1200.0) ** 2 * (1 - 0.2 * self.of("pump_wear", RAMP_S)) + noise(0, 0.01)
        return {
            "niv_pv": level, "niv_sp": self.level_loop.setpoint, "niv_out": self.level_loop.output, "niv_mode": True,
            "f_pv": self.flow + noise(0, 0.06), "f_sp": self.flow_loop.setpoint, "f_op": self.flow_loop.output,
            "f_mode": 1, "t_mes": self.measured_outlet + noise(0, 0.05), "t_con": self.heat_loop.setpoint,
            "t_sor": self.heat_loop.output, "t_auto": True,
            "t_ent": self.inlet_c + noise(0, 0.05), "t_cond": self.condensate + noise(0, 0.15),
            "p_vap": self.steam_bar + noise(0, 0.008), "q_vap": self.steam_flow + noise(0, 2.0),
            "valve_pos": self.valve + noise(0, 0.15), "dp": self.fall_mbar + noise(0, 1.5),
            "rpm": round(self.speed + noise(0, 1.5)), "amp": 2.0 + 2.1 * self.power + noise(0, 0.05),
            "kw": self.power + noise(0, 0.02), "bar": head, "suction": 0.25 + 0.004 * self.level + noise(0, 0.003),
            "brg": self.bearing + noise(0, 0.08), "vib": 1.1 + 0.8 * (self.speed / 1200.0) ** 2
            + 3.0 * self.of("squeal", RAMP_S) * 0.3 + abs(noise(0, 0.08)),
            "feed": self.feed + noise(0, 0.08), "ambient": 21.0 + 0.6 * math.sin(self.t_s / 2400.0) + noise(0, 0.05),
            "hours": self.hours, "total": self.total, "beat": self.beat, "run": True, "alarmword": 0,
            "recipe": "LAIT-3,5%", "kp": 1.2, "ti": 6.0, "spare": None,
        }  # fmt: skip


# --- what the camera and the microphone at the pump get


class Eye:
    """Pictures [H, W] uint8 of a flow wheel beside a wall and a gauge; it turns with the flow."""

    def __init__(self, plant, seed=1):
        self.plant, self.rng, self.angle, self.last = plant, np.random.default_rng(seed), 0.0, None
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        self.scene = 95 + 25 * np.sin(x / 23) * np.sin(y / 31) + 12 * ((x // 40 + y // 40) % 2)
        self.scene[200:] = 60
        self.scene[20:70, 250:300] = 190
        self.radius, self.turned = np.hypot(x - 130, y - 120), np.arctan2(y - 120, x - 130)
        self.wheel = self.radius < 75
        self.dirt = sum(np.exp(-(((x - a) ** 2 + (y - b) ** 2) / 2 / s**2)) for a, b, s in
                        ((90, 80, 30), (180, 150, 38), (250, 90, 26)))  # fmt: skip
        self.light = Wander(2.5, 120.0, self.rng)

    def picture(self):
        plant = self.plant
        if not plant.of("stuck_wheel"):
            self.angle += 2 * math.pi * 0.35 * plant.flow / 17.0 * STEP_S
        if plant.of("frozen_camera") and self.last is not None:
            return self.last
        shown = self.scene + self.light.step()
        blades = np.cos(5 * (self.turned - self.angle)) > 0.2
        shown = np.where(self.wheel, np.where(blades, 215.0, 45.0), shown)
        shown[self.radius < 12] = 140
        needle = 20 + int(50 * min(1.0, plant.speed / 1600.0))
        shown[40:46, 250 : 250 + needle - 20 + 1] = 30
        if plant.of("object"):
            shown[110:240, 215:275] = 25 + 40 * plant.of("object")
            shown[85:112, 232:258] = 150
        shown = shown * (1 - 0.75 * plant.of("dirt", RAMP_S) * np.minimum(self.dirt, 1.0))
        shown = shown * (1 - 0.9 * plant.of("dark"))
        self.last = np.clip(shown + self.rng.normal(0, 3, shown.shape), 0, 255).astype(np.uint8)
        return self.last


class Ear:
    """Sound of the pump, signed 16 bit, a step at a time: hum of the shaft, blades, the rush of the flow."""

    def __init__(self, plant, seed=2):
        self.plant, self.rng, self.phase, self.squealed, self.tail = plant, np.random.default_rng(seed), 0.0, 0.0, 0.0
        self.load = Wander(0.05, 15.0, self.rng)

    def sound(self):
        plant, count = self.plant, int(SOUND_HZ * STEP_S)
        hz = plant.speed / 60.0
        phase = self.phase + 2 * np.pi * hz * np.arange(1, count + 1) / SOUND_HZ
        self.phase = phase[-1] % (2 * np.pi)
        strength = 1.0 + self.load.step()
        hum = 0.12 * np.sin(phase) + 0.2 * strength * np.sin(5 * phase) + 0.08 * np.sin(10 * phase + 1)
        rush = self.rng.normal(0, 0.012 + 0.0025 * plant.flow, count)
        rush = 0.6 * rush + 0.4 * np.concatenate([[self.tail], rush[:-1]])
        self.tail = rush[-1]
        whole = hum + rush
        if severity := plant.of("squeal"):
            turn = self.squealed + 2 * np.pi * 3200.0 * np.arange(1, count + 1) / SOUND_HZ
            self.squealed = turn[-1] % (2 * np.pi)
            whole = whole + 0.12 * severity * np.sin(turn) * (1 + 0.6 * np.sin(phase))
        if plant.of("silence"):
            whole = np.zeros(count)
        return np.clip(whole * 12_000, -32_000, 32_000).astype("<i2")
