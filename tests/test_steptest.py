"""The licence from the command line, and the smallest tests that would earn what it lacks: proposed, within limits."""

import json
import re

import numpy as np
import pytest
from control_worlds import LinearWorld, small_plant
from hypothesis import given, settings
from hypothesis import strategies as st

from control.advice.excitation import Excitation, excitations
from control.advice.gains import response_times
from control.advice.licence import LicenceConfig
from control.advice.steptest import StepTestConfig, propose
from fusion.cli import main
from fusion.errors import ConfigError
from fusion.plant import Plant, Signal
from fusion.targets import Target

PLANT = small_plant()
PRESENT = {"T": 82.0, "L": 0.6, "T.SP": 80.0, "L.SP": 0.6}
NOISE = {"T": 0.1, "L": 0.002}
ENOUGH = Excitation(moves=40, hours=10, span=0.2, feedback=0.0)


def test_what_is_licensed_needs_no_test():
    assert propose(PLANT, {"T.SP": ENOUGH, "L.SP": ENOUGH}, PRESENT, NOISE) == []


def test_the_proposed_moves_earn_the_excitation_that_the_licence_asks_for():
    (test,) = propose(PLANT, {"L.SP": ENOUGH}, PRESENT, NOISE)
    assert (test.signal, test.unit, test.refused) == ("T.SP", "Cel", "")
    assert test.schedule[-1][1] == 80.0
    seconds = int(test.duration_s) + 60
    course = np.full((seconds, 2), [80.0, 0.6])
    for t, value in test.schedule:
        course[int(t) :, 0] = value
    outputs = np.random.default_rng(0).normal(0, 0.1, (seconds, 3))
    seen = excitations([(course, outputs)], ("T.SP", "L.SP"), PLANT)["T.SP"]
    licence = LicenceConfig()
    assert seen.moves >= licence.least_moves
    assert seen.span >= licence.least_span
    assert seen.span < 1.5 * licence.least_span


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ({"T": 93.2}, "T: its limits leave room for 0.2"),
        ({"T.SP": 89.9}, r"T\.SP: its range leave room for 0.1"),
        ({"T.SP": 99.0}, r"T\.SP: its value, 99"),
    ],
)
def test_where_there_is_no_room_no_test_is_proposed(present, said):
    test = propose(PLANT, {"L.SP": ENOUGH}, PRESENT | present, NOISE)[0]
    assert re.search(said, test.refused)
    assert test.schedule == ()


def test_without_a_declared_gain_nobody_knows_what_a_step_would_do():
    assert "no gain is declared" in propose(small_plant(gains=()), {}, PRESENT, NOISE)[0].refused


@settings(max_examples=100, deadline=None)
@given(st.floats(60, 100), st.floats(0, 1), st.floats(65, 95), st.floats(0.2, 0.9), st.floats(0, 3), st.integers(0, 99))
def test_no_test_leaves_ranges_or_limits(t, level, t_sp, l_sp, noise, seed):
    present = {"T": t, "L": level, "T.SP": t_sp, "L.SP": l_sp}
    for test in propose(PLANT, {}, present, {"T": noise, "L": noise / 50}, config=StepTestConfig(seed=seed)):
        signal = PLANT.by_name[test.signal]
        for _, value in test.schedule:
            assert signal.low <= value <= signal.high
        for name, most in (test.excursion or {}).items():
            target = next(x for x in PLANT.targets if x.signal == name)
            assert target.low + target.backoff <= present[name] - most + 1e-9
            assert present[name] + most - 1e-9 <= target.high - target.backoff
        gaps = np.diff([at for at, _ in test.schedule])
        assert (gaps * signal.max_rate >= 0.5 * (test.high - test.low)).all()


def test_dead_time_and_settling_of_a_lag_are_read_off_its_step():
    found = {
        r.manipulated: r for r in response_times(LinearWorld(lag_s=60.0, dead_s=30.0), PLANT) if r.controlled in "TL"
    }
    assert found["T.SP"].gain == pytest.approx(1.0, rel=0.05)
    assert 16.0 <= found["T.SP"].dead_s <= 64.0
    assert 128.0 <= found["T.SP"].settling_s <= 600.0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"low": 90.0, "high": 80.0}, "low 90.0 and high 80.0 with backoff 0.0 contradict"),
        ({"low": 80.0, "high": 81.0, "backoff": 0.6}, "contradict"),
        ({"scale": 0.0}, "scale must be positive"),
    ],
)
def test_targets_that_contradict_themselves_are_refused(target, said):
    with pytest.raises(ConfigError, match=said):
        Plant(name="p", signals=(Signal(name="T"),), targets=(Target(signal="T", **target),))


def test_the_licence_and_the_tests_come_from_the_command_line(model, recordings, tmp_path):
    out = tmp_path / "licence.json"
    asked = ["--model", str(model), "--recording", *map(str, recordings[:2]), "--json", str(out)]
    assert main(["evaluate", "--licence", *asked]) == 0
    report = json.loads(out.read_text())
    assert {s["signal"] for s in report["earned"]["signals"]} == {s["signal"] for s in report["enforced"]["signals"]}
    assert all(s["reasons"] for s in report["earned"]["signals"] if s["level"] == "observe")
    assert {"manipulated", "controlled", "gain", "dead_s", "settling_s"} <= set(report["responses"][0])
    assert main(["evaluate", "--licence", "--model", str(model), "--json", str(out)]) == 0
    assert set(json.loads(out.read_text())) == {"enforced"}
    assert main(["steptest", *asked]) == 0
    tests = json.loads(out.read_text())["tests"]
    assert all(t["refused"] or t["schedule"] for t in tests)
    assert main(["evaluate", "--licence", "--model", str(model), "--without", "audio"]) == 2
