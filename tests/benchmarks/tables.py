"""The whole system on a table of process values, for the public benchmarks: one configuration for every set.

The plant is made from the names of the columns, fitted and calibrated by the same functions as `fusion train`; energies
go through the same calibration and detector as live ones. Shape letters: T rows, S columns, E energies.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from control.anomaly import Detector, DetectorConfig
from control.surprise import Calibration, SurpriseConfig, calibrate, sustained
from fusion.ablation import CLASSICAL, LATENT, Ablation
from fusion.plant import Modality, Plant, Signal
from fusion.plant_model import PlantModel
from fusion.records import NS_PER_S, AnomalyState
from models.batch import Ticks, from_process_grid
from models.features import FeatureStem
from models.fit import FitConfig, Fitter, build
from models.linear import LinearCore
from models.monitors import Monitors
from models.size import preset

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PARTS = {"full": Ablation(), "classical": Ablation(only=CLASSICAL), "latent": Ablation(only=LATENT)}
START_NS = 1_577_836_800 * NS_PER_S  # rows without a date begin here
BUDGET_PER_DAY = 0.25
TRAINING_S = 30.0


def plant_of(name: str, columns: Sequence[str], step_s: float) -> Plant:
    """A plant of measured tags and nothing else."""
    signals = tuple(Signal(name=c, modality=Modality.PROCESS, unit="1", period_s=step_s) for c in columns)
    return Plant(name=name, step_s=step_s, signals=signals)


def run_of(plant: Plant, values: Floats, start_ns: int = START_NS, observed: Bools | None = None) -> Ticks:
    """Rows [T, S] as ticks, one step after the other."""
    t_ns = start_ns + (np.arange(len(values)) * plant.step_s * NS_PER_S).astype(np.int64)
    names = [s.name for s in plant.tags]
    seen = None if observed is None else dict(zip(names, np.asarray(observed).T, strict=True))
    return from_process_grid(plant, t_ns, dict(zip(names, values.T, strict=True)), observed=seen)


@dataclass(frozen=True, slots=True)
class Alarms:
    """What one part of the system says of a run: ``score`` [T], whether an alarm stands [T], and rows of raises."""

    score: Floats
    standing: Bools
    raises: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class System:
    """A model of a table's plant and the limits of each of its parts."""

    model: PlantModel
    limits: Mapping[str, Calibration]

    @classmethod
    def fit(
        cls,
        plant: Plant,
        training: Sequence[Ticks],
        held_out: Sequence[Ticks],
        later: Sequence[Ticks],
        normal: Callable[[PlantModel], Sequence[Floats]],
        *,
        seed: int,
        seconds: float,
    ) -> System:
        """Fit on ``training``, decide on ``held_out``, make bands from ``later``, limits from energies ``normal``."""
        core = LinearCore.fit([], list(training), plant)
        monitors = Monitors.fit([*training, *held_out], core, plant, FeatureStem(plant))
        networks = build(plant, core, training, preset("demo"), seed)
        Fitter(networks, core, plant, training, held_out, FitConfig(max_seconds=seconds, seed=seed)).run()
        fitted = [*training, *held_out]
        model = PlantModel.assemble(plant, core, monitors, networks, list(later), fitted, list(held_out))
        config = SurpriseConfig(false_raises_per_day=BUDGET_PER_DAY)
        limits = calibrate(normal(model), model.energy_names, model.energy_modality, config, plant.step_s)
        return cls(model, {name: part.limits(limits) for name, part in PARTS.items()})

    def alarms(self, run: Ticks, part: str, energies: Floats | None = None) -> Alarms:
        """Alarms of a part of the system over a run that is replayed tick by tick."""
        energies = self.model.energies(run) if energies is None else energies
        limit = self.limits[part]
        detector = Detector(DetectorConfig(), limit, self.model.plant, "benchmark")
        standing, raised = np.zeros(len(run), bool), []
        for i, (t_ns, row) in enumerate(zip(run.t_ns.tolist(), energies, strict=True)):
            changes = detector.step(t_ns, row, None, ())
            raised += [i for change in changes if change.state is AnomalyState.RAISED]
            standing[i] = bool(detector.open)
        level = sustained(limit.peaks(energies), SurpriseConfig(), limit.step_s) / limit.threshold
        return Alarms(np.maximum(level, -1e9), standing, np.asarray(raised, np.int64))


@contextmanager
def unpacked(folder: Path, wanted: str) -> Iterator[Path]:
    """The folder itself, or where the file ``wanted`` lies in what its archives hold."""
    archives = sorted(folder.glob("*.tar.xz"))
    if (folder / wanted).exists() or not archives:
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for archive in archives:
            with tarfile.open(archive) as opened:
                opened.extractall(place, filter="data")
        yield next(Path(place).rglob(wanted)).parent


# --- floors


def principal(train: Floats, values: Floats, kept: float = 0.9) -> dict[str, Floats]:
    """T2 and SPE [T] of principal components that keep a share of the variance of the scaled training rows."""
    centre, scale = train.mean(0), np.maximum(train.std(0), 1e-9 * (1 + np.abs(train.mean(0))))
    x, y = (train - centre) / scale, np.clip((values - centre) / scale, -1e3, 1e3)
    variance, axes = np.linalg.eigh(np.cov(x.T) if x.shape[1] > 1 else np.ones((1, 1)))
    variance, axes = variance[::-1], axes[:, ::-1]
    count = int(np.searchsorted(np.cumsum(variance) / variance.sum(), kept)) + 1
    found = y @ axes[:, :count]
    left = y - found @ axes[:, :count].T
    return {"T2": (found**2 / np.maximum(variance[:count], 1e-9)).sum(1), "SPE": (left**2).sum(1)}


def farthest(train: Floats, values: Floats) -> Floats:
    """Largest distance [T] of any column from its training mean, in standard deviations: limits by tag."""
    scale = np.maximum(train.std(0), 1e-9 * (1 + np.abs(train.mean(0))))
    return np.asarray(np.abs((values - train.mean(0)) / scale).max(1))


# --- command line


def command(doc: str | None, run: Callable[[Path, int, float], dict[str, Any]]) -> None:
    """``--data DIR --json OUT``: ``run`` gives the parts of the report for one seed, this gives their means."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--data", type=Path, required=True, help="folder with the set in its original layout")
    parser.add_argument("--json", type=Path, required=True, help="report to write")
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds")
    parser.add_argument("--seconds", type=float, default=TRAINING_S, help="training of the networks, for each model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    seeds = [{"seed": seed} | run(arguments.data, seed, arguments.seconds) for seed in range(arguments.seeds)]
    parts = {name: _mean([seed[name] for seed in seeds]) for name in (*PARTS, "floors")}
    report = parts | {"seeds": seeds, "cpu_s": round(time.process_time() - begun, 1)}
    arguments.json.write_text(json.dumps(report, indent=1))
    print(json.dumps(parts, indent=1))


def _mean(values: Sequence[Any]) -> Any:
    """Mean of equal structures of numbers; what is no number is taken from the first."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, bool | str) or first is None or isinstance(first, list):
        return first
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None
