"""A small synthetic plant for the tests of the networks: one non-linear flow that pictures and sound show."""

import functools

import numpy as np

from fusion.plant import Gain, Modality, Plant, Role, Signal
from models.linear.core import LinearConfig
from models.linear.fit import fit_core
from models.networks.size import ModelConfig
from models.ticks import Ticks
from models.training.fitter import build
from tests.grid_runs import from_process_grid

SHAPES = {"camera": (2, 48, 48), "microphone": (1, 64, 20), "silo_lidar": (2, 24, 24)}
FEATURES = 5


def make_plant():
    return Plant(
        name="synthetic",
        signals=(
            Signal(name="TT1", unit="Cel", role=Role.CONTROLLED, description="temperature"),
            Signal(name="FT1", unit="kg/s", description="flow"),
            Signal(name="NT1", description="noise"),
            Signal(name="FT1.SP", role=Role.MANIPULATED, low=0.0, high=10.0, max_rate=1.0),
            Signal(name="XV1", role=Role.MANIPULATED, low=0.0, high=1.0),
            Signal(name="camera", modality=Modality.VIDEO, shape=(96, 96), period_s=0.1),
            Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
            Signal(name="silo_lidar", modality=Modality.LIDAR, shape=(5760, 4), period_s=0.2),
        ),
        gains=(Gain(manipulated="FT1.SP", controlled="TT1", sign=1),),
        edges=(("FT1", "TT1"), ("TT1", "NT1"), ("camera", "TT1")),
    )


def steps(rng, low, high, ticks):
    at = np.cumsum(rng.random(ticks) < 1 / 15)
    return rng.uniform(low, high, ticks + 1)[at]


def make_run(seed, ticks=400, media=False):
    """The flow follows its setpoint but saturates at 6; the temperature follows the flow with a lag of 20 ticks."""
    rng = np.random.default_rng(seed)
    setpoint, valve = steps(rng, 0, 10, ticks), np.round(steps(rng, 0, 1, ticks))
    flow = temperature = min(setpoint[0], 6.0)
    true = np.zeros((ticks, 2))
    for t in range(ticks):
        flow += (min(setpoint[t], 6.0) - flow) / 4.0
        temperature += (flow + valve[t] - temperature) / 20.0
        true[t] = temperature, flow
    noisy = true + rng.normal(0, 0.02, true.shape)
    values = {"TT1": 40 + 5 * noisy[:, 0], "FT1": noisy[:, 1], "NT1": rng.normal(0, 1, ticks)}
    values |= {"FT1.SP": setpoint, "XV1": valve}
    run = from_process_grid(make_plant(), np.arange(1, ticks + 1) * 10**9, values)
    return with_media(run, true[:, 1], rng) if media else run


def with_media(run, flow, rng):
    ticks = len(run)
    shape = {name: (ticks, *patch) for name, patch in SHAPES.items()}
    patches = {n: (rng.random(s) * 0.1 + flow.reshape(-1, 1, 1, 1) / 10).astype(np.float16) for n, s in shape.items()}
    media = {n: np.c_[flow, rng.normal(0, 1, (ticks, FEATURES - 1))] for n in SHAPES}
    present = {n: rng.random(ticks) < 0.9 for n in SHAPES}
    blank = {n: np.where(present[n].reshape(-1, 1, 1, 1), patches[n], np.float16(0)) for n in SHAPES}
    kept = {n: np.where(present[n][:, None], media[n], 0.0) for n in SHAPES}
    arrays = {n: getattr(run, n) for n in ("t_ns", "tags", "observed", "age_s", "quality", "action")}
    return Ticks(**arrays, media=kept, present=present, patches=blank)


def replaced(run, **changes):
    fields = {n: getattr(run, n) for n in Ticks.__dataclass_fields__}
    return Ticks(**fields | changes)


@functools.cache
def training_runs():
    return [make_run(s, media=s < 2) for s in range(8)]


@functools.cache
def held_out_runs():
    return [make_run(100 + s, media=s < 1) for s in range(3)]


@functools.cache
def make_core():
    return fit_core(training_runs(), make_plant(), LinearConfig(ranks=(4, 8)))


def small(**changes):
    values = {"width": 16, "heads": 2, "states": 2, "latent": 8, "window_ticks": 4, "context": 16, "head": 24}
    return ModelConfig(**values | changes)


def make_model(seed=0, **changes):
    return build(make_plant(), make_core(), training_runs(), small(**changes), seed)
