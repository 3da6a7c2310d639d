"""Setpoints that are known to change: from the plant file to plan, advice, question and ledger."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from control_worlds import HORIZON_S, LinearWorld, small_plant

from control.advice.advisor import Advisor, AdvisorConfig
from control.advice.constraints import ConstraintConfig
from control.advice.ledger import Ledger
from control.advice.licence import Level, Licence, SignalLicence
from control.advice.objective import ObjectiveConfig
from control.advice.planner import Planner, PlannerConfig
from control.advice.prospect import foresee
from control.advice.situation import Situation
from fusion.clock import iso_time
from fusion.errors import ConfigError
from fusion.plant import plant_to_dict
from fusion.plant_file import dump_plant, load_plant, plant_from_dict
from fusion.prospects import Question
from fusion.records import NS_PER_S, Verdict
from fusion.targets import Change, Target

NOW_S = 1_790_000_000
STAYS = Target(signal="T", setpoint=80.0, scale=2.0, weight=1.0)


def at(seconds, setpoint):
    return Change(at=iso_time((NOW_S + seconds) * NS_PER_S), setpoint=setpoint)


def known(*changes):
    return small_plant((replace(STAYS, schedule=changes),))


def plan(plant, t_s=NOW_S, **settings):
    config = PlannerConfig(constraints=ConstraintConfig(largest_step=1.0), **settings)
    world = LinearWorld()
    return Planner(config, plant, world).plan(world, t_ns=None if t_s is None else t_s * NS_PER_S)


def test_a_setpoint_that_will_change_is_approached_in_time():
    """At half a degree a step, ten steps after a change that nobody knew of would be lost."""
    told = plan(known(at(200, 85.0)), knots=6)
    assert float(told.action[0, 0]) == pytest.approx(80.0, abs=0.6)
    assert float(told.action[19, 0]) > 82.0
    assert float(told.expected[-1, 0]) == pytest.approx(85.0, abs=0.6)
    late = plan(known(at(200, 85.0)), t_s=None, knots=6)
    assert torch.equal(late.action, torch.tensor([80.0, 0.6]).expand(60, 2))


def test_what_has_changed_holds_and_what_lies_beyond_the_horizon_does_not_matter():
    assert float(plan(known(at(-3600, 76.0), at(-60, 84.0))).target[0]) == pytest.approx(84.0, abs=0.8)
    assert float(plan(known(at(601, 85.0))).target[0]) == 80.0


def test_the_setpoint_of_a_manipulated_signal_may_be_scheduled_too():
    target = Target(signal="T.SP", setpoint=80.0, scale=2.0, weight=1.0, schedule=(at(0, 84.0),))
    assert float(plan(small_plant((target,))).target[0]) == pytest.approx(84.0, abs=0.3)


def test_advice_and_answers_know_the_schedule():
    world, plant = LinearWorld(), known(at(100, 86.0))
    licence = Licence(signals={n: SignalLicence(signal=n, level=Level.ADVISE) for n in world.manipulated})
    config = AdvisorConfig()
    made = Advisor(config, plant, Planner(config.planner, plant, world), licence, "m", lambda: NOW_S * NS_PER_S)
    advice = made.advise(world, Situation(t_ns=NOW_S * NS_PER_S))
    assert advice.verdict is Verdict.ADVISE
    assert advice.moves[0].recommended > 82
    question = Question(id="q", moves={"T.SP": 85.0})
    assert foresee(question, world, plant, NOW_S * NS_PER_S, config.planner).gain[0] > 0
    assert foresee(question, world, plant, (NOW_S - 3600) * NS_PER_S, config.planner).gain[0] < 0


def test_what_came_is_costed_by_the_setpoints_of_its_time():
    """A plant that goes where it was promised to go delivers, though the setpoint changed under way."""
    world, plant = LinearWorld(), known(at(30, 85.0))
    licence = Licence(signals={n: SignalLicence(signal=n, level=Level.ADVISE) for n in world.manipulated})
    config = AdvisorConfig()
    made = Advisor(config, plant, Planner(config.planner, plant, world), licence, "m", lambda: NOW_S * NS_PER_S)
    advice = made.advise(world, Situation(t_ns=NOW_S * NS_PER_S))
    book = Ledger(plant, ObjectiveConfig(), 0.01)
    book.issue(advice)
    aim, hours = advice.moves[0].recommended, [0.0, *HORIZON_S]
    for t in range(640):
        course = [np.interp(t, hours, [y, *advice.expected.mean[:, i]]) for i, y in enumerate((80.0, 0.6, 0.5))]
        book.see((NOW_S + t) * NS_PER_S, np.array(course), np.array([min(80.0 + 0.05 * t, aim), 0.6, 0.0]))
    entry = book.entries[-1]
    assert entry.note == ""
    assert entry.delivered == pytest.approx(entry.gain, rel=0.2)


def test_a_plant_file_keeps_its_schedule_and_its_fingerprint(tmp_path):
    plant = known(at(0, 82.0), at(3600, 85.5))
    dump_plant(plant, tmp_path / "plant.yaml")
    assert load_plant(tmp_path / "plant.yaml") == plant
    assert plant.fingerprint == small_plant().fingerprint
    assert json.loads(json.dumps(plant_to_dict(plant)))["targets"][0]["schedule"][1]["setpoint"] == 85.5


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("[{at: tomorrow, setpoint: 82}]", "targets: 'T': schedule: at 'tomorrow' is no time with a zone"),
        ("[{at: 2026-11-30T06:00:00, setpoint: 82}]", "T06:00:00' is no time with a zone; expected one such as"),
        ("[{at: 2026-11-30T06:00:00Z, setpoint: 182}]", "setpoint 182 is outside its range, 0 to 120"),
        ("[{at: 2026-11-30T06:00:00Z}]", r"schedule\[0\]\.setpoint: missing"),
        (
            "[{at: 2026-11-30T06:00:00Z, setpoint: 82}, {at: 2026-11-30T05:00:00Z, setpoint: 83}]",
            "2026-11-30T05:00:00Z is not after the change before it",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_what_is_wrong(schedule, said):
    plain = plant_to_dict(known())
    plain["targets"][0]["schedule"] = yaml.load(schedule, yaml.BaseLoader)
    with pytest.raises(ConfigError, match=said):
        plant_from_dict(plain)


def test_a_schedule_begins_with_a_setpoint():
    with pytest.raises(ConfigError, match="schedule without a setpoint"):
        Target(signal="T", schedule=(at(0, 82.0),))


def test_a_planner_in_the_benchmark_hears_what_was_taken():
    """Of two advices one is taken, an interval later: what is on its way is never one that was not."""
    from tests.benchmarks.control_loop import Delivery, closed_loop
    from tests.benchmarks.control_plants import reactor

    asked, in_force, heard = [], [], []

    def policy(i, _seen, action, coming):
        asked.append(296.0 + 0.1 * i)
        in_force.append(float(action[0]))
        heard.append(float(coming[0][0]))
        return np.array([asked[-1]])

    closed_loop(reactor(), policy, 0, Delivery(late=1, accepted=0.5))
    taken = np.random.default_rng(2000).random(len(asked)) < 0.5
    assert 0 < taken.sum() < len(asked)
    wanted = [298.5]
    for i in range(len(asked)):
        wanted.append(asked[i] if taken[i] else wanted[-1])
    assert heard == pytest.approx(wanted[:-1])
    assert in_force[1:] == pytest.approx(wanted[: len(asked) - 1])
