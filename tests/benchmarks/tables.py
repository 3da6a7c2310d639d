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

from control.anomaly.calibration import Calibration, SurpriseConfig, calibrate, sustained
from control.anomaly.detector import Detector, DetectorConfig
from control.anomaly.evidence import Contributions, EvidenceConfig, blame_signals
from fusion.evaluation.ablation import CLASSICAL, LATENT, Ablation
from fusion.plant import Modality, Plant, Signal
from fusion.records import NS_PER_S, AnomalyState
from models.features.stem import FeatureStem
from models.linear.fit import fit_core
from models.monitors.fit import fit_monitors, widened
from models.networks.size import preset
from models.operating.fit import fit_states
from models.plant_model import PlantModel
from models.ticks import Ticks
from models.training.fitter import Fitter, build
from models.training.settings import FitConfig
from tests.grid_runs import from_process_grid

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PARTS = {"full": Ablation(), "classical": Ablation(only=CLASSICAL), "latent": Ablation(only=LATENT)}
START_NS = 1_577_836_800 * NS_PER_S  # rows without a date begin here
SHARES = (0.6, 0.75, 1.0)
LEAD_ROWS = 60  # given to networks before the rows that decide on them, which are not judged
BUDGET_PER_DAY = 0.25  # false raises, where a set's comparisons allow no other rate
TRAINING_S = 8.0


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
class Cut:
    """Rows of a normal run: those before ``fitted`` train, then up to ``decided`` decide, up to ``limited`` limit."""

    fitted: int
    decided: int
    limited: int

    @classmethod
    def of(cls, rows: int) -> Cut:
        """The usual shares of a run of normal rows."""
        return cls(*(round(share * rows) for share in SHARES))


@dataclass(frozen=True, slots=True)
class Alarms:
    """What one part of the system says of a run.

    ``score`` [T] is one at the limit, ``judged`` [T] where anything is known, ``standing`` [T] where an alarm stands,
    ``raises`` the rows at which one was raised.
    """

    score: Floats
    judged: Bools
    standing: Bools
    raises: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class System:
    """A model of a table's plant, the limits of each of its parts, and the energies of the runs it was made of."""

    model: PlantModel
    limits: Mapping[str, Calibration]
    energies: tuple[Floats, ...]

    @classmethod
    def fit(
        cls,
        plant: Plant,
        runs: Sequence[Ticks],
        cuts: Sequence[Cut],
        *,
        seed: int,
        seconds: float,
        limits: bool = True,
        per_day: float = BUDGET_PER_DAY,
    ) -> System:
        """Commission on the normal rows of ``runs``: earlier ones for fitting, later ones for ``limits``, if wanted.

        The limits allow so many false raises ``per_day``.
        """
        pairs = list(zip(runs, cuts, strict=True))
        training = [run[: cut.fitted] for run, cut in pairs if cut.fitted]
        held_out = [run[max(0, c.fitted - LEAD_ROWS) : c.decided] for run, c in pairs if c.decided > c.fitted]
        normal = [run[: cut.decided] for run, cut in pairs]
        core = fit_core(training, plant)
        monitors = fit_monitors(normal, core, plant, FeatureStem(plant))
        networks = build(plant, core, training, preset("demo"), seed)
        config = FitConfig(seconds=seconds, seed=seed)
        Fitter(networks, core, plant, training, held_out, config, clock=time.process_time).run()
        monitors = widened(
            monitors, [run[cut.decided : cut.limited] for run, cut in pairs if cut.limited > cut.decided]
        )
        later = [run[: cut.limited] for run, cut in pairs]
        states = fit_states(normal, plant)
        model = PlantModel.assemble(plant, core, monitors, networks, later, normal, normal, states)
        if not limits:
            return cls(model, {}, ())
        energies = tuple(model.judge(run, begins_well=True) for run in runs)
        seen = [e[c.decided : c.limited] for e, c in zip(energies, cuts, strict=True) if c.limited > c.decided]
        surprise = SurpriseConfig(false_raises_per_day=per_day)
        found = calibrate([np.concatenate(seen)], model.energies, surprise, plant.step_s)
        return cls(model, {name: part.limits(found) for name, part in PARTS.items()}, energies)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Forecasts by a part meanwhile: the linear core alone, or the networks with their gates open."""
        gate = self.model.networks.readout.gate_HS
        before = gate.clone()
        gate.fill_(float(PARTS[name].networks))
        yield
        gate.copy_(before)

    def alarms(self, run: Ticks, part: str, energies: Floats) -> Alarms:
        """Alarms of a part of the system over a run, from its energies, tick by tick."""
        limit = self.limits[part]
        detector = Detector(DetectorConfig(), limit, self.model.plant, "benchmark")
        standing, raised = np.zeros(len(run), bool), []
        for i, (t_ns, row) in enumerate(zip(run.t_ns.tolist(), energies, strict=True)):
            changes = detector.step(t_ns, row, None, ())
            raised += [i for change in changes if change.state is AnomalyState.RAISED]
            standing[i] = bool(detector.open)
        level = sustained(limit.peaks(energies), SurpriseConfig(), limit.step_s) / limit.threshold
        judged = np.isfinite(level)
        return Alarms(np.where(judged, level, -1e9), judged, standing, np.asarray(raised, np.int64))

    def blamed(self, run: Ticks, part: str, rows: slice) -> tuple[str, ...]:
        """Signals, most blamed first, over rows of an alarm, by the evidence that an operator is shown."""
        config, total = EvidenceConfig(), np.zeros(len(self.model.signals))
        for seen in self.model.evidence(run, rows):
            factor = self.limits[part].score(seen.energies).factor
            given = Contributions(signals=self.model.signals, shares=seen.shares, residual=seen.residual)
            total += blame_signals(factor, given, config)
        return tuple(self.model.signals[i] for i in np.argsort(-total, kind="stable"))


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
    parser.add_argument("--seconds", type=float, default=TRAINING_S, help="CPU time for the networks of each model")
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
