"""A plant model of seconds and recordings for the tests that need one, made once."""

from dataclasses import replace
from pathlib import Path

import pytest

from fusion.plant_file import load_plant
from fusion.simulator.record import record, record_batch
from fusion.simulator.scenario import ExcitationSettings, FaultEvent, Scenario, Sensors
from fusion.training.settings import train_config
from fusion.training.train import train

PLANT = load_plant(Path(__file__).parent.parent / "configs" / "plant" / "lime.yaml")
EXCITED = ExcitationSettings(enabled=True, mean_interval_s=300)
SLOW = Sensors(camera_hz=5, lidar_hz=1)
ONSET_S = 260


def scenario(seed, **changes):
    base = Scenario(name="run", seed=seed, duration_s=480, warmup_s=300, sensors=SLOW, excitation=EXCITED)
    return replace(base, start=f"2026-01-05T{seed % 24:02d}:00:00Z", **changes)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    tags = [scenario(s, media=False, duration_s=900, name="tags") for s in range(6)]
    paths = record_batch(tags, PLANT, folder)
    for seed in range(10, 15):
        record(scenario(seed), PLANT, folder / f"media-{seed}")
        paths.append(folder / f"media-{seed}")
    return paths


@pytest.fixture(scope="session")
def model(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "model"
    train(recordings, out, train_config(["seconds=4", "batch=8", "threads=1", "calibration_share=0.4"]))
    return out


@pytest.fixture(scope="session")
def slipping(tmp_path_factory):
    path = tmp_path_factory.mktemp("fault") / "belt_slip"
    fault = FaultEvent(name="belt_slip", onset_s=ONSET_S, severity=1.0)
    record(scenario(40, faults=(fault,), excitation=ExcitationSettings(), duration_s=360), PLANT, path)
    return path
