"""A fleet model on plants it never saw: with ten minutes of their own, with fewer tags, and against their own models.

Run: python -m tests.benchmarks.fleet --json OUT [--plants 120] [--seeds 3] [--models DIR] [--crossing 4]
Plants to train on and plants to judge are simulated once; settings were chosen on plants of other seeds than those
that judge. Tables: unlike plants with instruments of their own (as trained), the same with the line's instruments, one
kind of plant (spread 1), each plant with six tenths of its tags, and a family that no training saw.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusion.files import whole_file
from fusion.fleet.command import JUDGED_LAST_S, LINE, UNSEEN, fleet_config, judged_plants, show
from fusion.fleet.evaluation import Crossing, coverage, crossing, table
from fusion.fleet.plants import Simulated, instrumented, played, simulated, ticks_of
from fusion.plain import plain
from fusion.plant import Plant
from fusion.plant_file import load_plant
from models import distributed
from models.fleet.model import FleetModel
from models.fleet.training import Member, prepare, train_network
from tests.small_plants import SMALL, small_values

FLEETS = {
    "unlike plants, own instruments": {"spread": 3.0},
    "unlike plants, the line's instruments": {"spread": 3.0, "alike": True},
    "one kind of plant, the line's instruments": {"spread": 1.0, "alike": True},
    "unlike plants, own six tenths of the tags": {"spread": 3.0, "share": 0.6},
}
OWN_S = 600.0
HOURS = (1 / 6, 0.5, 1.0, 2.0, 4.0, 8.0)


def another_family() -> list[Member]:
    """The small plant of the tests: a flow that saturates, a temperature and a pressure behind it."""
    ranges = {"TT1": (0.0, 100.0), "FT1": (0.0, 10.0), "PT1": (0.0, 5.0)}
    signals = tuple(
        replace(s, low=ranges[s.name][0], high=ranges[s.name][1]) if s.name in ranges else s for s in SMALL.signals
    )
    made = []
    for seed in range(10):
        values = small_values(900 + seed, 2700)
        plant = replace(SMALL, name=f"small-{seed}", signals=signals)
        made.append(Member(plant=plant, runs=(ticks_of(plant, np.stack([values[s.name] for s in signals], 1)),)))
    return made


def judging_plants(line: Plant, plants: int, first: int) -> dict[str, list[Member]]:
    """Every fleet; those of one spread are the same plants with other instruments."""
    plans = {name: Simulated(plants=plants, first=first, **fleet) for name, fleet in FLEETS.items()}
    values = {plan.spread: plan for plan in plans.values()}
    seen = {spread: played(line, plan, say) for spread, plan in values.items()}
    return {name: instrumented(line, plan, seen[plan.spread]) for name, plan in plans.items()}


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def write(file: Path, tables: list[dict[str, Any]], crossed: list[Crossing]) -> None:
    with whole_file(file) as aside:
        aside.write_text(json.dumps(plain({"tables": tables, "crossing": crossed}), indent=1))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plants", type=int, default=120)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--judged", type=int, default=20)
    parser.add_argument("--first", type=int, default=UNSEEN, help="first seed of the plants that judge")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="where the models are kept; those that are there are used")
    parser.add_argument("--crossing", type=float, default=0.0, help="hours of own data up to which to compare")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    line = load_plant(LINE)
    judges = judging_plants(line, asked.judged, asked.first)
    judges["another family: the tests' small plant"] = another_family()
    prepared, found = None, []
    for seed in range(asked.seeds):
        config = fleet_config([f"seed={seed}", *asked.overrides])
        place = None if asked.models is None else asked.models / f"seed-{seed}"
        if place is not None and (place / "model.json").is_file():
            model = FleetModel.load(place)
        else:
            plan = Simulated(plants=asked.plants, minutes=asked.minutes, first=config.first, spread=config.spread)
            prepared = prepared or prepare(simulated(line, plan, say), config.training, say)
            model = train_network(prepared, config.training, distributed.device(config.device), say)
            if place is not None:
                model.save(place)
        for name, fleet in judges.items():
            judged = judged_plants([model], fleet, OWN_S)
            rows = table(judged, model.ridge.step_s)
            print(f"seed {seed}: {name}", flush=True)
            show(judged, rows)
            found.append({"seed": seed, "fleet": name, "rows": rows, "coverage": coverage(judged)})
        write(asked.json, found, [])
    crossed: list[Crossing] = []
    if asked.crossing:
        hours = [h for h in HOURS if h <= asked.crossing]
        minutes = 60 * max(hours) + JUDGED_LAST_S / 60
        plan = Simulated(plants=5, first=asked.first + 500, spread=3.0, minutes=minutes)
        crossed = crossing([model], simulated(line, plan, say), hours, JUDGED_LAST_S)
        print(json.dumps(plain(crossed), indent=1))
    write(asked.json, found, crossed)


if __name__ == "__main__":
    main()
