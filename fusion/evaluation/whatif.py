"""What happens next if a signal is moved, and what if nothing is: a recording is replayed up to a moment and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

from fusion.checkpoint import checkpoint_for
from fusion.errors import ConfigError
from fusion.inference import TICKS_AT_ONCE, Engine
from fusion.plant import parse_moves
from fusion.recordings.recording import Recording
from fusion.records import ACTION_STEP_S, ACTION_STEPS, NS_PER_S
from fusion.timeline.history import frames
from models.plant_model import PlantModel

Floats = NDArray[np.float64]


def whatif(model: Path, path: Path, at_s: float, moves: Sequence[str], horizon_s: float) -> dict[str, Any]:
    """Forecasts from ``at_s`` after the start of a recording, with signals set at once and held, and without.

    Every ``ACTION_STEP_S`` up to ``horizon_s``: the model forecasts its own horizons, what lies between is interpolated
    (monotone cubic). Values are in engineering units; ``low`` and ``high`` are the 90 % band.

    Raises:
        ConfigError: where a move, the time or the horizon is not accepted.
        PlantMismatch: where the recording is of another plant than the model.
        RecordingError: where it is missing or damaged.
    """
    recording = Recording.verified(path)
    engine = Engine(checkpoint_for(model, recording.plant))
    recording = recording.of(engine.plant)
    wanted = parse_moves(moves, recording.plant)
    longest = engine.model.world_model.horizon_s[-1]
    if not ACTION_STEP_S <= horizon_s <= longest:
        raise ConfigError(f"--horizon {horizon_s:g}: expected {ACTION_STEP_S:g} to {longest:g} s")
    advance(engine, recording, at_s)
    return answer(engine.model, engine, wanted, horizon_s)


def advance(engine: Engine, recording: Recording, at_s: float) -> None:
    """Bring a fresh engine to a moment of a recording."""
    start_ns = recording.manifest["t0_ns"]
    until_ns = start_ns + round(at_s * NS_PER_S)
    past = takewhile(lambda frame: frame.t_ns <= until_ns, frames(recording))
    last_ns = start_ns
    while some := list(islice(past, TICKS_AT_ONCE)):
        engine.catch_up(some)
        last_ns = some[-1].t_ns
    if at_s < 0 or last_ns < until_ns - NS_PER_S:
        raise ConfigError(f"--at {at_s:g}: the recording ends {(last_ns - start_ns) / NS_PER_S:.0f} s after its start")
    if not engine.ready:
        raise ConfigError(f"--at {at_s:g}: too early; the model needs the past of a minute to look ahead")


def answer(model: PlantModel, engine: Engine, moves: Mapping[str, float], horizon_s: float) -> dict[str, Any]:
    """The two forecasts of an engine that has been brought to a moment."""
    now = engine.present_action
    path = torch.from_numpy(now.copy()).expand(2, ACTION_STEPS, -1).clone()
    for name, value in moves.items():
        path[1, :, [s.name for s in model.plant.actions].index(name)] = value
    held, moved = engine.rollout(path)
    grid = np.arange(ACTION_STEP_S, horizon_s + 1e-9, ACTION_STEP_S)
    tags = engine.present_tags
    half = between(model.world_model.horizon_s, model.world_model.bands(), grid, np.zeros(len(tags)))
    expected = between(model.world_model.horizon_s, moved, grid, tags)
    nothing = between(model.world_model.horizon_s, held, grid, tags)
    signals = {
        name: {
            "expected": expected[:, i].tolist(),
            "low": (expected - half)[:, i].tolist(),
            "high": (expected + half)[:, i].tolist(),
            "do_nothing": nothing[:, i].tolist(),
        }
        for i, name in enumerate(model.tags)
    }
    return {"horizon_s": grid.tolist(), "signals": signals}


def between(horizon_s: Sequence[float], values: Floats, grid_s: Floats, now: Floats) -> Floats:
    """Values [G, S] on a grid from those [H, S] at the model's horizons and the present ones [S]."""
    times = np.concatenate([[0.0], np.asarray(horizon_s)])
    return np.asarray(PchipInterpolator(times, np.concatenate([now[None], values]), axis=0)(grid_s))
