"""The microphone at the drive and pump skid: motor harmonics, falling solids, and the sounds of what breaks.

A second of sound is made at once: tones follow the shafts' phases, noise is shaped by its spectrum, so that any second
can be rendered by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.simulator.noise import keyed

RATE_HZ = 16_000
OUTER_RACE = 3.585
_TONES = {
    "belt": ((1, 0.03), (2, 0.015), (17, 0.02)),
    "agitator": ((1, 0.05), (2, 0.02), (23, 0.03), (46, 0.01)),
    "pump": ((1, 0.02), (6, 0.05), (12, 0.02)),
}
_SHAFTS = tuple(shaft for shaft, tones in _TONES.items() for _ in tones)
_ORDERS = np.array([order for tones in _TONES.values() for order, _ in tones])
_AMPLITUDES = np.array([amplitude for tones in _TONES.values() for _, amplitude in tones])
_BLOCK = 128
SQUEAL_HZ, SQUEAL, SQUEALS = 3140.0, 0.012, (0.5, 1.0)  # of a dry idler: pitch, amplitude, and how that varies
CHIRP_S, CHIRP_HZ, CHIRP = 0.1, (1500.0, 1900.0), 0.12
SHAFT_TURNS = 491.5  # of the belt's drive for one turn of the belt


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What can be heard in one second: shaft phases [rev] at its start, speeds [rev/s], flow and temperature."""

    phase: Mapping[str, float]
    speed: Mapping[str, float]
    feed_kg_s: float
    slaker_degc: float


class Microphone:
    """Renders RATE_HZ samples in [-1, 1] per second."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._t = np.arange(RATE_HZ) / RATE_HZ
        hz = np.fft.rfftfreq(RATE_HZ, 1.0 / RATE_HZ).astype(np.float64)
        self._falling = _band(hz, 800.0, 3000.0)
        self._hiss = 1.0 / (1.0 + (4500.0 / np.maximum(hz, 1.0)) ** 4)
        self._rumble = _band(hz, 30.0, 160.0)
        self._bubbles = np.exp(-0.5 * ((hz - 5200.0) / 330.0) ** 2)
        ring = np.exp(-self._t * 1800.0) * np.sin(2.0 * np.pi * 2800.0 * self._t)
        self._ring = np.fft.rfft(ring)
        thud = np.exp(-self._t * 90.0) * np.sin(2.0 * np.pi * 420.0 * self._t)
        self._thud = np.fft.rfft(thud)

    def second(self, tick: int, machines: Machines, fault: Mapping[str, float], truck: float) -> NDArray[np.float32]:
        """The sound of one second [RATE_HZ]."""
        deaf = fault.get("dead_microphone", 0.0)
        if deaf >= 1.0:
            return np.zeros(RATE_HZ, np.float32)
        rng = keyed(self._seed, "microphone", tick)
        noise = np.fft.rfft(rng.standard_normal(RATE_HZ))
        shape = 0.01 + 0.25 * machines.feed_kg_s * self._falling + 0.25 * truck * self._rumble
        shape = shape + 0.02 * min(5.0, max(0.0, machines.slaker_degc - 90.0)) * self._hiss
        spectrum = noise * shape
        if bearing := fault.get("bearing", 0.0):
            spectrum = spectrum + 0.5 * bearing * np.fft.rfft(self._impacts(rng, machines)) * self._ring
        if lumps := fault.get("tramp_lump", 0.0):
            spectrum = spectrum + np.fft.rfft(self._knocks(rng, lumps)) * self._thud
        if cavitation := fault.get("cavitation", 0.0):
            burst = rng.standard_normal(RATE_HZ) * np.abs(rng.standard_normal(RATE_HZ))
            spectrum = spectrum + 0.3 * cavitation * np.fft.rfft(burst) * self._bubbles
        sound = np.fft.irfft(spectrum, RATE_HZ) + self._tones(machines, fault)
        if squeal := fault.get("squeal", 0.0):
            sound += SQUEAL * squeal * rng.uniform(*SQUEALS) * np.sin(2.0 * np.pi * SQUEAL_HZ * self._t)
        if chirp := fault.get("belt_chirp", 0.0):
            sound += CHIRP * chirp * self._chirp(machines)
        return np.clip(sound * (1.0 - deaf), -1.0, 1.0).astype(np.float32)

    def _tones(self, machines: Machines, fault: Mapping[str, float]) -> NDArray[np.float64]:
        """All harmonics at once: each turns by the same angle from block to block, so the sum is one small product."""
        turn = 2.0 * np.pi * _ORDERS
        start = turn * [machines.phase[shaft] for shaft in _SHAFTS]
        per_sample = turn * [machines.speed[shaft] / RATE_HZ for shaft in _SHAFTS]
        shaken = (_ORDERS == 1) & (np.array(_SHAFTS) == "agitator")
        loud = _AMPLITUDES * np.where(shaken, 1.0 + 3.0 * fault.get("agitator_blade", 0.0), 1.0)
        blocks = loud * np.exp(1j * (start + per_sample * np.arange(0, RATE_HZ, _BLOCK)[:, None]))
        within = np.exp(1j * per_sample[:, None] * np.arange(_BLOCK))
        return np.asarray((blocks @ within).imag.ravel())

    def _chirp(self, machines: Machines) -> NDArray[np.float64]:
        """A short rising tone each time the same place of the belt passes the drive."""
        turns = (machines.phase["belt"] + machines.speed["belt"] * self._t) / SHAFT_TURNS
        since_s = (turns % 1.0) * SHAFT_TURNS / max(machines.speed["belt"], 1e-3)
        low, high = CHIRP_HZ
        phase = 2.0 * np.pi * (low + 0.5 * (high - low) * since_s / CHIRP_S) * since_s
        return np.where(since_s < CHIRP_S, np.sin(phase) * np.sin(np.pi * since_s / CHIRP_S), 0.0)

    def _impacts(self, rng: np.random.Generator, machines: Machines) -> NDArray[np.float64]:
        rate_hz = OUTER_RACE * machines.speed["belt"]
        first = (-machines.phase["belt"] * OUTER_RACE) % 1.0
        times = (first + np.arange(int(rate_hz) + 1)) / max(rate_hz, 1.0)
        times = times + rng.normal(0.0, 0.01 / max(rate_hz, 1.0), len(times))
        train = np.zeros(RATE_HZ)
        train[(times * RATE_HZ).astype(int) % RATE_HZ] = 1.0
        return train

    def _knocks(self, rng: np.random.Generator, often: float) -> NDArray[np.float64]:
        train = np.zeros(RATE_HZ)
        train[rng.integers(0, RATE_HZ, rng.poisson(1.5 * often))] = rng.uniform(0.3, 0.8)
        return train


def _band(hz: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    at = np.maximum(hz, 1.0)
    return 1.0 / (1.0 + (low / at) ** 4) / (1.0 + (at / high) ** 4)
