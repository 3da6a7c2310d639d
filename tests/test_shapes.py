"""Plants of other shapes than the simulated line: another order, tags alone, media alone, a thousand tags."""

import dataclasses
from itertools import islice

import numpy as np
import pytest

from fusion.checkpoint import load_checkpoint
from fusion.evaluation.evaluate import evaluate
from fusion.evaluation.whatif import whatif
from fusion.inference import Engine, calibration_of
from fusion.recordings.recording import Recording
from fusion.records import Origin
from fusion.state import dump_state, load_state
from fusion.timeline.history import frames
from fusion.training.settings import train_config
from fusion.training.ticks import ticks
from fusion.training.train import train
from models.actions import HORIZONS
from models.linear.core import LinearCore
from models.linear.fit import fit_core
from models.linear.past import feature_names
from models.plant_model import PlantModel
from models.scaling import MANY_TAGS
from tests.small_plants import SMALL, small_values, strip_tags, wide_plant, wide_values, write_recording

TURNED = dataclasses.replace(SMALL, signals=SMALL.signals[::-1])


def few_steps(*changes):
    return train_config(["steps=4", "seconds=inf", "batch=4", "threads=1", "validate_every=2", *changes])


def replayed(model, recording, most=None):
    """Standardised energies and forecasts by name at every tick, or the first of them."""
    engine = Engine(load_checkpoint(model, Recording(recording).plant))
    rows, forecasts = [], []
    for frame in islice(frames(Recording(recording)), most):
        outcome = engine.step(frame)
        if outcome.surprise is not None:
            rows.append(outcome.surprise.standardised)
        if outcome.forecast is not None:
            forecasts.append(dict(zip(outcome.forecast.signals, outcome.forecast.mean.T.tolist(), strict=True)))
    return np.stack(rows), forecasts


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    recording = write_recording(folder / "run", SMALL, small_values(0, 3500))
    train([recording], folder / "model", few_steps("steps=8"))
    return folder / "model"


def test_a_recording_with_its_signals_in_another_order_has_identical_scores(small, tmp_path):
    values = small_values(1, 300)
    listed = write_recording(tmp_path / "listed", SMALL, values)
    turned = write_recording(tmp_path / "turned", TURNED, values)
    assert [s.name for s in Recording(turned).plant.tags] == [s.name for s in SMALL.tags][::-1]
    energies, forecasts = replayed(small, listed)
    again, same = replayed(small, turned)
    assert np.isfinite(energies).any()
    assert np.array_equal(energies, again, equal_nan=True)
    assert forecasts
    assert forecasts == same
    one, two = (evaluate(small, [path], workers=1) for path in (listed, turned))
    assert one["forecast"]
    assert one == two
    moves = [whatif(small, path, 100.0, ["FT1.SP=3"], 100.0) for path in (listed, turned)]
    assert moves[0] == moves[1]


def test_a_tick_is_encoded_once(small, tmp_path, monkeypatch):
    asked, encode = [], LinearCore.encode
    monkeypatch.setattr(LinearCore, "encode", lambda *given: asked.append(len(given[1])) or encode(*given))
    replayed(small, write_recording(tmp_path / "run", SMALL, small_values(1, 20)))
    assert asked
    assert asked == [1] * len(asked)
    assert len(asked) <= 20


def test_without_media_tags_speak_and_latent_and_slow_averages_do_not(small):
    engine = Engine(load_checkpoint(small))
    origins = {energy.origin for energy in engine.model.energies}
    assert Origin.BESIDE in origins
    assert Origin.LATER not in origins
    assert min(energy.speed for energy in engine.model.energies) > 0.02
    assert all(energy.raises for energy in engine.calibration.energies)


def test_recordings_in_any_order_are_read_into_the_same_columns(tmp_path):
    values = small_values(1, 300)
    listed = Recording(write_recording(tmp_path / "listed", SMALL, values))
    turned = Recording(write_recording(tmp_path / "turned", TURNED, values))
    one, two = ticks(listed), ticks(turned, listed.plant)
    assert all(np.array_equal(one.arrays()[name], array) for name, array in two.arrays().items())
    assert not np.array_equal(one.tags, ticks(turned).tags)


def test_a_plant_of_tags_alone_steers_and_reports(small):
    model = PlantModel.from_checkpoint(load_checkpoint(small))
    assert not model.networks.perception.media
    assert {s["signal"] for s in load_checkpoint(small).meta["licence"]["signals"]} == {"FT1.SP"}
    page = (small / "report.html").read_text()
    for said in ("ARX", "CVA", "PCA", "FT1.SP [kg/s]", "declared +", "Anomalies over the training period"):
        assert said in page


def test_a_plant_of_media_alone_is_trained_judged_and_reported(recordings, tmp_path):
    media = [path for path in recordings if Recording(path).has_media]
    seen = [strip_tags(path, tmp_path / path.name) for path in media]
    out = tmp_path / "model"
    train(seen, out, few_steps("calibration_share=0.4"))
    model = PlantModel.from_checkpoint(load_checkpoint(out))
    assert model.tags == ()
    assert {s.name for s in model.networks.perception.media} == {s.name for s in Recording(seen[0]).plant.media}
    report = evaluate(out, seen[-1:], workers=1)
    assert report["forecast"] == {}
    assert report["normal_hours"] > 0
    energies, forecasts = replayed(out, seen[0], 150)
    names = calibration_of(load_checkpoint(out)).heard().names
    calibrated = dict(zip(names, np.isfinite(energies).any(0), strict=True))
    assert calibrated["cross.camera.0.02"]
    assert all(names == {} for names in forecasts)
    assert "no process tags" in (out / "report.html").read_text()


def test_a_thousand_tags_are_trained_on_and_judged(tmp_path):
    plant = wide_plant(1000)
    recording = write_recording(tmp_path / "run", plant, wide_values(plant, 0, 3500))
    out = tmp_path / "model"
    train(
        [recording], out, few_steps("steps=2", "model.width=16", "model.heads=2", "model.context=32", "model.states=2")
    )
    short = write_recording(tmp_path / "short", plant, wide_values(plant, 1, 140))
    energies, _ = replayed(out, short)
    assert np.isfinite(energies[-1]).sum() > 5
    model = PlantModel.from_checkpoint(load_checkpoint(out))
    assert len(model.core.directions) < 2.5 * len(plant.tags)
    skill = np.array(load_checkpoint(out).meta["card"]["skill_linear"], float)
    assert np.median(skill[model.world_model.horizon_s.index(64.0)]) > 0.1


def test_many_tags_have_features_of_their_own_and_share_those_of_their_factors(tmp_path):
    plant = wide_plant(MANY_TAGS + 1)
    run = ticks(Recording(write_recording(tmp_path / "run", plant, wide_values(plant, 0, 900))))
    core = fit_core([run], plant)
    whole, _ = core.encode(run)
    names = feature_names(tuple(s.name for s in plant.tags), ())
    assert whole.past.shape[1] == len(names) == len(core.directions)
    assert core.own == 2 * len(plant.tags)
    first, carry = core.encode(run[:400])
    rest, _ = core.encode(run[400:], carry)
    np.testing.assert_allclose(np.concatenate([first.past, rest.past]), whole.past, atol=1e-9)
    made, true = core.hindcast(whole, 64)
    np.testing.assert_allclose(made, core.base(whole)[:-64, HORIZONS.index(64)], atol=1e-9)
    assert 1 - ((true - made) ** 2).sum() / (true**2).sum() > 0.2
    again = load_state(LinearCore, *dump_state(core))
    assert np.array_equal(again.base(whole), core.base(whole))
