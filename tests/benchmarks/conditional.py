"""What breaks a rule and leaves every value and every pair of values ordinary: an interlock, a mode, a phase, a sound.

Run: python -m tests.benchmarks.conditional --json OUT [--seeds 1 2 3] [--hours 9] [--seconds 5]
A mixer with ten process tags that move together, a camera and a microphone. A flap stands open where exactly one of two
trains runs; a guard may be open in every mode but one; three blades pass the camera in step with the shaft; the sound
depends on whether grade and route are alike. In an episode of two minutes one of these is broken, and nothing else.
Each seed is another mixer and other days: it is commissioned as `fusion train` does, and judged by its own limits, with
and without the tables of `models/monitors/conditionals.py`, and beside the distance to the nearest normal ticks.
Shape letters: T ticks, C columns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree  # type: ignore[import-untyped]
from scipy.stats import rankdata  # type: ignore[import-untyped]

from control.anomaly.calibration import Calibration, calibrate
from control.anomaly.detector import Detector, DetectorConfig
from fusion.files import whole_file
from fusion.plant import Modality, Plant, Signal
from fusion.records import NS_PER_S, AnomalyState
from fusion.training.settings import TrainConfig, train_config
from models.averages import ewma
from models.features.stem import FeatureStem
from models.plant_model import PlantModel
from models.ticks import Ticks
from tests.benchmarks.flowsheets import commissioned
from tests.benchmarks.tables import START_NS
from tests.grid_runs import from_process_grid

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PROCESS_TAGS, DRIVERS = 10, 4
RULES = ("interlock", "guard", "phase", "sound")
GUARD_OPEN = (0.25, 0.75, 0.0, 0.5)  # how often in each mode: what is left of it by a line is little
FORBIDDEN = 2
RUN_S, BROKEN_S, APART_S, FIRST_S = 3600, 120, 1200, 300
RATE_HZ, HEIGHT, WIDTH = 8000, 36, 48
LATE_S = 30  # of an episode, after which it should stand out
NEIGHBOURS = 5
ROOM_S = 60  # after an episode, in which a raise is its own


@dataclass(frozen=True)
class Day:
    """An hour of the mixer and, by rule, where it is broken [T]."""

    ticks: Ticks
    broken: dict[str, Bools]


def mixer() -> Plant:
    """Tags, a camera and a microphone."""
    names = [f"T{i}" for i in range(PROCESS_TAGS)]
    names += ["XS1", "XS2", "ZS3", "SC1", "GS1", "GT1.COS", "GT1.SIN", "GRADE", "ROUTE"]
    return Plant(
        name="mixer",
        signals=(
            *(Signal(name=name) for name in names),
            Signal(name="camera", modality=Modality.VIDEO, shape=(HEIGHT, WIDTH)),
            Signal(name="microphone", modality=Modality.AUDIO, shape=(RATE_HZ,)),
        ),
    )


def held(rng: np.random.Generator, levels: int, ticks: int) -> NDArray[np.int64]:
    """Levels [T] drawn anew every one to four minutes."""
    made = np.zeros(ticks, np.int64)
    at = 0
    while at < ticks:
        lasts = int(rng.integers(60, 240))
        made[at : at + lasts] = rng.integers(levels)
        at += lasts
    return made


def broken_in(wrong: bool, ticks: int) -> dict[str, Bools]:
    """Episodes [T] of each rule, in turn."""
    made = {rule: np.zeros(ticks, bool) for rule in RULES}
    for k, rule in enumerate(RULES if wrong else ()):
        for start in range(FIRST_S + k * APART_S // len(RULES), ticks - BROKEN_S, APART_S):
            made[rule][start : start + BROKEN_S] = True
    return made


def day(plant: Plant, machine: int, seed: int, *, wrong: bool, ticks: int = RUN_S) -> Day:
    """An hour of a ``machine``, whose process is its own; ``wrong`` has episodes of every rule."""
    rng, broken = np.random.default_rng((machine, seed)), broken_in(wrong, ticks)
    drivers, _ = ewma(rng.normal(size=(ticks, DRIVERS)), 0.01)
    mixed = 14.0 * drivers @ np.random.default_rng(machine).normal(size=(DRIVERS, PROCESS_TAGS))
    trains = held(rng, 2, ticks), held(rng, 2, ticks)
    flap = (trains[0] != trains[1]) ^ broken["interlock"]
    mode = np.where(broken["guard"], FORBIDDEN, held(rng, len(GUARD_OPEN), ticks))
    entered = np.cumsum(np.diff(mode, prepend=-1) != 0)
    guard = (rng.random(entered[-1] + 1)[entered] < np.array(GUARD_OPEN)[mode]) | broken["guard"]
    shaft = np.cumsum(rng.uniform(0.33, 0.41, ticks))
    grade, route = held(rng, 2, ticks), held(rng, 2, ticks)
    loud = (grade != route) ^ broken["sound"]
    shown = [*trains, flap, mode, guard, np.cos(shaft), np.sin(shaft), grade, route]
    tags = np.concatenate(
        [mixed + 0.3 * rng.normal(size=mixed.shape), np.stack(shown, 1) + rng.normal(0, 0.03, (ticks, len(shown)))], 1
    )
    t_ns = START_NS + (seed * (ticks + 600) + 1 + np.arange(ticks)) * NS_PER_S
    run = from_process_grid(plant, t_ns, dict(zip((s.name for s in plant.tags), tags.T, strict=True)))
    return Day(with_media(run, plant, rng, 3 * shaft + np.pi * broken["phase"], loud), broken)


def with_media(run: Ticks, plant: Plant, rng: np.random.Generator, blades: Floats, loud: Bools) -> Ticks:
    """The run with what camera and microphone see and hear of ``blades`` [T] and of ``loud`` [T]."""
    stem = FeatureStem(plant)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    angle, inside, second = np.arctan2(y, x), np.hypot(x, y) < 0.9, np.arange(RATE_HZ) / RATE_HZ
    made: dict[str, list[Any]] = {"camera": [], "microphone": []}
    for blade, other in zip(blades, loud, strict=True):
        picture = 60 + 90 * ((np.cos(3 * angle - blade) > 0.5) & inside) + rng.normal(0, 4, angle.shape)
        tone = 0.1 * np.sin(2 * np.pi * ((600 if other else 1500) * second + rng.random()))
        values = {"camera": picture.clip(0, 255).astype(np.uint8)[None]}
        values["microphone"] = (tone + rng.normal(0, 0.05, RATE_HZ)).astype(np.float32)
        for name, value in values.items():
            made[name].append(stem.compute(name, value))
    return replace(
        run,
        media={name: np.stack([features for features, _ in rows]) for name, rows in made.items()},
        patches={name: np.stack([patches for _, patches in rows]) for name, rows in made.items()},
        present={name: np.ones(len(run), bool) for name in made},
        doubted={name: np.zeros(len(run), bool) for name in made},
    )


def area(positive: Floats, negative: Floats) -> float:
    """Area under the receiver operating characteristic."""
    rank = rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    return float((rank - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def raised(limits: Calibration, plant: Plant, run: Ticks, energies: Floats) -> list[float]:
    """Seconds at which something is raised."""
    detector = Detector(DetectorConfig(), limits, plant, "conditional")
    changes = [a for t, row in zip(run.t_ns, energies, strict=True) for a in detector.step(int(t), row)]
    begin = int(run.t_ns[0])
    return [(a.t_ns - begin) / NS_PER_S for a in changes if a.state is AnomalyState.RAISED]


def nearest(runs: list[Ticks], days: list[Day]) -> list[Floats]:
    """Averaged distance [T] of each day's ticks to the nearest normal ones, all features in their spreads."""

    def columns(run: Ticks) -> Floats:
        return np.concatenate([run.tags, *(run.media[name] for name in sorted(run.media))], 1)

    whole = np.concatenate([columns(run) for run in runs])
    scale = np.where(whole.std(0) > 1e-6, whole.std(0), np.inf)
    tree = KDTree((whole / scale)[::4])
    far = [tree.query(columns(d.ticks) / scale, NEIGHBOURS)[0].mean(1) for d in days]
    return [ewma(one[:, None], 0.1)[0][:, 0] for one in far]


def judged(machine: int, hours: int, config: TrainConfig) -> dict[str, Any]:
    """One mixer: how well broken ticks stand out, what is found, and what is raised for nothing."""
    plant = mixer()
    past = [day(plant, machine, i, wrong=False).ticks for i in range(hours)]
    days = [day(plant, machine, 100 + i, wrong=i % 2 == 0) for i in range(8)]
    with tempfile.TemporaryDirectory() as place:
        checkpoint, split = commissioned(plant, past, config, Path(place) / "model")
    model = PlantModel.from_checkpoint(checkpoint)
    later, seen = ([model.judge(run) for run in runs] for runs in (split.calibration, [d.ticks for d in days]))
    surprise = replace(config.surprise).closed(model.energies)
    without = replace(surprise, silent=(*(surprise.silent or ()), "conditional"))
    report: dict[str, Any] = {"machine": machine}
    tables = next(o for o in model.monitors.others if type(o).__name__ == "Conditionals").tables
    report["tables"] = {source: len(found) for source, found in tables.items()}
    for name, settings in (("with", surprise), ("without", without)):
        limits = calibrate(later, model.energies, settings, plant.step_s)
        at = [raised(limits, plant, d.ticks, e) for d, e in zip(days, seen, strict=True)]
        report[name] = summed(days, [limits.peaks(e) for e in seen], at)
    report["nearest"] = {"area": areas(days, nearest(split.fitted, days))}
    return report


def areas(days: list[Day], score: list[Floats]) -> dict[str, float]:
    """Area by rule: ticks late in its episodes against those of no episode."""
    every = np.concatenate(score)
    calm = np.concatenate(
        [~np.any(list(d.broken.values()), 0) & (np.arange(len(d.ticks)) > FIRST_S // 2) for d in days]
    )
    made = {}
    for rule in RULES:
        late = np.concatenate([d.broken[rule] & np.roll(d.broken[rule], LATE_S) for d in days])
        made[rule] = round(area(np.nan_to_num(every[late]), np.nan_to_num(every[calm])), 3)
    return made


def summed(days: list[Day], score: list[Floats], at: list[list[float]]) -> dict[str, Any]:
    """Areas, episodes found within their two minutes by rule, and raises that belong to none."""
    found, own, false = dict.fromkeys(RULES, 0), dict.fromkeys(RULES, 0), 0
    for d, seconds in zip(days, at, strict=True):
        every = np.any(list(d.broken.values()), 0)
        false += sum(not every[max(0, int(s) - ROOM_S) : int(s) + 1].any() for s in seconds)
        for rule, there in d.broken.items():
            begins = np.flatnonzero(np.diff(there.astype(int), prepend=0) == 1)
            own[rule] += len(begins)
            found[rule] += sum(any(b <= s <= b + BROKEN_S for s in seconds) for b in begins)
    normal_h = sum(float((~np.any(list(d.broken.values()), 0)).sum()) for d in days) / 3600
    told = {rule: f"{found[rule]} of {own[rule]}" for rule in RULES}
    return {"area": areas(days, score), "found": told, "false_raises": false, "normal_h": round(normal_h, 1)}


def main() -> None:
    """Print a line for each mixer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--hours", type=int, default=9, help="normal operation that each is commissioned on")
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU time for the networks of each model")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, rows = train_config([f"seconds={arguments.seconds}"]), []
    for machine in arguments.seeds:
        rows.append(judged(machine, arguments.hours, config))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json is not None:
        with whole_file(arguments.json) as aside:
            aside.write_text(json.dumps({"hours": arguments.hours, "mixers": rows}, indent=1))


if __name__ == "__main__":
    main()
