"""Minimal pairs judged: on which of two continuations a model is less surprised, the lawful or the impossible one.

A pair is right when the lawful one surprises less; a tie is wrong. How to make pairs: ``fusion.simulator.pairs``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fusion.checkpoint import checkpoint_for
from fusion.errors import ConfigError
from fusion.evaluation.ablation import NOTHING_MISSING, Ablation
from fusion.recordings.recording import Recording
from fusion.records import Energy
from fusion.timeline.history import frames
from models.ticks import TickBuilder

Floats = NDArray[np.float64]

LIST, LAWFUL, IMPOSSIBLE = "pairs.json", "lawful", "impossible"
POSITION = ("state", "shell")
"""Families of energies that say how unusual a state is and not whether what happens is lawful."""


def judge_pairs(model: Path, folder: Path, *, ablation: Ablation = NOTHING_MISSING, workers: int = 0) -> dict[str, Any]:
    """Share of right pairs, over all and by kind, and every pair with its two surprises.

    Raises:
        ConfigError: where the folder holds no pairs.
        PlantMismatch: where they are of another plant than the model.
        RecordingError: where one is missing or damaged.
    """
    listed = _listed(folder)
    spawn = multiprocessing.get_context("spawn")
    count = min(workers or os.cpu_count() or 1, len(listed))
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = list(pool.map(_judge, repeat(model), repeat(folder), listed, repeat(ablation)))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    return {
        "accuracy": _share(rows),
        "by_kind": {kind: _summed([row for row in rows if row["kind"] == kind]) for kind in kinds},
        "pairs": rows,
    }


def surprise(standardised: Floats, energies: Sequence[Energy]) -> float:
    """Mean over ticks of the summed logarithms of what energies [T, E] have above their normal median.

    Both sides of a pair share everything but the law, so every rise counts and none drowns the others.
    """
    kept = np.array([energy.family not in POSITION for energy in energies], bool)
    above = np.maximum(np.nan_to_num(standardised[:, kept], nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    return float(np.log1p(above).sum(1).mean())


def _judge(model: Path, folder: Path, pair: Mapping[str, Any], ablation: Ablation) -> dict[str, Any]:
    sides = {side: _side(model, folder / pair["name"] / side, pair["t_ns"], ablation) for side in (LAWFUL, IMPOSSIBLE)}
    right = sides[LAWFUL] < sides[IMPOSSIBLE]
    return {"name": pair["name"], "kind": pair["kind"], "right": right, **sides}


def _side(model: Path, path: Path, t_ns: int, ablation: Ablation) -> float:
    recording = Recording.verified(path)
    engine = ablation.engine(checkpoint_for(model, recording.plant), with_silent=True)
    recording = recording.of(engine.plant)
    builder = TickBuilder(engine.plant, engine.model.stem, engine.model.eye)
    for frame in frames(recording):
        builder.add(ablation.seen(frame, recording.plant))
    run = builder.ticks()
    standardised = engine.calibration.standardise(engine.model.judge(run))
    return surprise(standardised[run.t_ns > t_ns], engine.model.energies)


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        listed: list[dict[str, Any]] = json.loads((folder / LIST).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / LIST}: missing or damaged; expected a folder written by `fusion pairs`"
        ) from error
    if not listed:
        raise ConfigError(f"{folder / LIST}: lists no pair")
    return listed


def _summed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"accuracy": _share(rows), "count": len(rows)}


def _share(rows: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(bool(row["right"]) for row in rows) / len(rows), 4)
