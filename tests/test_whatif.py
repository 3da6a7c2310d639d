import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.errors import ConfigError
from fusion.evaluation.whatif import advance, between, whatif
from fusion.inference import Engine
from fusion.plant import parse_moves
from fusion.plant_file import load_plant
from fusion.prospects import Question, Refusal
from fusion.recordings.recording import Recording
from fusion.records import ACTION_STEPS

PLANT = load_plant(Path(__file__).parent.parent / "configs" / "plant" / "lime.yaml")


def test_moves_are_read_or_refused_with_what_is_accepted():
    assert parse_moves(["TIC101.SP=82", "SC103.SP=8e-1"], PLANT) == {"TIC101.SP": 82.0, "SC103.SP": 0.8}
    with pytest.raises(ConfigError, match=r"'TT101' cannot be moved; accepted: .*TIC101\.SP"):
        parse_moves(["TT101=80"], PLANT)
    with pytest.raises(ConfigError, match=r"'hot' is not a number; expected SIGNAL=VALUE"):
        parse_moves(["TIC101.SP=hot"], PLANT)
    with pytest.raises(ConfigError, match=r"TIC101\.SP=500: expected .* to .* Cel"):
        parse_moves(["TIC101.SP=500"], PLANT)


def test_between_the_horizons_the_forecast_starts_at_the_present_and_does_not_overshoot():
    values = np.array([[1.0], [4.0], [4.0]])
    made = between((8, 32, 64), values, np.array([8.0, 32.0, 40.0, 50.0, 64.0]), np.zeros(1))
    np.testing.assert_allclose(made[[0, 1, 4], 0], [1.0, 4.0, 4.0])
    assert made.max() <= 4.0 + 1e-9


def test_a_hotter_setpoint_makes_the_slaker_hotter_than_nothing_does(model, recordings, tmp_path):
    out = tmp_path / "answer.json"
    asked = ("--at", "240", "--set", "TIC101.SP=90", "--horizon", "240", "--json", str(out))
    assert main(["whatif", "--model", str(model), "--recording", str(recordings[-1]), *asked]) == 0
    answer = json.loads(out.read_text())
    assert answer["horizon_s"] == [10.0 * k for k in range(1, 25)]
    hot = {key: np.array(values) for key, values in answer["signals"]["TT101"].items()}
    assert set(hot) == {"expected", "low", "high", "do_nothing"}
    assert all(len(values) == 24 for values in hot.values())
    assert hot["expected"][-1] > hot["do_nothing"][-1]
    assert (hot["low"] < hot["expected"]).all()
    assert (hot["expected"] < hot["high"]).all()


def test_nothing_moved_is_nothing_changed(model, recordings):
    answer = whatif(model, recordings[-1], 240, [], 100)
    for values in answer["signals"].values():
        np.testing.assert_allclose(values["expected"], values["do_nothing"])


@pytest.mark.parametrize(
    ("at_s", "horizon_s", "said"),
    [(485, 60, "the recording ends 4"), (10, 60, "too early"), (240, 9999, "expected 10 to")],
)
def test_a_question_that_cannot_be_asked_says_why(model, recordings, at_s, horizon_s, said):
    with pytest.raises(ConfigError, match=said):
        whatif(model, recordings[-1], at_s, [], horizon_s)


def test_a_running_engine_foresees_what_a_recording_says(model, recordings):
    recording = Recording.verified(recordings[-1])
    engine = Engine(load_checkpoint(model, recording.plant))
    assert engine.whatif(Question(id="q", moves={})).refusal is Refusal.WARMING_UP
    advance(engine, recording, 240)
    wide = replace(engine.model.region, limit=1e9, low=np.full(len(PLANT.actions), -1e9))
    engine.model.region = replace(wide, high=-wide.low)
    name = "TIC101.SP"
    now = float(engine.present_action[[s.name for s in PLANT.actions].index(name)])
    held = engine.whatif(Question(id="q", moves={name: now}))
    assert (held.refusal, held.id, held.model_id) == (None, "q", engine.model_id)
    np.testing.assert_allclose(held.moved.mean, held.baseline.mean)
    path = torch.from_numpy(engine.present_action.copy()).expand(1, ACTION_STEPS, -1)
    np.testing.assert_allclose(held.moved.mean, engine.rollout(path)[0], rtol=1e-5, atol=1e-6)
    higher = engine.whatif(Question(id="q", moves={name: min(now + 1.0, 90.0)}))
    i = higher.moved.signals.index("TT101")
    assert higher.moved.mean[-1, i] > higher.baseline.mean[-1, i]
