import json
from pathlib import Path

import numpy as np
import pytest

from control.anomaly.calibration import SurpriseConfig, calibrate
from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.errors import ConfigError
from fusion.evaluation.ablation import NOTHING_MISSING, Ablation
from fusion.plant import Modality
from fusion.plant_file import load_plant
from fusion.recordings.recording import Recording
from fusion.records import Energy, Origin
from fusion.timeline.history import frames

PLANT = load_plant(Path(__file__).parent.parent / "configs" / "plant" / "lime.yaml")
ENERGIES = (
    Energy(name="innovation.1", origin=Origin.AHEAD, family="innovation"),
    Energy(name="cross.camera.0.1", origin=Origin.ACROSS, family="cross", modality=Modality.VIDEO),
    Energy(name="cross.microphone.0.1", origin=Origin.ACROSS, family="cross", modality=Modality.AUDIO),
    Energy(name="net.innovation.1", origin=Origin.LATER, family="innovation"),
)


@pytest.fixture(scope="module")
def calibration():
    values = np.abs(np.random.default_rng(0).standard_normal((20_000, len(ENERGIES))))
    return calibrate(values, ENERGIES, SurpriseConfig())


def test_the_command_line_names_what_it_accepts():
    assert Ablation.parse("video, audio", None).without == (Modality.VIDEO, Modality.AUDIO)
    assert Ablation.parse(None, "latent") == Ablation(only="latent")
    with pytest.raises(ConfigError, match=r"'smell' is not a modality; accepted: .*lidar"):
        Ablation.parse("smell", None)
    with pytest.raises(ConfigError, match="expected latent or classical"):
        Ablation.parse(None, "both")


def test_a_frame_loses_the_sensors_of_a_modality_and_keeps_the_setpoints(recordings):
    frame = list(frames(Recording(recordings[-1])))[200]
    blind = Ablation(without=(Modality.VIDEO,)).seen(frame, PLANT)
    assert set(frame.values) - set(blind.values) == {"camera"}
    numb = Ablation(without=(Modality.PROCESS,)).seen(frame, PLANT)
    assert set(numb.values) & {s.name for s in PLANT.actions}
    assert not set(numb.values) & {s.name for s in PLANT.tags if s not in PLANT.actions}
    assert NOTHING_MISSING.seen(frame, PLANT) is frame


@pytest.mark.parametrize(
    ("ablation", "kept"),
    [
        (Ablation(without=(Modality.VIDEO,)), [0, 2, 3]),
        (Ablation(without=(Modality.PROCESS, Modality.AUDIO)), [1]),
        (Ablation(only="classical"), [0, 1, 2]),
        (Ablation(only="latent"), [3]),
    ],
)
def test_the_limit_is_set_anew_on_the_energies_that_remain(calibration, ablation, kept):
    limits = ablation.limits(calibration)
    row = np.full(len(ENERGIES), 50.0)
    speaking = np.flatnonzero(np.isfinite(limits.score(row).standardised))
    assert speaking.tolist() == kept
    assert limits.score(row).peak > limits.threshold


def test_energies_of_the_networks_alone_speak_although_they_are_silent_beside_others(calibration):
    row = np.array([0.0, 0.0, 0.0, 80.0])
    assert calibration.score(row).peak < calibration.threshold
    alone = Ablation(only="latent").limits(calibration)
    assert alone.score(row).peak > alone.threshold


def test_only_the_ablation_to_the_latent_pays_for_its_energies(model):
    checkpoint = load_checkpoint(model, PLANT)
    usual, latent = (ablation.engine(checkpoint) for ablation in (NOTHING_MISSING, Ablation(only="latent")))
    assert usual.model.energies
    assert {e.origin for e in usual.model.energies}.isdisjoint({Origin.LATER})
    assert all(e.raises for e in usual.calibration.energies)
    assert {e.origin for e in latent.model.energies} == {Origin.LATER}
    everything = NOTHING_MISSING.engine(checkpoint, with_silent=True)
    assert len(everything.model.energies) > len(usual.model.energies) + len(latent.model.energies)


def test_without_a_sense_the_others_find_the_fault(model, slipping, tmp_path):
    out = tmp_path / "report.json"
    more = ("--without", "video,lidar", "--json", str(out))
    assert main(["evaluate", "--model", str(model), "--recording", str(slipping), *more]) == 0
    (event,) = json.loads(out.read_text())["events"]
    assert event["detected"]
    assert event["blamed_modality"] not in ("video", "lidar")
    assert not {"camera", "silo_lidar"} & set(event["blamed_signals"])


def test_the_classical_part_forecasts_without_the_networks(model):
    checkpoint = load_checkpoint(model, PLANT)
    engines = [ablation.engine(checkpoint) for ablation in (NOTHING_MISSING, Ablation(only="classical"))]
    engines[0].model.networks.readout.gate_HS.fill_(0.5)
    assert [bool(engine.model.networks.readout.gate_HS.any()) for engine in engines] == [True, False]
    assert not Ablation(only="classical").engine(checkpoint).model.world_model.gates.any()
