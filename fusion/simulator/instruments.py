"""The same line with other instruments: a plant of its own names, words, units and ranges, and of fewer tags.

What a plant calls its tags and in which unit they read is drawn from its seed; the physics know nothing of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant, Role, Signal
from fusion.simulator.noise import keyed

Floats = NDArray[np.float64]

LETTERS = {
    "TT": ("TT", "TI", "TE"), "LT": ("LT", "LI", "LIT"), "FT": ("FT", "FI", "FIT"), "IT": ("IT", "II", "EI"),
    "ST": ("ST", "SI"), "WT": ("WT", "WI"), "PT": ("PT", "PI", "PIT"), "DT": ("DT", "DI", "QI"),
    "FV": ("FV", "FCV", "ZT"), "SC": ("SC", "SY", "SIC"), "WIC": ("WIC", "WC"), "TIC": ("TIC", "TC"),
    "LIC": ("LIC", "LC"), "DIC": ("DIC", "DC", "QIC"), "VIB": ("VIB", "XS"), "XV": ("XV", "HV"),
}  # fmt: skip
NAMES = ("{letters}{number}{end}", "{letters}-{number}{end}", "{area}{letters}{number}{end}", "{letters}_{number}{end}")
SETPOINT = (".SP", "_SP", ".SPT", ".W")
WORDS = {
    "temperature": ("temperature", "temp", "temperature"), "Slaker": ("Slaker", "Slaker", "Reactor", "Slaking tank"),
    "level": ("level", "level", "filling level"), "Storage tank": ("Storage tank", "Tank", "Milk tank"),
    "flow": ("flow", "flow", "flow rate"), "motor current": ("motor current", "drive current", "current"),
    "setpoint": ("setpoint", "SP", "set point"), "Belt": ("Belt", "Weigh belt", "Conveyor"),
    "speed": ("speed", "speed", "rpm"), "Feeder": ("Feeder", "Screw feeder", "Dosing screw"),
    "valve": ("valve", "control valve"), "Slurry": ("Slurry", "Milk of lime"), "Silo": ("Silo", "Bin"),
}  # fmt: skip
UNITS = {
    "Cel": (("Cel", 1.0, 0.0), ("Cel", 1.0, 0.0), ("K", 1.0, 273.15), ("[degF]", 1.8, 32.0)),
    "kg/s": (("kg/s", 1.0, 0.0), ("kg/h", 3600.0, 0.0), ("t/h", 3.6, 0.0)),
    "L/s": (("L/s", 1.0, 0.0), ("L/min", 60.0, 0.0), ("m3/h", 3.6, 0.0)),
    "bar": (("bar", 1.0, 0.0), ("kPa", 100.0, 0.0)),
    "m/s": (("m/s", 1.0, 0.0), ("m/min", 60.0, 0.0)),
    "1": (("1", 1.0, 0.0), ("%", 100.0, 0.0)),
}
"""Units that an instrument may read in: name, factor and offset."""
RANGES = (1.0, 1.0, 1.25, 1.6)
"""How far above the line's own range an instrument's may end."""
WORDLESS = 0.15
"""The share of plants whose tags have no descriptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """A plant as its own instruments show it: column ``source[i]`` of the line times ``gain`` plus ``offset``."""

    plant: Plant
    source: tuple[int, ...]
    gain: Floats
    offset: Floats

    def read(self, values: Floats) -> Floats:
        """What these instruments say [T, S] of what the line's process signals are [T, P]."""
        return values[:, list(self.source)] * self.gain + self.offset


def other_instruments(line: Plant, seed: int, share: float = 1.0) -> Instruments:
    """The instruments of the plant ``seed``: ``share`` of the tags of the line, and all that can be moved."""
    rng = keyed(seed, "instruments", 0)
    process = line.of(Modality.PROCESS)
    kept = _kept(process, rng, share)
    words = rng.uniform() >= WORDLESS
    style, area, end = rng.choice(NAMES), int(rng.integers(1, 9)), str(rng.choice(SETPOINT))
    numbers = rng.permutation(900)[: len(process)] + 100
    signals, gains, offsets = [], [], []
    for i in kept:
        signal, gain, offset = _in_other_units(process[i], rng)
        name = _named(process[i].name, style, area, int(numbers[i]), end, rng)
        text = _said(process[i].description, rng) if words else ""
        signals.append(replace(signal, name=name, description=text, device=""))
        gains.append(gain)
        offsets.append(offset)
    plant = Plant(name=f"plant-{seed}", step_s=line.step_s, signals=tuple(signals))
    return Instruments(plant=plant, source=tuple(kept), gain=np.array(gains), offset=np.array(offsets))


def _kept(process: tuple[Signal, ...], rng: np.random.Generator, share: float) -> list[int]:
    """Which signals this plant has, in an order of its own."""
    chosen = [i for i, s in enumerate(process) if s.role is Role.MANIPULATED or rng.uniform() < share]
    watched = [i for i, s in enumerate(process) if s.role is not Role.MANIPULATED]
    if not set(chosen) & set(watched):
        chosen.append(int(rng.choice(watched)))
    return [chosen[k] for k in rng.permutation(len(chosen))]


def _in_other_units(signal: Signal, rng: np.random.Generator) -> tuple[Signal, float, float]:
    choices = UNITS.get(signal.unit, ((signal.unit, 1.0, 0.0),))
    unit, gain, offset = choices[int(rng.integers(len(choices)))]
    low, high = signal.low, signal.high
    if low is None or high is None:
        return signal, 1.0, 0.0
    fixed = signal.role is Role.MANIPULATED or signal.unit == "1"
    high = high if fixed else low + (high - low) * float(rng.choice(RANGES))
    rate = None if signal.max_rate is None else signal.max_rate * gain
    made = replace(signal, unit=unit, low=low * gain + offset, high=high * gain + offset, max_rate=rate)
    return made, gain, offset


def _named(name: str, style: str, area: int, number: int, end: str, rng: np.random.Generator) -> str:
    setpoint = name.endswith(".SP")
    letters = re.sub("[^A-Z]", "", name.removesuffix(".SP").removesuffix("M"))
    letters = str(rng.choice(LETTERS.get(letters, (letters,))))
    return style.format(letters=letters, number=number, area=area, end=end if setpoint else "")


def _said(text: str, rng: np.random.Generator) -> str:
    for word, others in WORDS.items():
        if word in text:
            text = text.replace(word, str(rng.choice(others)), 1)
    return text
