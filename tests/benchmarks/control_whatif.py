"""What if, on the lime line: effects of setpoints foretold by a core, against the simulator's own counterfactual.

A setpoint is moved in one of two runs that are otherwise the same, noise included; their difference is the truth.
Shape letters: T seconds, C process signals, B lines, P days, H horizons, S tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from fusion.plant import Modality, Plant
from fusion.plant_file import load_plant
from fusion.records import ACTION_STEPS
from fusion.simulator.fleet import Fleet
from fusion.simulator.record import readings
from fusion.simulator.scenario import ExcitationSettings, Scenario
from models.actions import HORIZONS
from models.linear.core import LinearCore
from models.linear.fit import fit_core
from models.ticks import Ticks
from tests.benchmarks.control_loop import ticks_of
from tests.benchmarks.control_plants import Floats

PLANT = Path(__file__).parents[2] / "configs" / "plant" / "lime.yaml"
PAIRS = {"TIC101.SP": "TT101", "LIC101.SP": "LT101", "DIC201.SP": "DT201", "LIC201.SP": "LT201"}
ROWS = tuple(HORIZONS.index(k) for k in (16, 32, 64, 128, 256, 600))
STEP = 0.15  # of the range
CLOSE = 0.2
BEFORE_S, AFTER_S = 600, HORIZONS[-1]
DAYS = 8
FIRST_SEED, FIRST_DAY = 40, 700


@dataclass(frozen=True)
class Counterfactual:
    """What was read [P][T, C] before the moves, the size of each move, and its true effects [P, H, C] by setpoint."""

    before: list[Floats]
    step: dict[str, Floats]
    effect: dict[str, Floats]


def lime() -> Plant:
    """The line's plant file."""
    return load_plant(PLANT)


def excited_runs(plant: Plant, runs: int, seconds: int) -> list[Ticks]:
    """What a commissioning records: setpoints that move at random over most of their ranges."""
    excitation = ExcitationSettings(enabled=True, mean_interval_s=500, share=0.85)
    fleet = Fleet([_day(FIRST_SEED + i, excitation) for i in range(runs)], plant)
    values_TCB = readings(fleet, seconds)
    return [as_ticks(plant, values_TCB[:, :, row]) for row in range(runs)]


def as_ticks(plant: Plant, values_TC: Floats) -> Ticks:
    """Readings of process signals in plant order."""
    names = [s.name for s in plant.of(Modality.PROCESS)]
    columns = [[names.index(s.name) for s in part] for part in (plant.tags, plant.actions)]
    return ticks_of(*(values_TC[:, part] for part in columns))


def _day(seed: int, excitation: ExcitationSettings | None = None) -> Scenario:
    excitation = excitation or ExcitationSettings()
    return Scenario(name="tags", seed=seed, media=False, excitation=excitation, duration_s=1e6)


def counterfactual(plant: Plant, days: Sequence[Scenario]) -> Counterfactual:
    """Each day once without a move, and once for each setpoint moved towards the middle of its range."""
    count = 1 + len(PAIRS)
    fleet = Fleet([day for day, _ in product(days, range(count))], plant)
    before_TCB = readings(fleet, BEFORE_S)
    step: dict[str, list[float]] = {name: [] for name in PAIRS}
    for day, (move, name) in product(range(len(days)), enumerate(PAIRS, 1)):
        signal, row = plant.by_name[name], day * count + move
        low, high, now = float(signal.low or 0), float(signal.high or 0), float(fleet.line.sp[name][row])
        size = STEP * (high - low) * (1.0 if (day + move) % 2 else -1.0)
        size = size if low <= now + size <= high else -size
        fleet.set(row, name, now + size)
        step[name].append(size)
    after_TCB = readings(fleet, AFTER_S)
    at = [HORIZONS[row] - 1 for row in ROWS]
    still = after_TCB[at][:, :, ::count]
    effect = {n: (after_TCB[at][:, :, m::count] - still).transpose(2, 0, 1) for m, n in enumerate(PAIRS, 1)}
    before = [before_TCB[:, :, day * count] for day in range(len(days))]
    return Counterfactual(before, {name: np.array(sizes) for name, sizes in step.items()}, effect)


def foretold(core: LinearCore, plant: Plant, truth: Counterfactual) -> dict[str, Floats]:
    """The same effects [P, H, S] as the core has them."""
    names, made = [s.name for s in plant.actions], {}
    for name in PAIRS:
        days = []
        for values, size in zip(truth.before, truth.step[name], strict=True):
            run = as_ticks(plant, values)
            encoding = core.encode(run)[0]
            paths = np.repeat(run.action[-1][None, None], 2, 0).repeat(ACTION_STEPS, 1)
            paths[1, :, names.index(name)] += size
            still, moved = core.forecast(encoding, paths)
            days.append((moved - still)[list(ROWS)])
        made[name] = np.stack(days)
    return made


def judged(plant: Plant, truth: Counterfactual, made: dict[str, Floats]) -> dict[str, object]:
    """Ratios of foretold to true effect by pair and horizon, over the days, and how many are close."""
    tags, columns, told = [s.name for s in plant.tags], [s.name for s in plant.of(Modality.PROCESS)], {}
    for name, tag in PAIRS.items():
        sign = np.sign(truth.step[name])[:, None]
        true = (truth.effect[name][..., columns.index(tag)] * sign).mean(0)
        found = (made[name][..., tags.index(tag)] * sign).mean(0)
        told[f"{name} {tag}"] = np.round(found / true, 2).tolist()
    ratios = np.array(list(told.values()))
    return {"within_20": int((np.abs(ratios - 1) <= CLOSE).sum()), "of": ratios.size, "ratio": told}


def whatif(quick: bool) -> dict[str, object]:
    """Effects fitted where actuators are free, beside those over all ticks; with horizons [s] of the columns."""
    plant = lime()
    runs = excited_runs(plant, *((4, 1800) if quick else (12, 3600)))
    truth = counterfactual(plant, [_day(FIRST_DAY + day) for day in range(2 if quick else DAYS)])
    core = fit_core(runs, plant)
    saturated = {s.name: round(share, 3) for s, share in zip(plant.tags, _at_ends(runs), strict=True) if share > 0.01}
    over_all = replace(core, planned_weights=core.action_weights)
    cores = {"planned": core, "over_all_ticks": over_all}
    rows = {name: judged(plant, truth, foretold(one, plant, truth)) for name, one in cores.items()}
    return {"horizon_s": [HORIZONS[row] for row in ROWS], "at_an_end": saturated, "dead": list(core.dead), **rows}


def _at_ends(runs: list[Ticks]) -> list[float]:
    """Share of ticks at which each tag stands exactly at the least or the largest value that it ever had."""
    tags = np.concatenate([run.tags for run in runs])
    ends = (tags == tags.min(0)) | (tags == tags.max(0))
    return [float(share) for share in ends.mean(0)]
