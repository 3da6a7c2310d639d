import json

import numpy as np
import pytest

from fusion.cli import main
from fusion.errors import ConfigError
from fusion.evaluation.pairs import judge_pairs, surprise
from fusion.records import Energy, Origin

ENERGIES = tuple(
    Energy(name=f"{family}.0.1", origin=Origin.AHEAD, family=family) for family in ("innovation", "state", "relation")
)


def test_surprise_rises_with_every_energy_but_those_of_position():
    calm, loud = np.zeros((10, 3)), np.zeros((10, 3))
    loud[5, 0] = 3.0
    assert surprise(loud, ENERGIES) > surprise(calm, ENERGIES) == 0.0
    loud[:, 1] = 100.0
    assert surprise(loud, ENERGIES) == pytest.approx(np.log1p(3.0) / 10)


def test_below_its_median_or_absent_an_energy_surprises_nobody():
    assert surprise(np.array([[-2.0, 0.0, np.nan]]), ENERGIES) == 0.0


def test_pairs_are_recorded_and_judged_by_the_commands(model, pairs, tmp_path):
    out = tmp_path / "report.json"
    assert main(["evaluate", "--model", str(model), "--pairs", str(pairs), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert sum(kind["count"] for kind in report["by_kind"].values()) == 2
    right = [pair["lawful"] < pair["impossible"] for pair in report["pairs"]]
    assert report["accuracy"] == np.mean(right)
    assert all(pair["lawful"] != pair["impossible"] for pair in report["pairs"])


def test_a_folder_without_pairs_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="expected a folder written by `fusion pairs`"):
        judge_pairs(model, tmp_path)
    (tmp_path / "pairs.json").write_text("[]")
    with pytest.raises(ConfigError, match="lists no pair"):
        judge_pairs(model, tmp_path)
