"""What a signal is, from how it is described: letters of its name, unit, role, words; the same on every machine.

Numbers in names and the order of columns say nothing. Shape letters: S signals, D descriptor.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from fusion.plant import Role, Signal
from models.scaling import Floats

NATURE, SAID, SPAN = 40, 56, 3  # buckets of what it measures, of the words, and numbers of the range
WIDTH = NATURE + SAID + SPAN
SHORTEST_WORD = 3
DIMENSIONS: dict[str, dict[str, float]] = {
    "temperature": {"Cel": 1.0, "degC": 1.0, "°C": 1.0, "K": 1.0, "[degF]": 5 / 9, "degF": 5 / 9, "°F": 5 / 9},
    "mass flow": {"kg/s": 1.0, "g/s": 1e-3, "kg/min": 1 / 60, "kg/h": 1 / 3600, "t/h": 1 / 3.6, "t/d": 1 / 86.4},
    "volume flow": {
        "L/s": 1.0, "l/s": 1.0, "L/min": 1 / 60, "l/min": 1 / 60, "L/h": 1 / 3600, "l/h": 1 / 3600, "m3/s": 1e3,
        "m3/min": 1e3 / 60, "m3/h": 1 / 3.6,
    },
    "pressure": {"bar": 1.0, "mbar": 1e-3, "Pa": 1e-5, "kPa": 1e-2, "MPa": 10.0, "[psi]": 0.0689, "mm[H2O]": 9.8e-5},
    "fraction": {"1": 1.0, "%": 1e-2, "[ppth]": 1e-3, "[ppm]": 1e-6},
    "current": {"A": 1.0, "mA": 1e-3},
    "power": {"kW": 1.0, "W": 1e-3, "MW": 1e3},
    "speed": {"m/s": 1.0, "mm/s": 1e-3, "m/min": 1 / 60},
    "rotation": {"Hz": 1.0, "rev/s": 1.0, "/min": 1 / 60, "{rpm}": 1 / 60, "rpm": 1 / 60},
    "length": {"m": 1.0, "cm": 1e-2, "mm": 1e-3},
    "mass": {"kg": 1.0, "g": 1e-3, "t": 1e3},
    "volume": {"m3": 1.0, "L": 1e-3, "l": 1e-3},
    "load": {"kg/m": 1.0, "t/m": 1e3},
}  # fmt: skip
"""Units of one kind of quantity with their factors to the first: scaled by range they are alike."""
OFFSETS = {"K": 273.15, "[degF]": 32.0, "degF": 32.0, "°F": 32.0}
_KNOWN = {unit: (name, factor) for name, units in DIMENSIONS.items() for unit, factor in units.items()}
DECADES = 4.0  # of a span, that count as one


def descriptors(signals: Sequence[Signal]) -> Floats:
    """Descriptors [S, D] of signals: nature and words of unit length, or zero where nothing is said, and the range."""
    return np.stack([_descriptor(s) for s in signals]) if signals else np.zeros((0, WIDTH))


def undescribed(signal: Signal) -> tuple[str, ...]:
    """What of a signal's description is missing that a fleet model reads."""
    missing = ["range"] if signal.low is None or signal.high is None else []
    missing += ["description"] if not _words(signal) else []
    return tuple(missing)


def dimension(unit: str) -> str:
    """The quantity that a unit measures; the unit itself where it is none of the common ones."""
    return _KNOWN.get(unit, (unit, 1.0))[0]


def in_first_unit(signal: Signal) -> tuple[float, float] | None:
    """The range of a signal in the first unit of its quantity; None where it has none."""
    if signal.low is None or signal.high is None:
        return None
    factor, offset = _KNOWN.get(signal.unit, ("", 1.0))[1], OFFSETS.get(signal.unit, 0.0)
    return (signal.low - offset) * factor, (signal.high - offset) * factor


def in_own_unit(signal: Signal, low: float, high: float) -> tuple[float, float]:
    """The inverse: a range in the first unit of the quantity in that of the signal."""
    factor, offset = _KNOWN.get(signal.unit, ("", 1.0))[1], OFFSETS.get(signal.unit, 0.0)
    return low / factor + offset, high / factor + offset


def _descriptor(signal: Signal) -> Floats:
    return np.concatenate([_hashed(_nature(signal), NATURE), _hashed(_words(signal), SAID), _span(signal)])


def _span(signal: Signal) -> Floats:
    """How wide the range is, in decades of the quantity's first unit, and whether it is known."""
    if signal.low is None or signal.high is None:
        return np.zeros(SPAN)
    decades = np.log10(max((signal.high - signal.low) * _KNOWN.get(signal.unit, ("", 1.0))[1], 1e-12))
    return np.array([1.0, decades.clip(-2 * DECADES, 2 * DECADES) / DECADES, decades - np.round(decades)])


def _nature(signal: Signal) -> list[str]:
    """What is measured and to what end: the quantity twice, for it says most."""
    letters = re.sub("[^a-z]", "", re.split(r"[._]", signal.name.lower())[0])[-3:]
    setpoint = bool(re.search(r"[._](sp|spt|w)$", signal.name.lower())) or signal.role is Role.MANIPULATED
    quantity = dimension(signal.unit)
    said = [f"quantity {quantity}", f"measured {quantity}", f"role {signal.role}", f"first {letters[:1]}"]
    return [*said, f"letters {letters}", f"setpoint {setpoint}"]


def _words(signal: Signal) -> list[str]:
    found = re.findall(r"[^\W\d_]+", signal.description.lower())
    return [word for word in found if len(word) >= SHORTEST_WORD]


def _hashed(words: Sequence[str], width: int) -> Floats:
    """Words in signed buckets, of unit length."""
    made = np.zeros(width)
    for word in words:
        digest = hashlib.blake2b(word.encode(), digest_size=12).digest()
        for i in (0, 4, 8):
            made[int.from_bytes(digest[i : i + 3], "big") % width] += 1.0 if digest[i + 3] & 1 else -1.0
    return np.asarray(made / max(float(np.linalg.norm(made)), 1e-9))
