"""What of the Tennessee Eastman benchmark needs no simulator: its plant file, its cost, its loop on a made-up plant."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fusion.plant_file import dump_plant, load_plant
from tests.benchmarks import control_te
from tests.benchmarks.te_plant import COST, LIMITS, SETPOINTS, STEP_S, operating_cost, rate_of, te_plant

BASE = dict(zip(range(29, 37), (32.958, 13.823, 23.978, 1.2565, 18.579, 2.2633, 4.8436, 2.2986), strict=True))
BASE |= {10: 0.33712, 17: 22.949, 19: 230.31, 20: 341.43, 37: 0.01787, 38: 0.83570, 39: 0.09858}
"""XMEAS of the base case, as published."""


class Tep:
    """A stand-in with the simulator's interface: everything rests, and it shuts down after some minutes."""

    def __init__(self, lasts=10**6):
        self.lasts, self.minutes, self.faults = lasts, 0, []

    def initialize(self):
        loops = {f"ctrl{s.loop}": SimpleNamespace(setpoint=s.base) for s in SETPOINTS.values()}
        self.controller, self.minutes = SimpleNamespace(**loops), 0

    def step(self, seconds):
        assert seconds == 60
        self.minutes += 1
        return self.minutes < self.lasts

    def set_disturbance(self, number, value):
        self.faults.append((number, value, self.minutes))

    def get_measurements(self):
        measured = np.zeros(41)
        for i, value in BASE.items():
            measured[i - 1] = value
        measured[6] = 2705.0 if self.minutes < 100 else 2900.0
        return measured

    def get_manipulated_vars(self):
        return np.full(12, 50.0)


def test_the_base_case_costs_what_is_published():
    measured = [BASE.get(i, 0.0) for i in range(1, 42)]
    assert operating_cost(measured) == pytest.approx(170.6, abs=0.2)
    measured[9] *= 2
    assert operating_cost(measured) == pytest.approx(170.6 + 114.3, abs=1.0)


def test_the_plant_file_loads_and_every_setpoint_is_within_its_range(tmp_path):
    plant = te_plant()
    dump_plant(plant, tmp_path / "plant.yaml")
    assert load_plant(tmp_path / "plant.yaml") == plant
    assert [s.name for s in plant.tags] + [s.name for s in plant.actions] == list(control_te.NAMES)
    assert {t.signal for t in plant.targets} == {COST, *LIMITS}
    for name, s in SETPOINTS.items():
        assert s.low < s.base < s.high
        assert plant.by_name[name].max_rate == rate_of(s)


def test_setpoints_go_where_they_are_asked_to_at_their_rates():
    plant = control_te.TePlant(Tep())
    plant.aims["PURGE_B.SP"] = 15.0
    step = rate_of(SETPOINTS["PURGE_B.SP"]) * STEP_S
    plant.advance()
    assert plant.setpoint("PURGE_B.SP") == pytest.approx(13.823 + step)
    for _ in range(40):
        plant.advance()
    assert plant.setpoint("PURGE_B.SP") == 15.0
    assert plant.setpoint("REACTOR_TEMP.SP") == 120.4


def test_a_case_is_scored_until_it_shuts_down_and_its_fault_comes_after_an_hour():
    made = []

    def make(seed):
        made.append(Tep(lasts=200))
        return made[-1]

    told = control_te.run(make, "idv6", None, seed=3)
    assert made[0].faults == [(6, 1, 60)]
    assert told["shutdown_h"] == 3.33
    assert told["minutes_beyond"]["XMEAS(7)"] == 100
    assert told["cost"] == pytest.approx(170.6, abs=0.2)


def test_history_is_seeded_and_brings_a_high_pressure_down():
    one, two = (control_te.history(lambda _: Tep(), 4.0, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert len(one) == 240
    level = one[:, control_te.NAMES.index("REACTOR_LEVEL.SP")]
    assert level[-1] == SETPOINTS["REACTOR_LEVEL.SP"].low
    batch = control_te.batch(one, 7)
    assert len(batch) == one.size
    assert batch.value[batch.index == 0].shape == (240,)


def test_without_the_simulator_a_sentence_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tep", None)
    with pytest.raises(SystemExit, match="simulator `tep` is missing .* --tep DIR"):
        control_te.simulator(tmp_path)
