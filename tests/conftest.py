"""A plant model of seconds and recordings for the tests that need one, made once."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from fusion.cli import main
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


def made_once(factory, name, make):
    """A folder that ``make`` fills once in a session, whichever of several workers asks first."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{place}.lock"):
        if not place.exists():
            aside = place.with_name(f"{name}.making")
            aside.mkdir()
            make(aside)
            aside.rename(place)
    return place


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    def make(folder):
        record_batch([scenario(s, media=False, duration_s=900, name="tags") for s in range(6)], PLANT, folder)
        for seed in range(10, 15):
            record(scenario(seed), PLANT, folder / f"media-{seed}")

    folder = made_once(tmp_path_factory, "recordings", make)
    return [*sorted(folder.glob("tags-*")), *sorted(folder.glob("media-*"))]


@pytest.fixture(scope="session")
def model(recordings, tmp_path_factory):
    def make(folder):
        settings = ["seconds=inf", "steps=16", "validate_every=8", "batch=8", "threads=1", "calibration_share=0.4"]
        train(recordings, folder / "model", train_config(settings))

    return made_once(tmp_path_factory, "trained", make) / "model"


@pytest.fixture(scope="session")
def slipping(tmp_path_factory):
    def make(folder):
        fault = FaultEvent(name="belt_slip", onset_s=ONSET_S, severity=1.0)
        slip = scenario(40, faults=(fault,), excitation=ExcitationSettings(), duration_s=360)
        record(slip, PLANT, folder / "belt_slip")

    return made_once(tmp_path_factory, "fault", make) / "belt_slip"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Two minimal pairs, as `fusion pairs` records them."""
    asked = ["pairs", "--seed", "5", "--count", "2", "--out"]
    return made_once(tmp_path_factory, "minimal", lambda folder: main([*asked, str(folder / "pairs")])) / "pairs"
