"""Lines that wear: each on the day of its commissioning and on later days, on half of which something is worn.

What is true of its hidden states is recorded beside what its instruments read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusion.errors import ConfigError
from fusion.fleet.plants import AT_ONCE, Say, ticks_of
from fusion.plant import Plant
from fusion.simulator.fleet import Fleet
from fusion.simulator.instruments import other_instruments
from fusion.simulator.line.condition import WEAR, condition
from fusion.simulator.noise import keyed
from fusion.simulator.record import readings
from fusion.simulator.scenario import ExcitationSettings, FaultEvent, Scenario
from models.fleet.states import State
from models.fleet.states_fit import Day, Life
from models.scaling import Floats

DAY = 10_000_000  # apart are the seeds of two days of one plant
LONG_AGO_S = -1e6
WORN_SHARE, STATE_SHARE, STANDING_SHARE = 0.5, 0.35, 0.6
"""Of the later days, of the states on one that is worn, and of these of those that were so before it began."""
LEAST_WORN = 0.1
ONSET_S, RAMP_S = (300.0, 1200.0), (0.0, 600.0)
MOVES_S = (400.0, 1500.0, None)
"""Mean time between two moves of a setpoint on later days; none on a third of them."""
EXCITED = ExcitationSettings(enabled=True)

STATES = tuple(State(name=name, words=wear.words, unit=wear.unit) for name, wear in WEAR.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Worn:
    """What is simulated: ``plants`` from seed ``first`` on, unlike by ``spread``, on ``days`` later days each."""

    plants: int = 120
    first: int = 1000
    spread: float = 3.0
    days: int = 3
    commissioning_s: int = 1800
    day_s: int = 2400

    def __post_init__(self) -> None:
        """Reject plants that do not live."""
        if self.plants < 1 or self.days < 1:
            raise ConfigError("plants, days: expected at least 1")


def lives(line: Plant, plan: Worn, say: Say) -> list[Life]:
    """Lines with instruments of their own, and what was true of their hidden states."""
    made: list[Life] = []
    for first in range(plan.first, plan.first + plan.plants, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, plan.first + plan.plants))
        say(f"simulating {len(seeds)} plants on the day of their commissioning and {plan.days} later")
        begun = played(line, [first_day(seed, plan) for seed in seeds], plan.commissioning_s)
        later = [
            played(line, [later_day(seed, day, plan) for seed in seeds], plan.day_s) for day in range(1, plan.days + 1)
        ]
        made += [_life(line, seed, row, begun, later) for row, seed in enumerate(seeds)]
    return made


def played(line: Plant, scenarios: Sequence[Scenario], seconds: int) -> tuple[Floats, Floats]:
    """What instruments of the line read [T, P, B], and its hidden states [T, X, B]."""
    fleet, truth = Fleet(scenarios, line), list[Floats]()
    values = readings(fleet, seconds, lambda _: truth.append(condition(fleet.line)))
    return values, np.stack(truth)


def _life(
    line: Plant, seed: int, row: int, begun: tuple[Floats, Floats], later: Sequence[tuple[Floats, Floats]]
) -> Life:
    instruments = other_instruments(line, seed)

    def day(played: tuple[Floats, Floats]) -> Day:
        values, truth = played
        return Day(ticks=ticks_of(instruments.plant, instruments.read(values[:, :, row])), truth=truth[:, :, row])

    return Life(plant=instruments.plant, first=day(begun), later=tuple(map(day, later)))


def first_day(seed: int, plan: Worn) -> Scenario:
    """The day on which a plant is commissioned."""
    return Scenario(
        name="worn", seed=seed, plant_seed=seed, plant_spread=plan.spread, media=False, excitation=EXCITED,
        duration_s=float(plan.commissioning_s),
    )  # fmt: skip


def later_day(seed: int, day: int, plan: Worn) -> Scenario:
    """Other feed, other weather, fewer moves, and on half of the days something that is not as it was."""
    rng = keyed(seed, "wear", day)
    interval_s = MOVES_S[int(rng.integers(len(MOVES_S)))]
    moves = replace(EXCITED, mean_interval_s=interval_s) if interval_s else ExcitationSettings()
    faults = _wear(rng) if rng.uniform() < WORN_SHARE else ()
    return replace(
        first_day(seed, plan), seed=seed + DAY * day, excitation=moves, faults=faults, duration_s=float(plan.day_s)
    )


def _wear(rng: np.random.Generator) -> tuple[FaultEvent, ...]:
    chosen = rng.random(len(WEAR)) < STATE_SHARE
    chosen[int(rng.integers(len(WEAR)))] = True
    faults = []
    for wear in (wear for wear, so in zip(WEAR.values(), chosen, strict=True) if so):
        stands = rng.uniform() < STANDING_SHARE
        onset_s = LONG_AGO_S if stands else rng.uniform(*ONSET_S)
        ramp_s, severity = float(rng.choice(RAMP_S)), rng.uniform(LEAST_WORN, 1.0)
        faults.append(FaultEvent(name=wear.fault, onset_s=onset_s, ramp_s=ramp_s, severity=severity))
    return tuple(faults)
