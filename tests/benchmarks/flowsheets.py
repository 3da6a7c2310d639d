"""Plants of random flowsheets that nobody tuned to: commissioned in hours, judged on a new day and on faults.

Run: python -m tests.benchmarks.flowsheets --json OUT [--plants 8] [--first 500] [--hours 12] [--seconds 5]
Each plant is simulated, trained and calibrated as `fusion train` does, and run by the engine that a daemon runs: 24 h
of normal operation, and one course for each fault. Beside it stand principal components and limits by tag, whose limit
is the largest that the same hours of calibration showed for the same on-delay. Settings were chosen on plants of seeds
below 500.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.ndimage import minimum_filter1d

from fusion.checkpoint import Checkpoint, load_checkpoint
from fusion.files import whole_file
from fusion.fleet.plants import ticks_of
from fusion.inference import TICKS_AT_ONCE, Engine
from fusion.plant import Plant
from fusion.records import NS_PER_S, Anomaly, AnomalyState, Frame, Quality
from fusion.simulator.flowsheets.drawing import draw
from fusion.simulator.flowsheets.playing import SENSOR_FAULTS, Course, Trouble, played, troubles_of
from fusion.training.settings import TrainConfig, train_config
from fusion.training.splitting import Split, split_runs
from fusion.training.train import Trained, fit_closed_form, publish, train_networks
from models.monitors.fit import widened
from models.operating.fit import fit_states
from models.plant_model import PlantModel
from models.ticks import Ticks
from models.training.fitter import Fitter, build
from tests.benchmarks.tables import START_NS, farthest, principal

Floats = NDArray[np.float64]

RUN_S, NEW_S, NEW_ROWS = 3600, 7200, 12
FAULTS, ONSET_S, END_S, AFTER_S = 14, 1200, 3000, 60
ON_DELAY = 10  # ticks above the limit before a floor raises, as ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an engine said of one course: seconds of its raises, and the anomaly as it was last told of each."""

    raised_s: dict[str, float]
    last: dict[str, Anomaly]


def runs_of(plant: Plant, values: Floats) -> list[Ticks]:
    """Rows of a play [T, P, B] as runs, one after the other in time."""
    runs, begins_ns = [], START_NS
    for row in range(values.shape[2]):
        run = ticks_of(plant, values[:, :, row])
        run.t_ns[:] += begins_ns
        begins_ns = int(run.t_ns[-1]) + 600 * NS_PER_S
        runs.append(run)
    return runs


def commissioned(plant: Plant, runs: Sequence[Ticks], config: TrainConfig, folder: Path) -> tuple[Checkpoint, Split]:
    """A model of normal runs, written to a folder and read again."""
    started = time.monotonic()
    states = fit_states(runs, plant)
    split = split_runs(runs, config, states)
    with Progress(disable=True) as bar:
        core, monitors = fit_closed_form(plant, split, config.linear, bar)
        networks = build(plant, core, split.training, config.model, config.fit.seed)
        fitter = Fitter(networks, core, plant, split.training, split.held_out, config.fit)
        course, gauges = train_networks(fitter, config, folder.with_name("work"), bar)
        trained = Trained(networks=fitter.networks(), course=course, gauges=gauges)
        monitors = widened(monitors, split.calibration)
        parts = (plant, core, monitors, trained.networks, split.calibration, split.fitted, split.held_out)
        publish(PlantModel.assemble(*parts, states), split, trained, folder, config, started, bar)
    return load_checkpoint(folder), split


def frames_of(plant: Plant, values: Floats) -> list[Frame]:
    """Values [T, P] as what a timeline gives, all of it good."""
    names = tuple(s.name for s in plant.signals)
    age, good = np.full(len(names), 0.2), np.full(len(names), Quality.GOOD, np.uint8)
    there, whole = np.ones(len(names), bool), np.ones(len(names))
    return [
        Frame(
            t_ns=START_NS + (i + 1) * NS_PER_S, signals=names, value_S=row, observed_S=there, age_s_S=age,
            quality_S=good, coverage_S=whole, media={}, flags=(),
        )
        for i, row in enumerate(values)
    ]  # fmt: skip


def told(checkpoint: Checkpoint, values: Floats) -> Told:
    """What an engine that begins with a course says of it."""
    engine, raised, last = Engine(checkpoint), {}, {}
    frames = frames_of(checkpoint.plant, values)
    for start in range(0, len(frames), TICKS_AT_ONCE):
        _, changes = engine.catch_up(frames[start : start + TICKS_AT_ONCE])
        for change in changes:
            if change.state is AnomalyState.RAISED:
                raised[change.id] = (change.t_ns - START_NS) / NS_PER_S
            last[change.id] = change
    return Told(raised_s=raised, last=last)


def floors(plant: Plant, split: Split, values: Sequence[Floats]) -> dict[str, list[list[float]]]:
    """By floor and course, the seconds at which it raises; limits are the largest of the calibration."""
    tags = [i for i, s in enumerate(plant.signals) if s.name in {t.name for t in plant.tags}]
    train = np.concatenate([run.tags for run in split.fitted])
    later = [run.tags for run in split.calibration]

    def level(name: str, x: Floats) -> Floats:
        score = farthest(train, x) if name == "limits by tag" else principal(train, x)[name]
        return np.asarray(minimum_filter1d(score, ON_DELAY, origin=(ON_DELAY - 1) // 2))

    found: dict[str, list[list[float]]] = {}
    for name in ("limits by tag", "T2", "SPE"):
        limit = max(float(level(name, x).max()) for x in later)
        found[name] = [_begins(level(name, x[:, tags]) > limit) for x in values]
    return found


def _begins(above: NDArray[np.bool_], apart: int = 300) -> list[float]:
    """Seconds at which something begins to stand, those closer than ``apart`` being one."""
    rows = np.flatnonzero(above)
    return [float(r) for i, r in enumerate(rows) if i == 0 or r - rows[i - 1] > apart]


def verdict(trouble: Trouble, anomaly: Anomaly, plant: Plant) -> dict[str, bool]:
    """Whether the kind is right, and whether the first, or one of three, points to the instrument or its block."""
    of_instrument = trouble.name in SENSOR_FAULTS
    names = [blame.signal for blame in anomaly.top_signals[:3]]
    if of_instrument:
        right = [name.removesuffix(".SP") == trouble.at for name in names]
    else:
        right = [plant.by_name[name].equipment == trouble.at for name in names]
    return {
        "kind": anomaly.kind.value == ("sensor" if of_instrument else "process"),
        "first": any(right[:1]),
        "three": any(right),
    }


def judged(seed: int, hours: float, config: TrainConfig) -> dict[str, Any]:
    """One plant: what was found and what was raised for nothing."""
    plant = draw(seed).plant
    rows = max(5, round(hours * 3600 / RUN_S))
    past = played(seed, [Course(seed=1000 + i) for i in range(rows)], RUN_S)
    new = played(seed, [Course(seed=5000 + i) for i in range(NEW_ROWS)], NEW_S)
    troubles = troubles_of(seed, FAULTS, ONSET_S, END_S)
    wrong = played(seed, [Course(seed=9000 + i, troubles=(t,)) for i, t in enumerate(troubles)], END_S + AFTER_S)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        checkpoint, split = commissioned(plant, runs_of(plant, past), config, Path(place) / "model")
    cost = time.process_time() - begun
    normal = [told(checkpoint, new[:, :, row]) for row in range(NEW_ROWS)]
    faulty = [told(checkpoint, wrong[:, :, row]) for row in range(FAULTS)]
    values = [new[:, :, i] for i in range(NEW_ROWS)] + [wrong[:, :, i] for i in range(FAULTS)]
    rivals = floors(plant, split, values)
    return {
        "seed": seed,
        "signals": len(plant.signals),
        "training_cpu_s": round(cost, 1),
        "calibrated_h": round(sum(len(r) for r in split.calibration) / 3600, 1),
        "normal_h": NEW_S * NEW_ROWS / 3600,
        "ours": _summed([list(n.raised_s.values()) for n in normal], [list(f.raised_s.values()) for f in faulty]),
        **{name: _summed(says[:NEW_ROWS], says[NEW_ROWS:]) for name, says in rivals.items()},
        "faults": [_of_fault(t, f, plant) for t, f in zip(troubles, faulty, strict=True)],
        "false": [
            {
                "at_s": at,
                "energies": n.last[name].energies[:2],
                "blamed": [b.signal for b in n.last[name].top_signals[:3]],
            }
            for n in normal
            for name, at in n.raised_s.items()
        ],
    }


def _summed(normal: Sequence[Sequence[float]], faulty: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Faults found and their delay, and false raises: those of normal courses, and those before an onset."""
    delays = [min((s - ONSET_S for s in raised if ONSET_S <= s <= END_S), default=None) for raised in faulty]
    found = [d for d in delays if d is not None]
    return {
        "found": len(found),
        "of": len(delays),
        "median_delay_s": float(np.median(found)) if found else None,
        "false_raises": sum(map(len, normal)),
        "false_before_onset": sum(s < ONSET_S for raised in faulty for s in raised),
    }


def _of_fault(trouble: Trouble, says: Told, plant: Plant) -> dict[str, Any]:
    within = {name: s for name, s in says.raised_s.items() if ONSET_S <= s <= END_S}
    row: dict[str, Any] = {
        "fault": trouble.name, "at": trouble.at, "severity": round(trouble.severity, 2), "ramp_s": trouble.ramp_s,
        "delay_s": None,
    }  # fmt: skip
    if within:
        first = min(within, key=lambda name: within[name])
        anomaly = says.last[first]
        row |= {"delay_s": within[first] - ONSET_S, "energies": anomaly.energies[:2]}
        row |= verdict(trouble, anomaly, plant) | {"blamed": [b.signal for b in anomaly.top_signals[:3]]}
    return row


def total(plants: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All plants together."""
    days = sum(p["normal_h"] for p in plants) / 24.0
    before_days = sum(p["ours"]["of"] for p in plants) * ONSET_S / 86400.0
    made: dict[str, Any] = {}
    for name in ("ours", "limits by tag", "T2", "SPE"):
        rows = [p[name] for p in plants]
        raises = sum(r["false_raises"] + r["false_before_onset"] for r in rows)
        made[name] = {
            "found": f"{sum(r['found'] for r in rows)} of {sum(r['of'] for r in rows)}",
            "median_delay_s": float(np.median([r["median_delay_s"] for r in rows if r["median_delay_s"] is not None])),
            "false_raises_per_day": round(raises / (days + before_days), 2),
        }
    faults = [f for p in plants for f in p["faults"] if f["delay_s"] is not None]
    for key in ("kind", "first", "three"):
        made["ours"][key] = f"{sum(f[key] for f in faults)} of {len(faults)}"
    return made


def main() -> None:
    """Print a line for each plant, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plants", type=int, default=8)
    parser.add_argument("--first", type=int, default=500, help="seed of the first plant")
    parser.add_argument("--hours", type=float, default=12.0, help="normal operation that each is commissioned on")
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU time for the networks of each model")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, plants = train_config([f"seconds={arguments.seconds}"]), []
    for seed in range(arguments.first, arguments.first + arguments.plants):
        plants.append(judged(seed, arguments.hours, config))
        print(json.dumps({k: v for k, v in plants[-1].items() if k not in ("faults", "false")}), flush=True)
    report = {"hours": arguments.hours, "total": total(plants), "plants": plants}
    print(json.dumps(report["total"], indent=1))
    if arguments.json is not None:
        with whole_file(arguments.json) as aside:
            aside.write_text(json.dumps(report, indent=1, default=str))


if __name__ == "__main__":
    main()
