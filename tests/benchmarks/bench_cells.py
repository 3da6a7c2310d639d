"""What cells and perception are worth: local faults drawn by the line's sensors, found with and without them.

Run: python -m tests.benchmarks.bench_cells --json OUT [--ticks DIR] [--perception]
Normal runs fit, calibrate and are judged, in thirds and in that order of seeds; limits come from one budget. Faults are
in parts of other seeds: choices were made on the first, the second is what to report, the third what is faint to a
camera. DIR keeps what was recorded.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from control.anomaly.calibration import Calibration, SurpriseConfig, calibrate
from control.anomaly.detector import SETTLING, Detector, DetectorConfig
from control.anomaly.evidence import Contributions
from fusion.evaluation.evaluate import Played, detection, evidence, false_raises, normal_hours
from fusion.plant import Plant
from fusion.plant_file import load_plant
from fusion.recordings.recording import Event, Recording
from fusion.records import NS_PER_S, Anomaly
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.record import record
from fusion.simulator.scenario import FaultEvent, NuisanceEvent, Scenario, load_scenario
from fusion.training.ticks import ticks
from models.features.cells import CUTS
from models.features.eye import Eye
from models.features.stem import FeatureStem
from models.linear.core import LinearConfig, LinearCore
from models.linear.fit import fit_core
from models.monitors.fit import fit_monitors
from models.monitors.monitors import Energies, MonitorCarry, Monitors
from models.monitors.perception import FAMILY
from models.perception.backbone import LITE0, RANDOM, backbone
from models.ticks import Ticks

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LOCAL = (
    *("torn_edge", "build_up", "stalled_bed", "skewed_bed", "caught_object", "spill", "person", "steam"),
    *("dark_corner", "lens_spot", "squeal", "belt_chirp", "wall_crust"),
)
PASSING = ("torn_edge", "belt_chirp")  # once a turn of the belt: hard to see at any size
OLD = (("dirty_camera", 1.0), ("belt_slip", 1.0), ("belt_drift", 0.3), ("scale_drift", 1.0))
LARGE = tuple((name, severity) for severity in (1.0, 0.3) for name in LOCAL) + OLD
SMALL = tuple((name, size if name not in PASSING else big) for size, big in ((0.3, 1.0), (0.1, 0.3)) for name in LOCAL)
TO_A_CAMERA = LOCAL[:10]
FAINT = tuple(
    (name, size if name not in PASSING else big) for size, big in ((0.1, 0.7), (0.05, 0.5)) for name in TO_A_CAMERA
)
EPISODES = {"choose": LARGE, "report": (*SMALL, *OLD)[::-1], "faint": FAINT}
ORDINARY = ("demand_step", "setpoint_step", "rate_change", "mode_change")
DURATION_S, EVERY_S, LASTS_S, RAMP_S = 1800.0, 300.0, 120.0, 5.0
NORMAL = 7000  # first seeds
HALVES = {"choose": 7100, "report": 7200, "faint": 7300}
RUNS = 6  # recordings of each part
Run = tuple[Scenario, Ticks]
CHUNK, TIMED = 60, 200  # ticks judged at once, and one by one for their price


def normal(seed: int) -> Scenario:
    """Half an hour as commissioning records it, with every nuisance twice and one ordinary event."""
    base = load_scenario(CONFIGS / "scenario" / "commissioning.yaml")
    own = NuisanceEvent(name=ORDINARY[seed % len(ORDINARY)], onset_s=900.0, duration_s=450.0)
    again = tuple(replace(n, onset_s=n.onset_s + 800.0) for n in base.nuisances)
    nuisances = (*base.nuisances, *again, own)
    return replace(base, name="normal", seed=seed, duration_s=DURATION_S, nuisances=nuisances)


def faulty(half: str, run: int) -> Scenario:
    """Half an hour with up to five short faults of one part of the seeds."""
    own = EPISODES[half][run::RUNS]
    onsets = [EVERY_S * (i + 1) for i in range(len(own))]
    faults = tuple(
        FaultEvent(name=name, onset_s=at, ramp_s=RAMP_S, severity=severity, end_s=at + LASTS_S)
        for at, (name, severity) in zip(onsets, own, strict=True)
    )
    base = load_scenario(CONFIGS / "scenario" / "commissioning.yaml")
    return replace(base, name="faulty", seed=HALVES[half] + run, duration_s=DURATION_S, nuisances=(), faults=faults)


def recorded(scenario: Scenario, plant: Plant, folder: Path, eyes: Sequence[Eye] = ()) -> Ticks:
    """The run as model input and as all eyes see it, from ``folder`` where it is there."""
    file = folder / f"{scenario.name}-{scenario.seed}{'-seen' * bool(eyes)}.npz"
    if not file.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            record(scenario, plant, Path(place) / "run")
            made = Path(place) / "ticks.npz"
            seen = [ticks(Recording(Path(place) / "run"), plant, eye) for eye in eyes or (None,)]
            perceived = {key: value for run in seen for key, value in run.perceived.items()}
            replace(seen[0], perceived=perceived).save(made)
            made.rename(file)
        print(f"recorded {file.name}", flush=True)
    return Ticks.load(file)


# --- judged


@dataclass(frozen=True)
class Arm:
    """Monitors that hear some energies, with the limit that these have."""

    monitors: Monitors
    limits: Calibration

    @classmethod
    def of(cls, monitors: Monitors, every: Sequence[Energies], cells: Sequence[str]) -> Arm:
        """With these families of places alone; ``every`` are all energies of calibration runs."""
        others = {*(cut.family for cut in CUTS.values()), FAMILY} - set(cells)
        kept = [i for i, e in enumerate(monitors.energies) if e.family not in others]
        energies = [monitors.energies[i] for i in kept]
        settings = SurpriseConfig().closed(energies)
        settings.silent = tuple(word for word in settings.silent or () if word not in cells)
        limits = calibrate([e.values[:, kept] for e in every], energies, settings).heard()
        return cls(monitors.hearing(limits.names), limits)

    def play(self, run: Ticks, scenario: Scenario) -> tuple[Played, np.ndarray]:
        """Every change of an anomaly, with what the model is told of those that stand; and the factors [T, E]."""
        monitors, core = self.monitors, self.monitors.core
        detector = Detector(DetectorConfig(), self.limits, monitors.plant, "benchmark")
        settling, carry, past, changes, first = _settling(run), MonitorCarry(), None, list[Anomaly](), 0
        factors = np.full((len(run), len(self.limits.energies)), np.nan)
        while first < len(run):
            part = run[first : first + CHUNK]
            before = copy.deepcopy((past, carry))
            encoding, past = core.encode(part, past)
            judged, carry = monitors.step(part, encoding, carry, explain=True)
            for row in range(len(part)):
                factors[first + row] = self.limits.standardise(judged.values[row]) / self.limits.threshold
                flags = (SETTLING,) if settling[first + row] else ()
                told = _evidence(judged, part, row) if detector.attentive else None
                changes += detector.step(int(part.t_ns[row]), judged.values[row], told, flags)
                if bool(detector.open) == carry.learns:
                    past, carry = before
                    encoding, past = core.encode(part[: row + 1], past)
                    _, carry = monitors.step(part[: row + 1], encoding, carry)
                    if not detector.open:
                        monitors.recover(carry)
                    carry.learns = not detector.open
                    break
            first += row + 1
        events = tuple(_event(scenario, fault) for fault in scenario.faults)
        name, span = f"{scenario.name}-{scenario.seed}", (int(run.t_ns[0]), int(run.t_ns[-1]))
        return Played(recording=name, t0_ns=span[0], t1_ns=span[1], events=events, changes=tuple(changes)), factors

    def tick_ms(self, run: Ticks) -> float:
        """CPU time of one tick judged by itself [ms]."""
        past, carry, spent = None, MonitorCarry(), []
        for i in range(TIMED):
            encoding, past = self.monitors.core.encode(run[i : i + 1], past)
            before = time.process_time()
            _, carry = self.monitors.step(run[i : i + 1], encoding, carry)
            spent.append(time.process_time() - before)
        return 1e3 * statistics.median(spent[TIMED // 2 :])


def _settling(run: Ticks) -> np.ndarray:
    """Ticks shortly after a move of the operator."""
    moved = np.append(False, (np.diff(run.action, axis=0) != 0.0).any(1))
    last = np.maximum.accumulate(np.where(moved, np.arange(len(run)), -len(run)))
    return np.arange(len(run)) - last < DetectorConfig().settling_s


def _evidence(judged: Energies, part: Ticks, row: int) -> Contributions:
    assert judged.shares is not None
    assert judged.residual is not None
    assert judged.sensor is not None
    tags = part.tags[row]
    return Contributions(
        signals=judged.signals,
        shares=judged.shares[row],
        residual=judged.residual[row],
        sensor=judged.sensor[row],
        seen=np.append(tags, np.full(len(judged.signals) - len(tags), np.nan)),
        where=judged.where[row],
    )


def _event(scenario: Scenario, fault: FaultEvent) -> Event:
    known = FAULTS[fault.name]
    onset, end = (scenario.start_ns + int(s * NS_PER_S) for s in (fault.onset_s, fault.end_s or DURATION_S))
    return Event(
        name=fault.name,
        onset_ns=onset,
        end_ns=end,
        severity=fault.severity,
        kind=known.kind,
        modalities=known.modalities,
        signals=known.signals,
    )


# --- told


def found_after_s(arm: Arm, run: Played, factors: np.ndarray, event: Event) -> float | None:
    """When an energy of a true sense had stayed over the limit for the on-delay, which it was below at the onset [s].

    Faults that follow each other so closely may share an anomaly, so anomalies are not what is counted.
    """
    energies, delay = arm.limits.energies, round(arm.limits.on_delay_s)
    own = np.array([str(e.modality) in event.modalities for e in energies])
    onset, end = ((t - run.t0_ns) // NS_PER_S for t in (event.onset_ns, event.end_ns or run.t1_ns))
    quiet = own & ~(np.nan_to_num(factors[onset - delay : onset]) >= 1.0).any(0)
    over = np.append(np.zeros(delay - 1), (np.nan_to_num(factors[onset : end + 60, quiet]) >= 1.0).any(1))
    held = np.flatnonzero(np.convolve(over, np.ones(delay), "valid") >= delay)
    return float(held[0]) if len(held) else None


def rows(arm: Arm, played: Sequence[tuple[Played, np.ndarray]]) -> list[dict[str, Any]]:
    """One for each episode: found, when, and what was said of it."""
    made = []
    for run, factors in played:
        for event in run.faults:
            raised = detection(run, event)
            told = None if raised is None else evidence(run.changes, raised)
            shares = told.by_modality if told else {}
            made.append(
                {
                    "fault": event.name,
                    "severity": event.severity,
                    "run": run.recording,
                    "delay_s": found_after_s(arm, run, factors, event),
                    "raised": raised is not None,
                    "modality": max(shares, key=lambda m: shares[m]) if shares else None,
                    "right": bool(shares) and max(shares, key=lambda m: shares[m]) in event.modalities,
                    "kind": str(told.kind) if told else None,
                    "where": next((b.where for b in told.top_signals if b.where), "") if told else "",
                    "energies": [name for name, _ in told.energies[:3]] if told else [],
                }
            )
    return made


def sums(episodes: Sequence[dict[str, Any]], quiet: Sequence[Played], busy: Sequence[Played]) -> dict[str, Any]:
    """What one arm is worth on one half of the faults and on all held-out normal time."""
    found = [e for e in episodes if e["delay_s"] is not None]
    told = [e for e in episodes if e["raised"]]
    local = [e for e in episodes if e["fault"] in LOCAL]
    sizes = sorted({e["severity"] for e in local}, reverse=True)
    by = {f"at {size:g}": [e for e in local if e["severity"] == size] for size in sizes}
    by["old faults"] = [e for e in episodes if e["fault"] not in LOCAL]
    return {
        **{name: f"{sum(e['delay_s'] is not None for e in some)}/{len(some)}" for name, some in by.items()},
        "modality right": f"{sum(e['right'] for e in told)}/{len(told)}",
        "median delay s": statistics.median(e["delay_s"] for e in found) if found else None,
        "false raises": sum(len(false_raises(p)) for p in quiet),
        "normal h": round(sum(normal_hours(p) for p in quiet), 2),
        "false raises between faults": sum(len(false_raises(p)) for p in busy),
    }


def table(report: dict[str, Any], half: str) -> str:
    """Found by kind and severity [s of delay, - where not found], one column for each arm."""
    arms = list(report["arms"])
    lines = ["| fault | severity | " + " | ".join(arms) + " |", "|---|---|" + "---|" * len(arms)]
    for name, severity in sorted(EPISODES[half]):
        cells = []
        for arm in arms:
            some = [e for e in report["arms"][arm][half]["episodes"] if (e["fault"], e["severity"]) == (name, severity)]
            cells.append(", ".join("-" if e["delay_s"] is None else f"{e['delay_s']:.0f} s" for e in some))
        lines.append(f"| {name} | {severity:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(arm: Arm, quiet: Sequence[Run], halves: dict[str, list[Run]]) -> dict[str, Any]:
    """One arm on everything."""
    calm = [arm.play(run, scenario)[0] for scenario, run in quiet]
    made: dict[str, Any] = {"tick_ms": round(arm.tick_ms(quiet[0][1]), 2)}
    made["false"] = [(p.recording, a.energies[:3]) for p in calm for a in false_raises(p)]
    for half, runs in halves.items():
        played = [arm.play(run, scenario) for scenario, run in runs]
        episodes = rows(arm, played)
        made[half] = {"sums": sums(episodes, calm, [p for p, _ in played]), "episodes": episodes}
    return made


ARMS = {"global": (), "and pictures' cells": ("cell",), "and all cells": ("cell", "band", "spot")}
SEEN = {LITE0: {"and perception": (FAMILY,), "and both": ("cell", FAMILY)}, RANDOM: {"untrained": ("cell", FAMILY)}}
"""By the backbone that sees the pictures."""


def fitted(runs: Sequence[Ticks], plant: Plant) -> tuple[LinearCore, Monitors]:
    """In closed form, as ``fusion train`` does."""
    core = fit_core(runs, plant, LinearConfig())
    return core, fit_monitors(runs, core, plant, FeatureStem(plant))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--ticks", type=Path, help="folder that keeps what was recorded")
    parser.add_argument("--perception", action="store_true", help="also as frozen networks see it; takes their weights")
    parser.add_argument("--normal", type=int, default=12, help="runs of half an hour: to fit, to calibrate, to judge")
    parser.add_argument("--faulty", type=int, default=RUNS, help="runs of each half, five faults in each")
    arguments = parser.parse_args()
    plant = load_plant(CONFIGS / "plant" / "lime.yaml")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.ticks or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        names = tuple(SEEN) if arguments.perception else ()
        report = judge(plant, folder, arguments.normal, arguments.faulty, names)
    arguments.json.write_text(json.dumps(report, indent=1))
    for half in HALVES:
        print(f"\n{half}\n{table(report, half)}\n")
        for arm, made in report["arms"].items():
            print(f"- {arm}: {made['tick_ms']} ms a tick; {made[half]['sums']}")


def judge(plant: Plant, folder: Path, count: int, runs: int, names: Sequence[str] = ()) -> dict[str, Any]:
    """All arms on the same runs, under the same budget; ``names`` of backbones that see them."""
    eyes = [Eye(backbone(name)) for name in names]
    calm = [(s := normal(NORMAL + i), recorded(s, plant, folder, eyes)) for i in range(count)]
    halves = {half: [(s := faulty(half, i), recorded(s, plant, folder, eyes)) for i in range(runs)] for half in HALVES}
    report: dict[str, Any] = {"arms": {}}
    for eye in eyes or (None,):
        arms = {**(ARMS if eye is None or eye is eyes[0] else {}), **(SEEN[eye.backbone.name] if eye else {})}
        own = {half: [(s, by(eye, run)) for s, run in some] for half, some in halves.items()}
        report["arms"] |= compare(plant, arms, [(s, by(eye, run)) for s, run in calm], own)
    return report


def by(eye: Eye | None, run: Ticks) -> Ticks:
    """A run as one eye sees it, or none."""
    return replace(run, perceived={} if eye is None else {eye.key("camera"): run.perceived[eye.key("camera")]})


def compare(
    plant: Plant, arms: Mapping[str, Sequence[str]], calm: Sequence[Run], halves: dict[str, list[Run]]
) -> dict[str, Any]:
    """Monitors of the first third of the normal runs, calibrated on the second, judged on the rest and on faults."""
    third = (len(calm) + 1) // 3
    core, monitors = fitted([run for _, run in calm[:third]], plant)
    every = [monitors.step(run, core.encode(run)[0])[0] for _, run in calm[third : 2 * third]]
    return {name: measure(Arm.of(monitors, every, cells), calm[2 * third :], halves) for name, cells in arms.items()}


if __name__ == "__main__":
    main()
