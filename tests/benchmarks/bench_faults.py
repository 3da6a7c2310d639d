"""Every fault of the simulated line against its fault-free twin and hours of normal operation, beside PCA on the tags.

Run: python -m tests.benchmarks.bench_faults --model DIR --train DIR... --out FILE
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from control.anomaly.calibration import Calibration, SurpriseConfig, calibrate
from control.anomaly.detector import Detector, DetectorConfig
from fusion.checkpoint import load_checkpoint
from fusion.evaluation.evaluate import (
    Played,
    check_plant,
    detection,
    false_raises,
    normal_hours,
    play_all,
    raises,
    summary,
)
from fusion.plant import Modality, Plant
from fusion.plant_file import load_plant
from fusion.recordings.recording import Recording
from fusion.records import Energy, Origin
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.record import record
from fusion.simulator.scenario import FaultEvent, Scenario, load_scenario
from fusion.timeline.history import process_grid
from fusion.training.settings import TrainConfig
from fusion.training.splitting import split_runs

Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FIRST_SEED = 5000  # commissioning counts from 1000
DURATION_S, ONSET_S, RAMP_S, SLOW_RAMP_S = 900.0, 300.0, 5.0, 120.0
SLOW = ("rat_hole", "scale_drift", "thermometer_drift", "leak", "line_scaling")
MOVES_EVERY_S = 2400.0
NORMAL_S = 1800.0
WARM_UP_TICKS = 60
PCA_ENERGIES = tuple(Energy(name=f"pca.{name}", origin=Origin.BESIDE, family="pca") for name in ("t2", "spe"))


# --- what is recorded


def quiet(name: str, seed: int) -> Scenario:
    """The range of operation the model was commissioned in, with fewer moves and nothing else."""
    base = load_scenario(CONFIGS / "scenario" / "commissioning.yaml")
    slow = replace(base.excitation, mean_interval_s=MOVES_EVERY_S)
    return replace(base, name=name, seed=seed, duration_s=DURATION_S, excitation=slow, nuisances=())


def faulty(name: str, seed: int, severity: float) -> Scenario:
    """The same run as ``quiet``, with a fault from the fifth minute to the end."""
    ramp_s = SLOW_RAMP_S if name in SLOW else RAMP_S
    fault = FaultEvent(name=name, onset_s=ONSET_S, ramp_s=ramp_s, severity=severity, end_s=DURATION_S)
    return replace(quiet(name, seed), faults=(fault,))


def busy(seed: int) -> Scenario:
    """Half an hour of normal operation with every nuisance."""
    nuisances = load_scenario(CONFIGS / "scenario" / "nuisances.yaml").nuisances
    return replace(quiet("normal", seed), duration_s=NORMAL_S, nuisances=nuisances)


def plan(faults: list[str], seeds: int, severity: float, hours: float) -> list[Scenario]:
    """Twins first, then their faults, then normal operation; seeds are not those of training."""
    twins = [quiet("twin", FIRST_SEED + i) for i in range(seeds)]
    wrong = [faulty(name, FIRST_SEED + i, severity) for i in range(seeds) for name in faults]
    runs = round(hours * 3600.0 / NORMAL_S)
    return [*twins, *wrong, *(busy(FIRST_SEED + 500 + i) for i in range(runs))]


def record_all(scenarios: list[Scenario], plant: Plant, folder: Path, workers: int) -> list[Path]:
    """Record what the folder does not hold yet, on every core."""
    paths = [folder / f"{s.name}-{s.seed}-{max((f.severity for f in s.faults), default=0):g}" for s in scenarios]
    missing = [(s, p) for s, p in zip(scenarios, paths, strict=True) if not p.is_dir()]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        jobs = [pool.submit(record, scenario, plant, path) for scenario, path in missing]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            logging.info("recorded %d of %d", done, len(jobs))
    return paths


# --- the rival


@dataclass(frozen=True)
class Run:
    """Tags [T, S] of a recording on the grid; ``media`` as in ``Ticks``, for the same split as the model's."""

    t_ns: NDArray[np.int64]
    tags: Floats
    media: bool

    def __len__(self) -> int:
        return len(self.t_ns)

    def __getitem__(self, part: slice) -> Run:
        return Run(self.t_ns[part], self.tags[part], self.media)


def read_tags(path: Path) -> Run:
    """The process side of a recording; media are not decoded."""
    recording = Recording(path)
    grid = process_grid(recording)
    names = [s.name for s in recording.plant.of(Modality.PROCESS)]
    columns = [names.index(s.name) for s in recording.plant.tags]
    return Run(grid.t_ns, grid.value[:, columns], recording.has_media)


@dataclass(frozen=True)
class Pca:
    """Static PCA: T2 within the kept components and SPE outside, of exponentially averaged standard scores."""

    mean: Floats
    scale: Floats
    kept: Floats
    variance: Floats
    alpha: float = 0.1
    share: float = 0.9

    @classmethod
    def fit(cls, runs: list[Run]) -> Pca:
        """Keep the components that hold ``share`` of the variance."""
        values = np.concatenate([run.tags for run in runs])
        mean, scale = values.mean(0), np.maximum(values.std(0), 1e-9)
        bare = cls(mean, scale, np.zeros((len(mean), 0)), np.zeros(0))
        smooth = np.concatenate([bare.averaged(run)[WARM_UP_TICKS:] for run in runs])
        variance, vectors = np.linalg.eigh(np.cov(smooth.T))
        variance, vectors = np.maximum(variance[::-1], 1e-12), vectors[:, ::-1]
        count = int(np.searchsorted(np.cumsum(variance) / variance.sum(), cls.share)) + 1
        return cls(mean, scale, vectors[:, :count], variance[:count])

    def averaged(self, run: Run) -> Floats:
        """Standard scores [T, S] after the average."""
        rows = (run.tags - self.mean) / self.scale
        for t in range(1, len(rows)):
            rows[t] = (1 - self.alpha) * rows[t - 1] + self.alpha * rows[t]
        return rows

    def energies(self, run: Run) -> Floats:
        """T2 and SPE [T, 2]; not known during the warm-up."""
        rows = self.averaged(run)
        scores = rows @ self.kept
        energies = np.stack([(scores**2 / self.variance).sum(1), ((rows - scores @ self.kept.T) ** 2).sum(1)], 1)
        energies[:WARM_UP_TICKS] = np.nan
        return energies


def rival(train: list[Path], share: float, budget: float) -> tuple[Pca, Calibration]:
    """PCA fitted and limited on the runs that the model was fitted and limited on, under the same budget."""
    found = sorted((r for r in map(Recording, train) if r.kind == "normal"), key=lambda r: r.manifest["t0_ns"])
    split = split_runs([read_tags(r.path) for r in found], TrainConfig(calibration_share=share))
    pca = Pca.fit(split.fitted)
    later = [run for run in split.calibration if run.media] or split.calibration
    limits = SurpriseConfig(false_raises_per_day=budget)
    energies = [pca.energies(run) for run in later]
    return pca, calibrate(energies, PCA_ENERGIES, limits)


def play_rival(pca: Pca, limits: Calibration, plant: Plant, path: Path) -> Played:
    """One recording as the rival sees it, with the life cycle of our anomalies."""
    run, detector = read_tags(path), Detector(DetectorConfig(), limits, plant, "pca")
    changes = [a for t, row in zip(run.t_ns, pca.energies(run), strict=True) for a in detector.step(int(t), row)]
    span = {"t0_ns": int(run.t_ns[0]), "t1_ns": int(run.t_ns[-1])}
    return Played(recording=str(path), events=tuple(Recording(path).events), changes=tuple(changes), **span)


# --- the table


@dataclass(frozen=True)
class Scores:
    """Rows of the table need what one monitor said on all recordings, by path."""

    played: dict[str, Played]

    def delays(self, fault: str) -> list[float | None]:
        """One entry for each run with the fault [s]; None where it was not found."""
        found = [(e, detection(p, e)) for p in self.played.values() for e in p.faults if e.name == fault]
        return [None if a is None else (a.t_ns - e.onset_ns) / 1e9 for e, a in found]

    def twins_raised(self) -> int:
        """Twins in which anything was raised after the time at which their faults begin."""
        twins = [p for path, p in self.played.items() if Path(path).name.startswith("twin-")]
        return sum(any(a.t_ns - p.t0_ns >= (ONSET_S - 1) * 1e9 for a in raises(p.changes)) for p in twins)

    def normal(self) -> tuple[int, float]:
        """False raises and the hours in which they fell."""
        every = self.played.values()
        return sum(len(false_raises(p)) for p in every), sum(normal_hours(p) for p in every)


def table(faults: list[str], report: dict, ours: Scores, theirs: Scores | None, seeds: int) -> str:
    """Markdown: one row per fault, then both monitors summed up."""
    heads = ["fault", "found", "delay s", "blamed (true)", "top signal (true)", "verdict (true)", "twin raised"]
    heads += ["PCA found", "PCA delay s", "PCA twin"] if theirs else []
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for fault in faults:
        events = [e for e in report["events"] if e["fault"] == fault]
        modality = f"{_most([e['blamed_modality'] for e in events])} ({', '.join(FAULTS[fault].modalities)})"
        signal = _most([e["blamed_signals"][0] for e in events if e["blamed_signals"]])
        signal += f" ({', '.join(events[0]['true_signals'][:3])})"
        verdict = f"{_most([e['verdict'] for e in events])} ({FAULTS[fault].kind})"
        cells = [fault, *_found(ours.delays(fault)), modality, signal, verdict, f"{ours.twins_raised()}/{seeds}"]
        cells += [*_found(theirs.delays(fault)), f"{theirs.twins_raised()}/{seeds}"] if theirs else []
        lines.append(" | ".join(cells))
    text = "\n".join(f"| {line} |" for line in lines)
    return "\n".join([text, "", *_sums(faults, "model", ours), *(_sums(faults, "PCA", theirs) if theirs else ())])


def _sums(faults: list[str], name: str, scores: Scores) -> list[str]:
    delays = [d for fault in faults for d in scores.delays(fault)]
    found = [d for d in delays if d is not None]
    middle = f"{statistics.median(found):.0f} s" if found else "-"
    wrong, hours = scores.normal()
    rate = f"{4 * wrong / hours:.2f}" if hours else "-"
    return [
        f"- {name}: {len(found)} of {len(delays)} faults found, median delay {middle}; {wrong} false raises in "
        f"{hours:.1f} h of normal time, {rate} in 4 h"
    ]


def _found(delays: list[float | None]) -> tuple[str, str]:
    found = [d for d in delays if d is not None]
    return f"{len(found)}/{len(delays)}", f"{statistics.median(found):.0f}" if found else "-"


def _most(values: list[str | None]) -> str:
    known = Counter(v for v in values if v)
    return known.most_common(1)[0][0] if known else "-"


# --- the command


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments = _arguments()
    started = time.monotonic()
    plant = load_plant(CONFIGS / "plant" / "lime.yaml")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.recordings or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scenarios = plan(arguments.faults, arguments.seeds, arguments.severity, arguments.hours)
        paths = record_all(scenarios, plant, folder, arguments.workers)
        recorded_s = time.monotonic() - started
        text, report = judge(arguments, paths, plant)
    text += (
        f"\n- recorded in {recorded_s:.0f} s, all in {time.monotonic() - started:.0f} s on {arguments.workers} cores\n"
    )
    arguments.out.write_text(text)
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1))
    print(text)


def judge(arguments: argparse.Namespace, paths: list[Path], plant: Plant) -> tuple[str, dict]:
    """Both monitors over all recordings: the table, and the report of ``fusion.evaluation.evaluate``."""
    checkpoint = load_checkpoint(arguments.model, plant)
    check_plant(checkpoint, paths)
    played = play_all(arguments.model, paths, arguments.workers)
    report = summary(played, checkpoint.meta, plant.step_s)
    theirs = None
    if arguments.train:
        budget = float(checkpoint.meta["train"]["surprise"]["false_raises_per_day"])
        pca, limits = rival(arguments.train, arguments.calibration, budget)
        theirs = Scores({str(path): play_rival(pca, limits, plant, path) for path in paths})
    ours = Scores({p.recording: p for p in played})
    return table(arguments.faults, report, ours, theirs, arguments.seeds), report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="markdown to write; the report goes beside it as .json")
    parser.add_argument("--train", type=Path, nargs="*", default=[], help="the model's recordings, to fit PCA on")
    parser.add_argument("--calibration", type=float, default=0.35, help="the calibration_share of the model's training")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS), metavar="FAULT")
    parser.add_argument("--seeds", type=int, default=1, help="days on which each fault happens")
    parser.add_argument("--severity", type=float, default=1.0)
    parser.add_argument("--hours", type=float, default=4.0, help="normal operation with nuisances")
    parser.add_argument("--recordings", type=Path, help="folder to keep recordings in, and to find those made before")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
