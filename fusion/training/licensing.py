"""The licence of a model on recordings that it was not made of, and the tests that would earn what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from control.advice.excitation import excitations
from control.advice.gains import response_times
from control.advice.licence import Licence
from control.advice.steptest import StepTest, StepTestConfig, propose
from fusion.checkpoint import Checkpoint, checkpoint_for, load_checkpoint
from fusion.errors import ConfigError
from fusion.plain import plain
from fusion.recordings.recording import Recording
from fusion.training.examination import examine_model
from fusion.training.settings import TrainConfig
from fusion.training.ticks import one_plant, ticks
from models.plant_model import ModelState, PlantModel
from models.ticks import Ticks

LEAST_TICKS = 400
NOISE_TICKS = 20_000


def licence_report(model: Path, recordings: Sequence[Path], config: TrainConfig | None = None) -> dict[str, Any]:
    """The licence that the daemon enforces, and, with recordings, the one that they would earn, with all evidence.

    Raises:
        ConfigError: where the model cannot be read, or the recordings are too short to say anything.
        PlantMismatch: where a recording is of another plant.
    """
    if not recordings:
        return {"enforced": load_checkpoint(model).tree("licence")}
    checkpoint, runs = _read(model, recordings)
    found = PlantModel.from_checkpoint(checkpoint)
    licence, card = examine_model(found, runs, runs, config or TrainConfig())
    return {
        "enforced": checkpoint.tree("licence"),
        "earned": licence.to_dict(),
        "responses": _responses(found, runs[-1]),
        "card": card,
    }


def step_tests(model: Path, recordings: Sequence[Path], config: StepTestConfig | None = None) -> list[StepTest]:
    """Tests, from where the last recording ends, that would let the licence be granted; none where nothing is missing.

    Raises:
        ConfigError: where the model cannot be read, or the recordings are too short to say anything.
        PlantMismatch: where a recording is of another plant.
    """
    if not recordings:
        raise ConfigError("steptest needs at least one recording: what was moved, and where the plant stands")
    checkpoint, runs = _read(model, recordings)
    plant = checkpoint.plant
    movable = [s.name for s in plant.actions if s.max_rate is not None]
    columns = [i for i, s in enumerate(plant.actions) if s.max_rate is not None]
    seen = excitations([(run.action[:, columns], run.tags) for run in runs], movable, plant)
    names = [s.name for s in plant.tags]
    present = dict(zip(names, np.median(runs[-1].tags[-60:], axis=0).tolist(), strict=True))
    present |= dict(zip((s.name for s in plant.actions), runs[-1].action[-1].tolist(), strict=True))
    steps = np.diff(runs[-1].tags[-NOISE_TICKS:], axis=0)
    noise = dict(zip(names, (1.4826 * np.median(np.abs(steps), axis=0) / np.sqrt(2)).tolist(), strict=True))
    responses = _responses(PlantModel.from_checkpoint(checkpoint), runs[-1])
    settling = {
        name: max((r["settling_s"] for r in responses if r["manipulated"] == name), default=0.0) for name in movable
    }
    return propose(plant, seen, present, noise, settling, TrainConfig().licence, config)


def _read(model: Path, recordings: Sequence[Path]) -> tuple[Checkpoint, list[Ticks]]:
    read = [Recording.verified(path) for path in recordings]
    checkpoint = checkpoint_for(model, one_plant(read))
    runs = [run for r in read if len(run := ticks(r, checkpoint.plant)) >= LEAST_TICKS]
    if not runs:
        raise ConfigError(f"licence: no recording has {LEAST_TICKS} ticks; nothing can be said of shorter ones")
    return checkpoint, runs


def _responses(model: PlantModel, run: Ticks) -> list[dict[str, Any]]:
    """Dead time and settling of each declared pair, at the end of a run."""
    state = ModelState()
    model.step(run[-LEAST_TICKS:], state)
    return [plain(r) for r in response_times(model.world(state), model.plant)]


def level_of(report: dict[str, Any]) -> str:
    """The licence's level in a report: the earned one where there is one."""
    return str(Licence.from_dict(report.get("earned", report["enforced"])).level)
