"""Alarms as events on the simulated line: five faults in a row, how soon each clears, a start into a standing fault.

Run: python -m tests.benchmarks.bench_events --model DIR --out FILE
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from fusion.checkpoint import load_checkpoint
from fusion.evaluation.evaluate import Played, evidence, play_all, raises
from fusion.inference import TICKS_AT_ONCE, Engine
from fusion.plant_file import load_plant
from fusion.recordings.recording import Event, Recording
from fusion.records import NS_PER_S, Anomaly, AnomalyState
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.scenario import FaultEvent, Scenario
from fusion.timeline.history import frames
from models.monitors.residual import WARM_UP_TICKS
from tests.benchmarks.bench_faults import CONFIGS, ONSET_S, faulty, quiet, record_all

SEQUENCE = ("belt_slip", "bearing", "frozen_camera", "thermometer_drift", "leak")
LASTS_S, APART_S = 180.0, 120.0  # each fault, and between two
FIRST_SEQUENCE, FIRST_SINGLE = 7000, 6000
AFTER_S = 240.0  # of recording behind the last recovery
STANDING_S = 40.0  # for which a fault has stood when an engine starts
FOUND_WITHIN_S = 300.0  # of the end of the warm-up


def sequence(seed: int) -> Scenario:
    """Five faults, one after the other, each cleared."""
    starts = [ONSET_S + i * (LASTS_S + APART_S) for i in range(len(SEQUENCE))]
    faults = [
        FaultEvent(name=name, onset_s=at, ramp_s=5.0, severity=1.0, end_s=at + LASTS_S)
        for name, at in zip(SEQUENCE, starts, strict=True)
    ]
    return replace(quiet("sequence", seed), duration_s=starts[-1] + LASTS_S + AFTER_S, faults=tuple(faults))


def single(name: str, seed: int, severity: float) -> Scenario:
    """One fault of three minutes and what comes after it."""
    base = faulty(name, seed, severity)
    fault = replace(base.faults[0], end_s=ONSET_S + LASTS_S, ramp_s=min(base.faults[0].ramp_s, 60.0))
    return replace(base, duration_s=ONSET_S + LASTS_S + AFTER_S, faults=(fault,))


@dataclass(frozen=True)
class Told:
    """What was said of one fault: the raise of its own, as held a minute later, and its end; None where none was."""

    event: Event
    raised: Anomaly | None
    evidence: Anomaly | None
    cleared_s: float | None

    @property
    def kind_is_right(self) -> bool:
        """Whether plant and instrument were told apart."""
        return self.evidence is not None and str(self.evidence.kind) == self.event.kind


def told(played: Played) -> list[Told]:
    """Each fault with the first raise whose onset lies in it, whose sense is one of its own and that is no other's."""
    used: set[str] = set()
    found = []
    for event in played.faults:
        end_ns = event.end_ns or played.t1_ns
        own = (
            a
            for a in raises(played.changes)
            if event.onset_ns <= a.t_onset_ns <= end_ns
            and a.id not in used
            and set(a.by_modality) & set(event.modalities)
        )
        raised = next(own, None)
        if raised is None:
            found.append(Told(event, None, None, None))
            continue
        used.add(raised.id)
        gone = (a.t_ns for a in played.changes if a.id == raised.id and a.state is AnomalyState.CLEARED)
        cleared_ns = next(gone, None)
        lag_s = None if cleared_ns is None else (cleared_ns - end_ns) / NS_PER_S
        found.append(Told(event, raised, evidence(played.changes, raised), lag_s))
    return found


def summed(name: str, played: Sequence[Played]) -> str:
    """One line: events of their own, kinds, raises beside them, and how soon they cleared."""
    said = [t for p in played for t in told(p)]
    own = [t for t in said if t.raised is not None]
    every = sum(len(raises(p.changes)) for p in played)
    lags = sorted(t.cleared_s for t in own if t.cleared_s is not None)
    soon = sum(lag <= 120 for lag in lags)
    middle = f"median {statistics.median(lags):.0f} s, {soon} of {len(own)} within 120 s" if lags else "none"
    return (
        f"- {name}: {len(own)} of {len(said)} faults are an event of their own, kind right in "
        f"{sum(t.kind_is_right for t in own)}, {every - len(own)} other raises; cleared after recovery: {middle}"
    )


def standing(model: Path, path: Path) -> tuple[str, float | None]:
    """An engine that starts while a fault stands: its name, and seconds from the end of the warm-up to a raise."""
    recording = Recording(path)
    engine = Engine(load_checkpoint(model, recording.plant))
    onset_ns = recording.events[0].onset_ns + round(STANDING_S * NS_PER_S)
    seen: Iterator = itertools.dropwhile(lambda frame: frame.t_ns < onset_ns, frames(recording))
    judged_ns = onset_ns + WARM_UP_TICKS * round(recording.plant.step_s * NS_PER_S)
    while some := list(islice(seen, TICKS_AT_ONCE)):
        _, changes = engine.catch_up(some)
        if found := raises(changes):
            return recording.events[0].name, (found[0].t_ns - judged_ns) / NS_PER_S
    return recording.events[0].name, None


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    asked = _arguments()
    plant = load_plant(CONFIGS / "plant" / "lime.yaml")
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.recordings or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        places = {name: FIRST_SINGLE + list(FAULTS).index(name) for name in asked.faults}
        singles = {
            severity: record_all([single(n, s, severity) for n, s in places.items()], plant, folder, asked.workers)
            for severity in asked.severity
        }
        rows = record_all([sequence(FIRST_SEQUENCE + i) for i in range(asked.seeds)], plant, folder, asked.workers)
        lasting = [faulty(n, seed + 500, max(asked.severity)) for n, seed in places.items()]
        stood = record_all(lasting, plant, folder, asked.workers) if asked.standing else []
        lines = [summed("sequences", play_all(asked.model, rows, asked.workers))]
        lines += [
            summed(f"single faults of severity {severity:g}", play_all(asked.model, paths, asked.workers))
            for severity, paths in singles.items()
        ]
        with ProcessPoolExecutor(asked.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(standing, [asked.model] * len(stood), stood))
    if found:
        soon = [n for n, after_s in found if after_s is not None and after_s <= FOUND_WITHIN_S]
        never = ", ".join(n for n, after_s in found if n not in soon)
        lines.append(
            f"- start into a standing fault: {len(soon)} of {len(found)} raised within 5 min; not: {never or '-'}"
        )
    text = "\n".join(lines) + "\n"
    asked.out.write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="markdown to write")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS), metavar="FAULT")
    parser.add_argument("--seeds", type=int, default=5, help="sequences")
    parser.add_argument("--severity", type=float, nargs="+", default=[1.0], help="of the single faults")
    parser.add_argument("--standing", action="store_true", help="also starts into each fault, which records it again")
    parser.add_argument("--recordings", type=Path, help="folder to keep recordings in, and to find those made before")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
