"""What a move does on a plant that no training saw, foretold after ten minutes of it, against the simulator's truth.

Run: python -m tests.benchmarks.fleet_gains --json OUT [--plants 20] [--model DIR ...]
Each plant has instruments of its own. Shape letters: P plants, K pairs of a setpoint and its tag, H horizons, S tags.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fusion.errors import ConfigError
from fusion.files import whole_file
from fusion.fleet.command import LINE, UNSEEN
from fusion.fleet.plants import Simulated, ticks_of
from fusion.plain import plain
from fusion.plant import Modality, Plant
from fusion.plant_file import load_plant
from fusion.records import ACTION_STEPS
from fusion.simulator.instruments import other_instruments
from fusion.simulator.scenario import ExcitationSettings, Scenario
from models.actions import HORIZONS, SUMMARIES, step_summary
from models.fleet.guest import Guest, own_views
from models.fleet.model import FleetModel, host, shipped
from models.fleet.view import View
from models.linear.fit import fit_core
from models.ticks import Ticks
from tests.benchmarks.control_plants import Floats
from tests.benchmarks.control_whatif import BEFORE_S, CLOSE, PAIRS, ROWS, Counterfactual, counterfactual

ARMS = ("own core", "fleet ridge", "fleet net, not bent", "fleet model")
NOTHING = 1e-3  # of a range: an effect below it has no sign


def days(plants: int, first: int = UNSEEN) -> list[Scenario]:
    """Ten minutes of commissioning on each plant; after them nothing moves but what is moved on purpose."""
    usual = Scenario(
        name="gains",
        duration_s=float(BEFORE_S),
        media=False,
        plant_spread=Simulated().spread,
        excitation=ExcitationSettings(enabled=True),
    )
    return [replace(usual, seed=first + i, plant_seed=first + i) for i in range(plants)]


def ratios(models: Sequence[FleetModel], line: Plant, truth: Counterfactual, number: int) -> dict[str, Floats]:
    """Effects [K, H] foretold on one plant over the true ones, by arm; NaN where there is none to speak of."""
    instruments = other_instruments(line, UNSEEN + number)
    plant, names = instruments.plant, [s.name for s in line.of(Modality.PROCESS)]
    signals = plant.of(Modality.PROCESS)
    run = ticks_of(plant, instruments.read(truth.before[number]))
    guest = host(models, plant, [run])
    told: dict[str, list[Floats]] = {arm: [] for arm in ARMS}
    for setpoint, tag in PAIRS.items():
        moved, seen = (instruments.source.index(names.index(name)) for name in (setpoint, tag))
        size = truth.step[setpoint][number] * instruments.gain[moved]
        true = truth.effect[setpoint][number][:, names.index(tag)] * instruments.gain[seen]
        spoken = np.abs(true) >= NOTHING * _span(plant, signals[seen].name)
        action, column = plant.actions.index(signals[moved]), plant.tags.index(signals[seen])
        effects = {"own core": _by_core(plant, run, action, size)} | _by_fleet(guest, run, action, size)
        for arm, effect in effects.items():
            told[arm].append(np.where(spoken, effect[:, column] / np.where(spoken, true, 1.0), np.nan))
    return {arm: np.stack(rows) for arm, rows in told.items()}


def _span(plant: Plant, name: str) -> float:
    signal = plant.by_name[name]
    return float(signal.high or 0.0) - float(signal.low or 0.0)


def _by_core(plant: Plant, run: Ticks, action: int, size: float) -> Floats:
    """Effect [H, S] of a lasting step by a core fitted on the plant's own minutes."""
    try:
        core = fit_core([run], plant)
    except ConfigError:
        return np.zeros((len(ROWS), len(plant.tags)))
    encoding = core.encode(run)[0]
    paths = np.repeat(run.action[-1][None, None], 2, 0).repeat(ACTION_STEPS, 1)
    paths[1, :, action] += size
    still, moved = core.forecast(encoding, paths)
    return np.asarray((moved - still)[list(ROWS)])


def _by_fleet(guest: Guest, run: Ticks, action: int, size: float) -> dict[str, Floats]:
    """Effects [H, S] by arm, in engineering units."""
    seen = own_views([run], guest.scaling)[0]
    summary = np.zeros((1, len(HORIZONS), len(guest.plant.actions), SUMMARIES))
    scaled = size / guest.scaling.action.scale[action]
    summary[0, :, action] = [scaled * step_summary(k, guest.plant.step_s) for k in HORIZONS]
    planned, still = summary.reshape(1, len(HORIZONS), -1), np.zeros((1, len(HORIZONS), summary[0, 0].size))
    last = np.array([len(seen) - 1])

    def effect(change: Floats) -> Floats:
        return np.asarray(change[list(ROWS)] * guest.scaling.tags.scale)

    def ridge(here: View, path: Floats) -> Floats:
        return guest.ridge.change(here, path)[0]

    here = seen.at(last)
    return {
        "fleet ridge": effect(ridge(here, planned) - ridge(here, still)),
        "fleet net, not bent": effect(
            (guest.fleet_change(seen, last, planned) - guest.fleet_change(seen, last, still))[0]
        ),
        "fleet model": effect((guest.change(seen, last, planned) - guest.change(seen, last, still))[0]),
    }


def summed(found: Floats) -> dict[str, object]:
    """Of ratios [P, K, H]: shares of right signs and of close sizes, and how close the plants are in the middle."""
    there = np.isfinite(found)
    close = (np.abs(found - 1.0) <= CLOSE) & there
    known = there.any(0)
    middle = np.full(known.shape, np.nan)
    middle[known] = np.nanmedian(found[:, known], axis=0)
    return {
        "effects": int(there.sum()),
        "signs": float((found > 0)[there].mean()),
        "within_20": float(close.sum() / there.sum()),
        "within_20_of_each_plant": close.sum((1, 2)).tolist(),
        "median_ratio": np.round(middle, 2).tolist(),
        "medians_within_20": [int((np.abs(middle[known] - 1.0) <= CLOSE).sum()), int(known.sum())],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plants", type=int, default=20)
    parser.add_argument("--model", type=Path, nargs="+", help="folders of fleet models instead of the shipped ones")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    line, models = load_plant(LINE), [FleetModel.load(folder) for folder in asked.model or shipped()]
    truth = counterfactual(line, days(asked.plants))
    found = [ratios(models, line, truth, number) for number in range(asked.plants)]
    told: Mapping[str, object] = {arm: summed(np.stack([one[arm] for one in found])) for arm in ARMS}
    sys.stdout.write(json.dumps(plain(told), indent=1) + "\n")
    with whole_file(asked.json) as aside:
        aside.write_text(
            json.dumps(plain({"pairs": PAIRS, "horizon_s": [HORIZONS[r] for r in ROWS], "arms": told}), indent=1)
        )


if __name__ == "__main__":
    main()
