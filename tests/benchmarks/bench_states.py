"""What limits by operating state are worth: three plants that stand, are cleaned or change grade, in closed form.

Run: python -m tests.benchmarks.bench_states [--seeds 1 2] [--json OUT]
Two weeks train and calibrate, as `fusion train` does; the third is judged as it was, and again with faults in it. Once
with states, once as if the plant had one.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from control.anomaly.calibration import Calibration, calibrate
from control.anomaly.detector import Detector, DetectorConfig
from fusion.evaluation.ablation import CLASSICAL, Ablation
from fusion.records import NS_PER_S, Anomaly, AnomalyState
from fusion.training.settings import TrainConfig
from fusion.training.splitting import split_runs
from fusion.training.train import fit_closed_form
from models.networks.size import preset
from models.operating.fit import fit_states
from models.operating.states import OperatingStates
from models.plant_model import ModelState, PlantModel
from models.ticks import Ticks
from models.training.fitter import build
from tests.state_plants import DAY_S, FAULT_S, STATE_PLANTS, Fault, StatePlant

PARTS = 12  # recordings that an import of two weeks makes


def commissioned(made: StatePlant, past: Ticks, *, by_state: bool) -> tuple[PlantModel, Calibration]:
    """A model and limits of two weeks, the networks untrained and unheard."""
    plant, config = made.plant, TrainConfig()
    edges = np.linspace(0, len(past), PARTS + 1, dtype=int)
    runs = [past[a:b] for a, b in itertools.pairwise(edges)]
    states = fit_states(runs, plant) if by_state else OperatingStates()
    split = split_runs(runs, config, states)
    with Progress(disable=True) as bar:
        core, monitors = fit_closed_form(plant, split, config.linear, bar)
    networks = build(plant, core, split.training, preset("demo"), 0)
    parts = (plant, core, monitors, networks, split.calibration, split.fitted, split.held_out)
    model = PlantModel.assemble(*parts, states)
    energies = [model.judge(run) for run in split.calibration]
    found = calibrate(energies, model.energies, config.surprise, plant.step_s)
    limits = Ablation(only=CLASSICAL).limits(found).heard()
    return model.hearing(limits.names), limits


def told(model: PlantModel, limits: Calibration, run: Ticks) -> list[Anomaly]:
    """Every change of an anomaly in a run."""
    detector = Detector(DetectorConfig(), limits, model.plant, "benchmark")
    seen = model.step(run, ModelState())
    return [
        change
        for t_ns, tick in zip(run.t_ns.tolist(), seen, strict=True)
        for change in detector.step(t_ns, tick.energies, None, tick.flags)
    ]


def delay_s(changes: list[Anomaly], begins_ns: int, fault: Fault) -> float | None:
    """From the onset of a fault to the first raise while it lasts; None without one."""
    onset_ns = begins_ns + round(fault.start_s * NS_PER_S)
    late = (c.t_ns - onset_ns for c in changes if c.state is AnomalyState.RAISED)
    return min((ns / NS_PER_S for ns in late if 0 <= ns <= FAULT_S * NS_PER_S), default=None)


def row(name: str, seed: int, *, by_state: bool) -> dict[str, Any]:
    """One plant, once."""
    made = STATE_PLANTS[name]
    normal, faulty = made.ticks(seed)[0], made.ticks(seed, made.faults)[0]
    week = round(14 * DAY_S / made.plant.step_s)
    model, limits = commissioned(made, normal[:week], by_state=by_state)
    wrong = told(model, limits, normal[week:])
    changes, begins_ns = told(model, limits, faulty[week:]), int(faulty.t_ns[week])
    delays = {fault.name: delay_s(changes, begins_ns, fault) for fault in made.faults}
    found = [delay for delay in delays.values() if delay is not None]
    return {
        "plant": name,
        "seed": seed,
        "states": len(model.operating.states),
        "calibrated_h": round(limits.hours, 1),
        "false_raises": sum(c.state is AnomalyState.RAISED for c in wrong),
        "normal_h": round((len(normal) - week) * made.plant.step_s / 3600, 1),
        "standing_h": round(standing_h(wrong), 1),
        "found": f"{len(found)} of {len(delays)}",
        "median_delay_s": float(np.median(found)) if found else None,
        "delay_s": delays,
    }


def standing_h(changes: list[Anomaly]) -> float:
    """For how long false alarms stood."""
    raised = {c.id: c.t_ns for c in changes if c.state is AnomalyState.RAISED}
    ended = {c.id: c.t_ns for c in changes}
    return sum(ended[name] - t_ns for name, t_ns in raised.items()) / NS_PER_S / 3600


def main() -> None:
    """Print a row for each plant, seed and arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in STATE_PLANTS:
        for seed in arguments.seeds:
            for by_state in (False, True):
                rows.append(row(name, seed, by_state=by_state))
                print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
