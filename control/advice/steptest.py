"""The smallest test that would let a model be licensed: two levels of one setpoint, switched at random, within limits.

It is proposed, never run: an operator makes the moves, or does not. Source: Ljung, "System Identification", 13.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from control.advice.excitation import Excitation
from control.advice.licence import LicenceConfig
from fusion.errors import ConfigError
from fusion.plant import Gain, Plant, Signal


@dataclass(kw_only=True, slots=True)
class StepTestConfig:
    """How a test is laid out.

    ``above_noise`` is by how many standard deviations of its noise a controlled signal is to move; levels are held for
    ``hold_share`` of the time it takes to settle on average, ``settling_s`` where that is not known. ``spare`` moves
    are made beyond those that the licence asks for. ``largest_step`` is the most, as a share of range.
    """

    above_noise: float = 3.0
    hold_share: float = 0.5
    settling_s: float = 300.0
    spare: int = 2
    largest_step: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject what is no test."""
        if min(self.above_noise, self.hold_share, self.settling_s) <= 0 or not 0 < self.largest_step <= 1:
            raise ConfigError("steptest: above_noise, hold_share, settling_s positive, largest_step in (0, 1] expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTest:
    """One proposed test: ``schedule`` are times [s] and values; ``excursion`` is by how much each signal may move.

    Where there is no room for it, ``refused`` says why and the schedule is empty.
    """

    signal: str
    unit: str
    low: float = 0.0
    high: float = 0.0
    moves: int = 0
    duration_s: float = 0.0
    schedule: tuple[tuple[float, float], ...] = ()
    excursion: Mapping[str, float] | None = None
    refused: str = ""


def propose(
    plant: Plant,
    excitation: Mapping[str, Excitation],
    present: Mapping[str, float],
    noise: Mapping[str, float],
    settling_s: Mapping[str, float] | None = None,
    licence: LicenceConfig | None = None,
    config: StepTestConfig | None = None,
) -> list[StepTest]:
    """A test for every signal that history says too little about, one after the other so that none hides another.

    ``present`` has values of setpoints and controlled signals, ``noise`` standard deviations of the latter.
    """
    licence, config = licence or LicenceConfig(), config or StepTestConfig()
    found = []
    for k, signal in enumerate(s for s in plant.actions if s.max_rate is not None):
        seen = excitation.get(signal.name)
        if seen is not None and seen.moves >= licence.least_moves and seen.span >= licence.least_span:
            continue
        missing = licence.least_moves - (0 if seen is None or seen.span < licence.least_span else seen.moves)
        moves = max(missing, 2) + config.spare
        test = _test(plant, signal, present, noise, (settling_s or {}).get(signal.name), moves, licence, config, k)
        found.append(test)
    return found


def _test(
    plant: Plant,
    signal: Signal,
    present: Mapping[str, float],
    noise: Mapping[str, float],
    settling_s: float | None,
    moves: int,
    licence: LicenceConfig,
    config: StepTestConfig,
    number: int,
) -> StepTest:
    gains = [g for g in plant.gains if g.manipulated == signal.name and g.sign]
    refusal, amplitude = _amplitude(plant, signal, gains, present, noise, licence, config)
    if refusal:
        return StepTest(signal=signal.name, unit=signal.unit, refused=refusal)
    now = present[signal.name]
    travel_s = 2 * amplitude / (signal.max_rate or math.inf)
    hold_s = max(config.hold_share * (settling_s or config.settling_s), 2 * travel_s)
    holds_s = hold_s * np.random.default_rng((config.seed, number)).uniform(0.5, 1.5, moves)
    times_s = np.concatenate([[0.0], np.cumsum(holds_s)])
    levels = [now + amplitude * (-1) ** i for i in range(moves)]
    schedule = [(round(float(t)), value) for t, value in zip(times_s, [*levels, now], strict=True)]
    return StepTest(
        signal=signal.name,
        unit=signal.unit,
        low=now - amplitude,
        high=now + amplitude,
        moves=moves,
        duration_s=round(float(times_s[-1])),
        schedule=tuple(schedule),
        excursion={g.controlled: amplitude * _most(g) for g in gains},
    )


def _amplitude(
    plant: Plant,
    signal: Signal,
    gains: Sequence[Gain],
    present: Mapping[str, float],
    noise: Mapping[str, float],
    licence: LicenceConfig,
    config: StepTestConfig,
) -> tuple[str, float]:
    """Why there is no room, or the smallest amplitude that shows."""
    now = present.get(signal.name)
    if signal.low is None or signal.high is None or now is None or not signal.low <= now <= signal.high:
        return f"{signal.name}: its value, {now}, is not known or not within its range", 0.0
    if not gains:
        return f"{signal.name}: no gain is declared, so nobody knows what a step would do", 0.0
    span = signal.high - signal.low
    needed = 1.05 * licence.least_span * span
    for gain in gains:
        if gain.low:
            needed = max(needed, config.above_noise * noise.get(gain.controlled, 0.0) / gain.low)
    room = [(min(now - signal.low, signal.high - now), f"{signal.name}: its range")]
    room += [(config.largest_step * span / 2, f"{signal.name}: the largest step")]
    room += [
        (distance / _most(g), f"{g.controlled}: its limits") for g in gains for distance in _margins(plant, g, present)
    ]
    least, what = min(room)
    if least < needed:
        return f"{what} leave room for {max(least, 0.0):.3g} {signal.unit}, {needed:.3g} needed", 0.0
    return "", needed


def _margins(plant: Plant, gain: Gain, present: Mapping[str, float]) -> list[float]:
    """How far a controlled signal is from each of its limits, back-off included."""
    value = present.get(gain.controlled)
    own = [t for t in plant.targets if t.signal == gain.controlled and value is not None]
    low = [float(value or 0.0) - t.low - t.backoff for t in own if t.low is not None]
    return low + [t.high - t.backoff - float(value or 0.0) for t in own if t.high is not None]


def _most(gain: Gain) -> float:
    """The largest effect of a unit step that is declared; where none is, twice the least, or one."""
    return gain.high or 2 * (gain.low or 0.5)
