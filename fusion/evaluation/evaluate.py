"""Recordings replayed through inference and scored against what is true about them.

A raise is a detection from the onset of a fault until shortly after its end, a false raise in normal time, and neither
while the plant settles after a fault. Both rates rest on the same normal time. Knows the faults only as ``Event``.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch

from control.anomaly.detector import FOREIGN
from fusion.checkpoint import Checkpoint, checkpoint_for, load_checkpoint
from fusion.errors import ConfigError
from fusion.evaluation.ablation import NOTHING_MISSING, Ablation
from fusion.evaluation.forecast_scores import ForecastSums, foresee, skills
from fusion.inference import KNOWS_LITTLE, TICKS_AT_ONCE
from fusion.recordings import normal
from fusion.recordings.recording import NORMAL, Event, Recording
from fusion.records import NS_PER_S, Anomaly, AnomalyState, Frame
from fusion.timeline.history import frames
from models.ticks import Ticks

log = logging.getLogger(__name__)

WARM_UP_S = 180.0
AFTER_S = 60.0
BLAME_S = 60.0
JOINED_S = 60.0  # between two recordings that follow each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A run from its first to its last tick: what was put in, and every change of an anomaly, in order.

    ``knows_little`` is why the model can tell little of it, in words.
    """

    recording: str
    t0_ns: int
    t1_ns: int
    events: tuple[Event, ...]
    changes: tuple[Anomaly, ...]
    forecast: ForecastSums | None = None
    knows_little: str = ""

    @property
    def faults(self) -> tuple[Event, ...]:
        """What was put in and should be found."""
        return tuple(e for e in self.events if not (e.nuisance or e.ignore) and _end_ns(self, e) >= self.t0_ns)


def evaluate(
    model: Path, recordings: Sequence[Path], *, ablation: Ablation = NOTHING_MISSING, workers: int = 0
) -> dict[str, Any]:
    """Replay recordings through a trained model and report detection, false raises and forecasts.

    ``ablation`` takes senses or parts of the model away. ``workers`` processes share the recordings; 0 takes one for
    each core. The report is described in ``docs/evaluation.md``.

    Raises:
        ConfigError: where there is no recording, or the model cannot be read.
        PlantMismatch: where a recording is of another plant than the model.
        RecordingError: where a recording is missing or damaged.
    """
    checkpoint = load_checkpoint(model)
    check_plant(checkpoint, recordings)
    return summary(play_all(model, recordings, workers, ablation), checkpoint.meta, checkpoint.plant.step_s)


def check_plant(checkpoint: Checkpoint, recordings: Sequence[Path]) -> None:
    """Refuse what the model was not made for, before any time is spent."""
    if not recordings:
        raise ConfigError("evaluation needs at least one recording")
    for path in recordings:
        Recording(path).of(checkpoint.plant)


# --- replay


def play_all(
    model: Path, recordings: Sequence[Path], workers: int = 0, ablation: Ablation = NOTHING_MISSING
) -> list[Played]:
    """Every run on its own, in the order given: a recording, or several that a fault reaches across."""
    runs = _runs(recordings)
    workers = min(workers or os.cpu_count() or 1, len(runs))
    if workers <= 1:
        return [play(model, run, ablation) for run in runs]
    spawn = multiprocessing.get_context("spawn")
    with (
        _one_thread_each(),
        ProcessPoolExecutor(workers, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        return list(pool.map(play, repeat(model), runs, repeat(ablation)))


def _runs(recordings: Sequence[Path]) -> list[list[Path]]:
    """Recordings as they are played: where a fault goes on from one to the next, so does the engine."""
    runs: list[list[Path]] = []
    ended_ns = 0
    for path in recordings:
        recording = Recording(path)
        start_ns, end_ns = recording.span_ns
        faults = (event for event in recording.events if not (event.nuisance or event.ignore))
        reached = any(fault.onset_ns < start_ns <= (fault.end_ns or end_ns) for fault in faults)
        if runs and reached and 0 <= start_ns - ended_ns <= JOINED_S * NS_PER_S:
            runs[-1].append(path)
        else:
            runs.append([path])
        ended_ns = end_ns
    return runs


def _frames(recordings: Sequence[Recording]) -> Iterator[Frame]:
    """The ticks of recordings that follow each other; one that two of them have counts as the first has it."""
    last_ns = 0
    for recording in recordings:
        for frame in frames(recording):
            if frame.t_ns > last_ns:
                last_ns = frame.t_ns
                yield frame


def play(model: Path, run: Sequence[Path], ablation: Ablation = NOTHING_MISSING) -> Played:
    """One run through a fresh engine, as it would have gone live; a normal one is also forecast."""
    read = [Recording.verified(path) for path in run]
    checkpoint = checkpoint_for(model, read[-1].plant)
    engine = ablation.engine(checkpoint)
    seen = (ablation.seen(frame, engine.plant) for frame in _frames([one.of(checkpoint.plant) for one in read]))
    changes: list[Anomaly] = []
    ticks_ns: list[int] = []
    parts: list[Ticks] = []
    while some := list(islice(seen, TICKS_AT_ONCE)):
        ticks_ns.extend(frame.t_ns for frame in some)
        ticks, changed = engine.catch_up(some)
        changes.extend(changed)
        parts.extend([ticks] if ticks is not None and all(one.kind == NORMAL for one in read) else [])
    name = " ".join(map(str, run))
    if not ticks_ns:
        raise ConfigError(f"{name}: holds no tick; nothing can be evaluated on it")
    played = Played(
        recording=name,
        t0_ns=ticks_ns[0],
        t1_ns=ticks_ns[-1],
        events=tuple(dict.fromkeys(event for one in read for event in one.events)),
        changes=tuple(changes),
        forecast=foresee(engine.model, Ticks.concat(parts)) if parts else None,
        knows_little=_knows_little(changes, engine.flags),
    )
    log.info("%s: %d ticks, %d raises", name, len(ticks_ns), len(raises(changes)))
    return played


def _knows_little(changes: Sequence[Anomaly], flags: Sequence[str]) -> str:
    """Why the model can tell little of what it saw: all was foreign from the first judged tick on, or as it says."""
    stood = [FOREIGN.replace("it", "an anomaly", 1) for change in changes if change.revision == FOREIGN]
    own = [f"the model {flag}" for flag in flags if flag.startswith(KNOWS_LITTLE)]
    return next(iter([*stood, *own]), "")


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile compute on one thread each: there is one for each core."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# --- detection


def raises(changes: Sequence[Anomaly]) -> list[Anomaly]:
    """Every raise, also of an anomaly that is continued."""
    return [change for change in changes if change.state is AnomalyState.RAISED]


def open_at(changes: Sequence[Anomaly], t_ns: int) -> set[str]:
    """Ids of the anomalies that stood just before a time."""
    last = {change.id: change.state for change in changes if change.t_ns < t_ns}
    return {name for name, state in last.items() if state is not AnomalyState.CLEARED}


def detection(played: Played, event: Event) -> Anomaly | None:
    """The first raise that a fault can have caused: not of an anomaly that stood when it began."""
    standing = open_at(played.changes, event.onset_ns)
    end_ns = _end_ns(played, event) + round(AFTER_S * NS_PER_S)
    found = (a for a in raises(played.changes) if event.onset_ns <= a.t_ns <= end_ns and a.id not in standing)
    return next(found, None)


def evidence(changes: Sequence[Anomaly], raised: Anomaly) -> Anomaly:
    """The anomaly as last held within a minute of its raise: its first words may come before its evidence."""
    until_ns = raised.t_ns + round(BLAME_S * NS_PER_S)
    told = raised
    for change in changes:
        if change.id == raised.id and raised.t_ns < change.t_ns <= until_ns:
            if change.state is not AnomalyState.HELD:
                break
            told = change
    return told


def event_row(played: Played, event: Event) -> dict[str, Any]:
    """One fault: what is true about it and what was said."""
    raised = detection(played, event)
    told = None if raised is None else evidence(played.changes, raised)
    shares = told.by_modality if told else {}
    return {
        "recording": played.recording,
        "fault": event.name,
        "severity": event.severity,
        "onset_s": round((event.onset_ns - played.t0_ns) / NS_PER_S, 1),
        "detected": raised is not None,
        "stood_already": raised is None and bool(open_at(played.changes, event.onset_ns)),
        "delay_s": None if raised is None else round((raised.t_ns - event.onset_ns) / NS_PER_S, 1),
        "true_modalities": list(event.modalities),
        "blamed_modality": max(shares, key=lambda name: shares[name]) if shares else None,
        "true_signals": list(event.signals),
        "blamed_signals": [blame.signal for blame in told.top_signals] if told else [],
        "true_kind": event.kind,
        "verdict": str(told.kind) if told else None,
    }


def event_rows(played: Sequence[Played]) -> list[dict[str, Any]]:
    """One row for each fault; of one that goes on in a later run, that of the first in which it is found."""
    rows: dict[tuple[int, Event], dict[str, Any]] = {}
    for i, run in enumerate(played):
        for event in run.faults:
            before = (key for key in rows if key[1] == event and event.onset_ns < run.t0_ns)
            key, row = next(before, (i, event)), event_row(run, event)
            if key not in rows or (row["detected"] and not rows[key]["detected"]):
                rows[key] = row
    return list(rows.values())


def normal_spans(played: Played) -> list[tuple[int, int]]:
    """Stretches [UTC ns] after the warm-up in which there is no fault and the plant does not settle after one."""
    return normal.spans(played.t0_ns + round(WARM_UP_S * NS_PER_S), played.t1_ns, played.events)


def false_raises(played: Played) -> list[Anomaly]:
    """Raises in normal time; nuisances are normal."""
    spans = normal_spans(played)
    return [a for a in raises(played.changes) if any(start <= a.t_ns < end for start, end in spans)]


def ignored_raises(played: Played) -> list[Anomaly]:
    """Raises in what is to be ignored, and in no fault."""

    def within(t_ns: int, events: Iterable[Event]) -> bool:
        return any(event.onset_ns <= t_ns <= _end_ns(played, event) for event in events)

    ignored = [event for event in played.events if event.ignore]
    return [a for a in raises(played.changes) if within(a.t_ns, ignored) and not within(a.t_ns, played.faults)]


def normal_hours(played: Played) -> float:
    """Duration of normal time [h]."""
    return sum(end - start for start, end in normal_spans(played)) / NS_PER_S / 3600.0


def _end_ns(played: Played, event: Event) -> int:
    return played.t1_ns if event.end_ns is None else event.end_ns


# --- report


def in_words(report: Mapping[str, Any]) -> str:
    """What a report says of faults, in a sentence or two."""
    rows = report["events"]
    found, stood = sum(row["detected"] for row in rows), sum(row["stood_already"] for row in rows)
    text = (
        f"{found} of {len(rows)} faults found, {report['false_raises']} false raises in {report['normal_hours']:g} h "
        "of normal operation"
    )
    if report["ignored_raises"]:
        text += (
            f"; {report['ignored_raises']} raises in maintenance, or where an alarm stood that nobody has called good"
        )
        text += " or a fault (fusion mark), count as neither"
    if stood:
        text += (
            f"; at {stood} of those that were not found an anomaly stood already: the plant was not as in training "
            "before they began, so train on normal recordings that are like these, too"
        )
    for why, count in Counter(report["knows_little"].values()).items():
        text += f"\nin {count} recordings {why}"
    return text


def summary(played: Sequence[Played], meta: Mapping[str, Any], step_s: float = 1.0) -> dict[str, Any]:
    """The report: see ``docs/evaluation.md``."""
    wrong = [(p, a) for p in played for a in false_raises(p)]
    for p, a in wrong:
        log.info("%s: false raise at %.0f s: %s", p.recording, (a.t_ns - p.t0_ns) / NS_PER_S, a.energies[:3])
    hours = sum(normal_hours(p) for p in played)
    return {
        "events": event_rows(played),
        "false_raises_per_day": round(24.0 * len(wrong) / hours, 3) if hours > 0 else None,
        "normal_hours": round(hours, 3),
        "false_raises": len(wrong),
        "ignored_raises": sum(len(ignored_raises(p)) for p in played),
        "knows_little": {p.recording: p.knows_little for p in played if p.knows_little},
        "forecast": skills([p.forecast for p in played if p.forecast is not None], step_s),
        "gauges": dict(meta["gauges"]),
    }
