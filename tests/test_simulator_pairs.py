import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.plant_file import load_plant
from fusion.recordings.recording import Recording
from fusion.simulator.line.laws import LAWS
from fusion.simulator.pairs import make_pairs, record_pairs
from fusion.simulator.scenario import LawEvent, Scenario, load_scenario, scenario_text
from fusion.simulator.simulation import Simulation

PLANT = load_plant(Path(__file__).parent.parent / "configs" / "plant" / "lime.yaml")


def test_pairs_are_spread_over_the_laws_and_follow_from_the_seed():
    pairs = list(make_pairs(PLANT, 3, 2 * len(LAWS)))
    assert [p.kind for p in pairs] == [*LAWS, *LAWS]
    assert pairs == list(make_pairs(PLANT, 3, 2 * len(LAWS)))
    assert pairs != list(make_pairs(PLANT, 4, 2 * len(LAWS)))
    assert len({p.seed for p in pairs}) == len(pairs)
    assert all(not p.lawful.laws and len(p.impossible.laws) == 1 for p in pairs)


def soon(scenario):
    """The same with its moment after 20 s, to save time."""
    moves = tuple(replace(move, at_s=20.0) for move in scenario.moves)
    laws = tuple(replace(law, onset_s=20.0) for law in scenario.laws)
    return replace(scenario, warmup_s=30.0, duration_s=60.0, moves=moves, laws=laws)


@pytest.mark.parametrize("kind", LAWS)
def test_both_sides_are_equal_to_the_bit_until_the_law_breaks(kind):
    pair = next(p for p in make_pairs(PLANT, 1, len(LAWS)) if p.kind == kind)
    one, two = (Simulation(soon(side), PLANT) for side in (pair.lawful, pair.impossible))
    for _ in range(20):
        for left, right in zip(one.advance(), two.advance(), strict=True):
            np.testing.assert_array_equal(left.value, right.value)
    later = zip(one.advance(30), two.advance(30), strict=True)
    assert any(not np.array_equal(left.value, right.value) for left, right in later)


def test_a_folder_of_pairs_lists_them(pairs, tmp_path):
    both = json.loads((pairs / "pairs.json").read_text())
    assert [listed["kind"] for listed in both] == list(LAWS)[:2]
    for listed in both:
        for side, kind in (("lawful", "normal"), ("impossible", "fault")):
            recording = Recording(pairs / listed["name"] / side)
            assert recording.kind == kind
            assert recording.manifest["t0_ns"] < listed["t_ns"] < recording.manifest["t1_ns"]
    with pytest.raises(ConfigError, match="exists already"):
        record_pairs(PLANT, 0, 1, pairs)
    with pytest.raises(ConfigError, match="at least 1"):
        record_pairs(PLANT, 0, 0, tmp_path / "none")


def test_a_law_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(ConfigError, match="level_without_inflow"):
        Scenario(laws=(LawEvent(name="gravity"),))
    broken = Scenario(laws=(LawEvent(name="heat_without_lime", onset_s=10),))
    (tmp_path / "s.yaml").write_text(scenario_text(broken))
    assert load_scenario(tmp_path / "s.yaml").laws == broken.laws
    assert broken.kind == "fault"
