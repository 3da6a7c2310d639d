"""Scenarios to recordings, faster than real time: one with all its media, or many tags-only runs in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant
from fusion.recordings.recording import Event
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Quality
from fusion.simulator.fleet import Fleet, nuisance_end, stamp_offset_s, truth_row
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.line.laws import LAWS
from fusion.simulator.scenario import FaultEvent, Scenario, scenario_text
from fusion.simulator.simulation import Simulation

Progress = Callable[[float], None]


def record(scenario: Scenario, plant: Plant, out: Path, *, progress: Progress | None = None) -> None:
    """Play a scenario and write it to the folder ``out``; ``progress`` is told the seconds done."""
    simulation = Simulation(scenario, plant)
    truth: list[dict[str, float]] = []
    with _writer(scenario, plant, out) as writer:
        for second in range(int(scenario.duration_s)):
            for item in simulation.advance():
                writer.write(item)
            truth.append(simulation.truth())
            if progress is not None:
                progress(second + 1)
        writer.truth(_by_column(truth))


def record_batch(scenarios: Sequence[Scenario], plant: Plant, out: Path) -> list[Path]:
    """Play tags-only scenarios of equal length side by side; one recording each, ``out/<name>-<seed>``."""
    if len({s.duration_s for s in scenarios}) > 1 or any(s.media for s in scenarios):
        raise ConfigError("a batch needs scenarios of equal duration_s with media: false")
    fleet, truth = Fleet(scenarios, plant), list[list[dict[str, float]]]()

    def look(_: float) -> None:
        truth.append([truth_row(fleet, row, 0) for row in range(len(scenarios))])

    values = readings(fleet, int(scenarios[0].duration_s), look)
    paths = []
    for row, scenario in enumerate(scenarios):
        path = out / f"{scenario.name}-{scenario.seed}"
        with _writer(scenario, plant, path) as writer:
            columns = _run_columns(plant, scenario.start_ns, values[:, :, row])
            writer.process(columns)
            rows = _by_column([second[row] for second in truth])
            writer.truth({**rows, "t_ns": scenario.start_ns + (np.arange(len(truth)) + 1) * NS_PER_S})
        paths.append(path)
    return paths


def readings(fleet: Fleet, seconds: int, progress: Progress | None = None) -> NDArray[np.float64]:
    """What the process instruments of many lines read [T, S, B], in the order of the plant."""
    names = [signal.name for signal in fleet.plant.of(Modality.PROCESS)]
    read = []
    for second in range(seconds):
        now = fleet.second()
        read.append(np.stack([now[name] for name in names]))
        if progress is not None:
            progress(second + 1)
    return np.stack(read)


def _run_columns(plant: Plant, start_ns: int, values: NDArray[np.float64]) -> Columns:
    """All values [T, S] of a run as one batch."""
    process = plant.of(Modality.PROCESS)
    ticks = start_ns + (np.arange(len(values), dtype=np.int64) + 1) * NS_PER_S
    offset_ns = np.array([int(stamp_offset_s(s) * NS_PER_S) for s in process])
    t_ns = (ticks[:, None] - offset_ns[None, :]).ravel()
    return Columns(
        signals=tuple(s.name for s in process),
        index=np.tile(np.arange(len(process), dtype=np.int32), len(values)),
        t_ns=t_ns,
        received_ns=t_ns + NS_PER_S // 100,
        value=values.ravel(),
        quality=np.full(values.size, Quality.GOOD, np.uint8),
        clock="process",
    )


def _writer(scenario: Scenario, plant: Plant, out: Path) -> RecordingWriter:
    text = scenario_text(scenario)
    return RecordingWriter(out, plant, scenario_text=text, kind=scenario.kind, events=_events(scenario, plant))


def _fault_event(fault: FaultEvent, plant: Plant, at: Callable[[float], int]) -> Event:
    known = FAULTS[fault.name]
    signal = fault.signal or known.signal or ""
    own = plant.by_name.get(signal)
    return Event(
        name=fault.name,
        onset_ns=at(fault.onset_s),
        end_ns=None if fault.end_s is None else at(fault.end_s),
        ramp_s=fault.ramp_s,
        severity=fault.severity,
        kind=known.kind,
        modalities=known.modalities if own is None else (str(own.modality),),
        signals=known.signals if own is None else (own.name,),
    )


def _events(scenario: Scenario, plant: Plant) -> list[Event]:
    def at(seconds: float) -> int:
        return scenario.start_ns + int(seconds * NS_PER_S)

    faults = [_fault_event(f, plant, at) for f in scenario.faults]
    laws = [
        Event(
            name=law.name,
            onset_ns=at(law.onset_s),
            end_ns=None if law.end_s is None else at(law.end_s),
            ramp_s=law.ramp_s,
            severity=law.severity,
            kind="process",
            modalities=LAWS[law.name].modalities,
            signals=LAWS[law.name].signals or ((law.signal,) if law.signal else ()),
        )
        for law in scenario.laws
    ]
    nuisances = [
        Event(
            name=n.name,
            onset_ns=at(n.onset_s),
            end_ns=at(nuisance_end(n)),
            ramp_s=0.0,
            severity=n.severity,
            nuisance=True,
        )
        for n in scenario.nuisances
    ]
    return [*faults, *laws, *nuisances]


def _by_column(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
