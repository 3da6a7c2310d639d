import json

import pytest

from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.config import sweep_overrides
from fusion.errors import ConfigError
from fusion.training.sweep import sweep
from tests.small_plants import SMALL, small_values, write_recording

FAST = ("steps=2", "seconds=inf", "threads=1", "batch=4")


def test_settings_expand_as_in_a_multirun_of_hydra():
    assert sweep_overrides(["seed=0,1,2", "batch=16,32"]) == [
        [f"seed={seed}", f"batch={batch}"] for seed in (0, 1, 2) for batch in (16, 32)
    ]
    assert sweep_overrides(["seed=range(2)", "steps=5"]) == [["seed=0", "steps=5"], ["seed=1", "steps=5"]]
    assert sweep_overrides(["fit.learning_rate=1e-3,2e-3", "model.width=96"]) == [
        ["fit.learning_rate=0.001", "model.width=96"],
        ["fit.learning_rate=0.002", "model.width=96"],
    ]
    with pytest.raises(ConfigError, match=r"seed=\[0: .*expected KEY=VALUE"):
        sweep_overrides(["seed=[0"])
    with pytest.raises(ConfigError, match=r"expected KEY=A,B,C or KEY=range"):
        sweep_overrides(["fit.learning_rate=interval(0,1)"])


def test_a_combination_that_is_not_accepted_is_refused_before_any_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="fit.batch: 1 is not accepted"):
        sweep([], tmp_path / "sweep", ["batch=4,1"])
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_trains_each_combination_and_does_none_twice(tmp_path, capsys, monkeypatch):
    recording = write_recording(tmp_path / "run", SMALL, small_values(0, 3600))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "sweep"
    command = [
        "train",
        "--recording",
        str(recording),
        "--out",
        str(out),
        "--multirun",
        "seed=0,1",
        "surprise.on_delay_s=20",
        *FAST,
    ]
    assert main(command) == 0
    rows = json.loads((out / "sweep.json").read_text())
    assert [row["overrides"][0] for row in rows] == ["seed=0", "seed=1"]
    for number, row in enumerate(rows):
        checkpoint = load_checkpoint(out / str(number))
        assert checkpoint.meta["train"]["fit"]["seed"] == number
        assert checkpoint.meta["calibration"]["on_delay_s"] == 20
        assert json.loads((out / str(number) / "overrides.json").read_text()) == row["overrides"]
        assert row["score"] == checkpoint.meta["gauges"]["score"]
    assert rows[0]["model_id"] != rows[1]["model_id"]
    assert {"seed=0", "seed=1"} <= set(capsys.readouterr().out.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "sweep"]
    written = (out / "0" / "report.html").stat().st_mtime_ns
    monkeypatch.setattr("fusion.training.sweep.train", None)
    assert main(command) == 0
    assert (out / "0" / "report.html").stat().st_mtime_ns == written
