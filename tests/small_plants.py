"""Plants of a few signals and recordings of them, written in no time, for tests of whole trainings."""

import dataclasses

import numpy as np

from fusion.plant import Gain, Plant, Role, Signal
from fusion.recordings.recording import Recording
from fusion.recordings.writer import RecordingWriter
from fusion.records import Columns, Quality

SMALL = Plant(
    name="small",
    signals=(
        Signal(name="TT1", unit="Cel", role=Role.CONTROLLED, description="temperature"),
        Signal(name="FT1", unit="kg/s", description="flow"),
        Signal(name="PT1", unit="bar", description="pressure"),
        Signal(name="FT1.SP", unit="kg/s", role=Role.MANIPULATED, low=0.0, high=10.0, max_rate=1.0),
    ),
    gains=(Gain(manipulated="FT1.SP", controlled="TT1", sign=1),),
)


def small_values(seed, ticks):
    """A flow that follows its setpoint and saturates, a temperature behind it, a pressure of its square."""
    rng = np.random.default_rng(seed)
    setpoint = rng.uniform(0, 10, ticks)[np.cumsum(rng.random(ticks) < 1 / 120)]
    flow = temperature = 5.0
    true = np.zeros((ticks, 2))
    for t in range(ticks):
        flow += (min(setpoint[t], 6.0) - flow) / 4.0
        temperature += (flow - temperature) / 40.0
        true[t] = temperature, flow
    noise = rng.normal(0, 0.02, (ticks, 3))
    values = {"TT1": 40 + 5 * true[:, 0], "FT1": true[:, 1], "PT1": true[:, 1] ** 2 / 10}
    return {n: v + noise[:, i] for i, (n, v) in enumerate(values.items())} | {"FT1.SP": setpoint}


def write_recording(path, plant, values, start_s=1_700_000_000, kind="normal"):
    """Values [T] by signal, one each second, as a recording of a plant."""
    names = tuple(s.name for s in plant.signals if s.name in values)
    ticks, signals = len(values[names[0]]), len(names)
    t_ns = np.repeat((start_s + np.arange(ticks, dtype=np.int64)) * 10**9 + 5 * 10**8, signals)
    with RecordingWriter(path, plant, kind=kind) as writer:
        writer.process(
            Columns(
                signals=names,
                index=np.tile(np.arange(signals, dtype=np.int32), ticks),
                t_ns=t_ns,
                received_ns=t_ns,
                value=np.stack([values[n] for n in names], 1).reshape(-1),
                quality=np.full(ticks * signals, Quality.GOOD, np.uint8),
            )
        )
    return path


def media_only(plant):
    """The plant without its process signals, and what was declared of them."""
    return dataclasses.replace(plant, signals=plant.media, gains=(), balances=(), targets=(), edges=())


def strip_tags(recording, path):
    """The media of a recording as a recording of the plant without process signals."""
    source = Recording(recording)
    with RecordingWriter(path, media_only(source.plant), kind=source.kind) as writer:
        for item in source.items():
            if not isinstance(item, Columns):
                writer.write(item)
    return path


def wide_plant(tags):
    """Tags alone: nothing to move, nothing to control, no graph."""
    return Plant(name="wide", signals=tuple(Signal(name=f"T{i:04}", unit="Cel") for i in range(tags)))


def wide_values(plant, seed, ticks):
    """A few slow hidden courses that all tags follow, each with noise and a slow course of its own."""
    rng = np.random.default_rng(seed)
    loads = np.random.default_rng(0).normal(0, 1, (5, len(plant.tags)))
    hidden, own = (_slow(rng, ticks, columns) for columns in (5, len(plant.tags)))
    made = hidden @ loads + 0.3 * own + rng.normal(0, 0.3, own.shape)
    return {s.name: made[:, i] for i, s in enumerate(plant.tags)}


def _slow(rng, ticks, columns, memory=0.98):
    made = np.zeros((ticks, columns))
    for t in range(1, ticks):
        made[t] = memory * made[t - 1] + np.sqrt(1 - memory**2) * rng.normal(0, 1, columns)
    return made
