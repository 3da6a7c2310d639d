"""Plants of a fleet: simulated side by side, each with its own instruments, or recordings of many plants."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant
from fusion.recordings.recording import Recording
from fusion.records import NS_PER_S, Quality
from fusion.simulator.fleet import Fleet
from fusion.simulator.flowsheets.drawing import draw
from fusion.simulator.flowsheets.playing import Course
from fusion.simulator.flowsheets.playing import played as flowsheet_values
from fusion.simulator.instruments import other_instruments
from fusion.simulator.record import readings
from fusion.simulator.scenario import ExcitationSettings, Scenario
from fusion.training.ticks import ticks
from models.fleet.training import Member
from models.fleet.view import missing_words
from models.scaling import Floats
from models.ticks import Ticks, process_columns

log = logging.getLogger(__name__)

Say = Callable[[str], None]
COMMISSIONING_S = 400.0  # between two moves of a setpoint, as lines are excited
AT_ONCE = 150  # plants that are simulated side by side: enough to be quick, little enough to stay in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What is simulated: ``plants`` from seed ``first`` on, ``minutes`` each, excited as in commissioning.

    Plants differ by the factor ``spread`` in volumes, kinetics, friction and heat loss; one is as wide as one kind of
    plant is. ``share`` of its tags has each; with ``alike`` all have the line's own instruments.
    """

    plants: int = 120
    minutes: float = 45.0
    first: int = 1000
    spread: float = 3.0
    share: float = 1.0
    alike: bool = False

    def __post_init__(self) -> None:
        """Reject fleets of nothing."""
        if self.plants < 1 or self.minutes <= 0 or not 0 < self.share <= 1:
            raise ConfigError("plants, minutes, share: expected at least 1, more than 0, and above 0 to 1")


def simulated(line: Plant, plan: Simulated, say: Say) -> list[Member]:
    """Members of a fleet of lines, tags alone."""
    return instrumented(line, plan, played(line, plan, say))


def instrumented(line: Plant, plan: Simulated, values: Floats) -> list[Member]:
    """Members that show what was ``played`` [T, P, plants] by the instruments of a plan."""
    return [_member(line, plan, plan.first + row, values[:, :, row]) for row in range(plan.plants)]


def played(line: Plant, plan: Simulated, say: Say) -> Floats:
    """What the line's own instruments read [T, P, plants], in the order of its process signals."""
    starts = range(plan.first, plan.first + plan.plants, AT_ONCE)
    last = plan.first + plan.plants
    parts = [_played(line, plan, range(first, min(first + AT_ONCE, last)), say) for first in starts]
    return np.concatenate(parts, 2)


def _played(line: Plant, plan: Simulated, seeds: Sequence[int], say: Say) -> Floats:
    seconds = round(plan.minutes * 60)
    usual = Scenario(
        name="fleet",
        duration_s=float(seconds),
        media=False,
        plant_spread=plan.spread,
        excitation=ExcitationSettings(enabled=True),
    )
    scenarios = [replace(usual, seed=seed, plant_seed=seed) for seed in seeds]
    say(f"simulating {len(seeds)} plants, {plan.minutes:g} min each")

    def progress(done: float) -> None:
        if done % max(600, seconds // 10) == 0:
            say(f"simulated {done / 60:.0f} of {plan.minutes:g} min")

    return readings(Fleet(scenarios, line), seconds, progress)


def flowsheets(plan: Simulated, say: Say) -> list[Member]:
    """Members of random flowsheets, no two alike, each with instruments of its own; ``spread`` is theirs."""
    say(f"simulating {plan.plants} flowsheets, {plan.minutes:g} min each")
    return [_flowsheet(seed, plan) for seed in range(plan.first, plan.first + plan.plants)]


def _flowsheet(seed: int, plan: Simulated) -> Member:
    course = Course(seed=seed, interval_s=COMMISSIONING_S)
    values = flowsheet_values(seed, [course], round(plan.minutes * 60))[:, :, 0]
    instruments = other_instruments(draw(seed).plant, seed, plan.share)
    return Member(plant=instruments.plant, runs=(ticks_of(instruments.plant, instruments.read(values)),))


def _member(line: Plant, plan: Simulated, seed: int, values: Floats) -> Member:
    if plan.alike:
        plant = Plant(name=f"plant-{seed}", step_s=line.step_s, signals=line.of(Modality.PROCESS))
        return Member(plant=plant, runs=(ticks_of(plant, values),))
    instruments = other_instruments(line, seed, plan.share)
    return Member(plant=instruments.plant, runs=(ticks_of(instruments.plant, instruments.read(values)),))


def ticks_of(plant: Plant, values: Floats) -> Ticks:
    """Values [T, P] of the process signals, in the order of the plant, one row each step, as model input."""
    tags, actions = process_columns(plant, [s.name for s in plant.of(Modality.PROCESS)])
    shown = values[:, tags]
    return Ticks(
        t_ns=(np.arange(len(values), dtype=np.int64) + 1) * round(plant.step_s * NS_PER_S),
        tags=shown,
        observed=np.isfinite(shown),
        age_s=np.zeros(shown.shape),
        quality=np.full(shown.shape, Quality.GOOD, np.uint8),
        action=values[:, actions],
        media={},
        present={},
        patches={},
    )


def recorded(folders: Sequence[Path]) -> list[Member]:
    """Members of recordings: those of one plant are runs of one member; what a plant does not say is named.

    Raises:
        ConfigError: where a recording is missing or damaged.
    """
    plants: dict[str, Plant] = {}
    runs: dict[str, list[Ticks]] = {}
    for folder in folders:
        recording = Recording.verified(folder)
        if recording.kind != "normal":
            log.warning("%s: left out, it is not normal operation", folder)
            continue
        plant = plants.setdefault(recording.plant.fingerprint, recording.plant)
        runs.setdefault(plant.fingerprint, []).append(ticks(recording, plant).without_media())
    for plant in plants.values():
        if missing := missing_words(plant):
            log.warning("plant %r: %s; it is used all the same", plant.name, missing)
    return [Member(plant=plants[key], runs=tuple(found)) for key, found in runs.items()]
