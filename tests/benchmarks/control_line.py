"""The simulated line as a world to plan in: its core fitted on a short recording, its networks open but untrained.

What they have learned does not change how long a plan takes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from fusion.plant import Plant
from fusion.plant_file import load_plant
from fusion.recordings.recording import Recording
from fusion.simulator.record import record_batch
from fusion.simulator.scenario import ExcitationSettings, Scenario
from fusion.training.ticks import ticks
from models.features.stem import FeatureStem
from models.linear.fit import fit_core
from models.monitors.fit import fit_monitors
from models.networks.size import ModelConfig
from models.plant_model import ModelState, PlantModel, PresentWorld
from models.training.fitter import build

PLANT = Path(__file__).parents[2] / "configs" / "plant" / "lime.yaml"


def line_world() -> tuple[PresentWorld, Plant]:
    """The world at the end of a quarter of an hour."""
    plant = load_plant(PLANT)
    with tempfile.TemporaryDirectory() as folder:
        excited = ExcitationSettings(enabled=True, mean_interval_s=300)
        scenarios = [
            Scenario(name="tags", seed=seed, duration_s=900, warmup_s=300, media=False, excitation=excited)
            for seed in range(3)
        ]
        record_batch(scenarios, plant, Path(folder))
        runs = [ticks(Recording(path), plant) for path in sorted(Path(folder).glob("tags*"))]
    core = fit_core(runs, plant)
    networks = build(plant, core, runs, ModelConfig())
    with torch.no_grad():
        networks.readout.gate_HS.fill_(1.0)
    monitors = fit_monitors(runs, core, plant, FeatureStem(plant), tag_runs=[])
    model = PlantModel.assemble(plant, core, monitors, networks, runs, runs, runs)
    state = ModelState()
    model.step(runs[-1][-300:], state)
    return model.world(state), plant
