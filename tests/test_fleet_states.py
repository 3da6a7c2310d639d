"""Hidden states: what is true of them in the simulator, how the fleet model tells them, and the wire to readers."""

import dataclasses
import json

import numpy as np
import pytest
from fleet_members import small_fleet, small_plant
from small_plants import SMALL, small_values

from fusion.cli import main
from fusion.command import CONFIGS
from fusion.daemon import condition as wired
from fusion.daemon.condition import Condition, condition_of
from fusion.daemon.fleet import FleetForecastConfig
from fusion.daemon.progression import FILE, Progress
from fusion.daemon.seat import Seat
from fusion.dashboard.board import Board
from fusion.dashboard.progression import progression, progression_lines, trend_text
from fusion.errors import ConfigError
from fusion.fleet.command import fleet_config
from fusion.fleet.plants import ticks_of
from fusion.fleet.worn import STATES, Worn, later_day, lives
from fusion.plant_file import load_plant
from fusion.publish.messages import encode
from fusion.publish.progression import progression_message
from fusion.records import NS_PER_S
from fusion.simulator.fleet import Fleet
from fusion.simulator.line.condition import WEAR, condition
from fusion.simulator.scenario import FaultEvent, Scenario
from fusion.trends import DriftTrend, LimitSource, Progression
from models.fleet import guest
from models.fleet.model import SHIPPED, FleetModel, shipped
from models.fleet.states import State, window
from models.fleet.states_fit import Day, Life, fit_states

LINE = load_plant(CONFIGS / "plant" / "lime.yaml")
BIAS = State(name="bias", words="reading of the flow meter", unit="%")
HOUR_NS = 3600 * NS_PER_S


# --- what is true


def test_the_line_tells_what_wears_as_it_ramps():
    ramp = FaultEvent(name="line_scaling", onset_s=10.0, ramp_s=20.0, severity=0.5)
    drift = FaultEvent(name="thermometer_drift", onset_s=0.0, severity=0.5)
    fleet = Fleet(
        [Scenario(media=False, warmup_s=5.0), Scenario(media=False, warmup_s=5.0, faults=(ramp, drift))], LINE
    )
    truth = []
    for _ in range(40):
        fleet.second()
        truth.append(condition(fleet.line))
    states = dict(zip(WEAR, np.moveaxis(np.array(truth), 1, 0), strict=True))
    assert states["line_friction"][:, 0] == pytest.approx(1.0)
    assert states["line_friction"][[5, 20, -1], 1] == pytest.approx([1.0, 1.75, 2.5])
    assert states["thermometer_bias"][-1] == pytest.approx([0.0, -3.0])
    assert np.ptp(states["reactivity"][:, 0]) > 0, "the lime's own wander is part of the truth"


def test_half_of_the_later_days_are_worn_and_the_truth_stands_beside_each_tick():
    plan = Worn(plants=4, days=1, commissioning_s=20, day_s=20)
    days = [later_day(seed, day, plan) for seed in range(100) for day in (1, 2)]
    assert 0.4 < np.mean([bool(day.faults) for day in days]) < 0.6
    assert len({day.seed for day in days}) == len(days), "each has its own weather"
    made = lives(LINE, plan, lambda text: None)
    for i, one in enumerate(made):
        standing = {f.name for f in later_day(1000 + i, 1, plan).faults if f.onset_s < 0}
        changed = np.abs(one.later[0].truth[0] - [1, 1, 1, 1, 1, 0]) > 0.01
        assert [name for name, so in zip(list(WEAR)[1:], changed[1:], strict=True) if so] == [
            name for name in list(WEAR)[1:] if WEAR[name].fault in standing
        ]
    for life in made:
        assert life.first.truth.shape == (20, len(STATES)) == (len(life.first.ticks), len(STATES))
        assert life.first.truth[:, 1:] == pytest.approx(np.tile([1.0, 1.0, 1.0, 1.0, 0.0], (20, 1)))
    with pytest.raises(ConfigError, match="plants, days"):
        Worn(days=0)


# --- how it is told


def biased(seed, ticks, factor=1.0):
    """The small plant with a flow meter that reads so many times the flow."""
    values = dict(small_values(seed, ticks))
    values["FT1"] = values["FT1"] * factor
    return ticks_of(small_plant(seed % 100), np.stack([values[s.name] for s in SMALL.signals], 1))


def life(seed, factor):
    def day(number, size):
        ticks = biased(seed + 100 * number, 1300, size)
        return Day(ticks=ticks, truth=np.full((len(ticks), 1), size))

    return Life(plant=small_plant(seed), first=day(0, 1.0), later=(day(1, 1.0), day(2, factor)))


@pytest.fixture(scope="module")
def fleet():
    made = small_fleet()
    seen = [life(seed, factor) for seed, factor in enumerate(np.linspace(0.8, 1.25, 16))]
    return dataclasses.replace(made, states=fit_states(made.ridge.kinds, seen, (BIAS,), lambda text: None))


def told(fleet, plant, first, present):
    kinds = fleet.ridge.kinds
    return fleet.states.tell(window(kinds, plant, first), window(kinds, plant, present))[0]


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
def test_a_meter_that_drifts_is_told_of_a_plant_that_no_training_saw(fleet, factor):
    one = told(fleet, small_plant(77), biased(77, 1800), biased(177, 1200, factor))
    assert one.low < one.value < one.high
    assert one.value == pytest.approx(100 * (factor - 1), abs=3.0)
    assert one.changed is (factor != 1.0)


def test_nothing_is_told_where_it_cannot_be_known(fleet):
    plant, first, present = small_plant(77), biased(77, 1800), biased(177, 1200)
    wordless = dataclasses.replace(plant, signals=tuple(dataclasses.replace(s, description="") for s in plant.signals))
    assert told(fleet, wordless, first, present) is None
    silent = dataclasses.replace(present, observed=present.observed & np.array([True, False, True]))
    assert told(fleet, plant, first, silent) is None
    beyond = biased(177, 1200, 4.0)
    assert told(fleet, plant, first, beyond) is None, "no training plant did such a thing"


def test_a_state_that_no_relation_tells_is_left_out_and_few_plants_are_refused(fleet):
    noise = np.random.default_rng(3).uniform(0.5, 1.5, 16)
    seen = [
        dataclasses.replace(
            one, later=tuple(dataclasses.replace(d, truth=np.full_like(d.truth, size)) for d in one.later)
        )
        for one, size in zip((life(seed, 1.0) for seed in range(16)), noise, strict=True)
    ]
    said = []
    assert fit_states(fleet.ridge.kinds, seen, (BIAS,), said.append).readings == ()
    assert "so it is not told" in said[0]
    with pytest.raises(ConfigError, match="3 plants with words and ranges; 10 are the least"):
        fit_states(fleet.ridge.kinds, seen[:3], (BIAS,), said.append)


def test_the_head_is_the_same_after_it_was_at_rest(fleet, tmp_path):
    fleet.save(tmp_path / "m")
    again = FleetModel.load(tmp_path / "m")
    asked = (small_plant(77), biased(77, 1800), biased(177, 1200, 1.1))
    assert told(again, *asked) == told(fleet, *asked)


def test_the_shipped_lines_tell_states_and_the_command_refuses_what_has_none(tmp_path, capsys):
    able = [FleetModel.load(folder) for folder in shipped()]
    head = next(model.states for model in able if model.states is not None)
    assert {"line_friction", "scale_bias"} <= {reading.state.name for reading in head.readings}
    assert (
        main(["fleet", "train", "--model", str(SHIPPED / "lines"), "--flowsheets", "3", "--out", str(tmp_path / "o")])
        == 2
    )
    assert "--model: hidden states are learned from simulated lines alone" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="worn_days"):
        fleet_config(["worn_days=-1"])


# --- in the daemon


@pytest.fixture
def believed(monkeypatch):
    """A fleet of seconds is not always borne out by a plant's first minutes."""
    monkeypatch.setattr(guest, "LEAST_WORTH", -np.inf)


def lived(progress, first, *runs):
    """The last word of each hour: the first half hour, and runs of so many seconds each in the hours after it."""
    said, at = [], 0
    for run in (first, *runs):
        for t in range(len(run)):
            tick = dataclasses.replace(run[t : t + 1], t_ns=np.array([HOUR_NS * 400_000 + (at + t + 1) * NS_PER_S]))
            if (made := progress.step(tick, None)) is not None:
                said.append(made)
            if progress._condition is not None and progress._condition._asking is not None:
                progress._condition._asking.result(60)
        at += len(run)
    return said


@pytest.fixture
def folder(fleet, tmp_path):
    fleet.save(tmp_path / "m")
    return tmp_path / "m"


def of(folder):
    return condition_of(FleetForecastConfig(model=str(folder)), small_plant(77))


def test_the_daemon_says_what_has_changed_goes_on_after_a_restart_and_begins_anew_after_maintenance(
    believed, folder, tmp_path
):
    file = tmp_path / FILE
    progress = Progress(small_plant(77), file, "small", condition=of(folder))
    said = lived(progress, biased(77, 1900), biased(177, 3600, 1.15))
    assert said[0].states == (), "the first half hour is what later ones are compared with"
    (state,) = said[-1].states
    assert state.changed
    assert state.low < 15.0 < state.high
    assert said[-1].states_since_ns == HOUR_NS * 400_000 + 1800 * NS_PER_S
    names = [q.name for q in progress._quantities.all]
    assert "condition.bias" in names
    assert progress._limits(None).source[names.index("condition.bias")] is LimitSource.FLEET
    progress.close()
    again = Progress(small_plant(77), file, "small", condition=of(folder))
    assert again._condition.first is not None
    assert again._condition.first.until_ns == said[-1].states_since_ns
    Seat(small_plant(77), progress=again).maintained(HOUR_NS * 400_002)
    assert (again._condition.first, again._condition.told) == (None, ())
    again.close()


def test_a_plant_of_another_kind_is_told_nothing(folder, monkeypatch):
    monkeypatch.setattr(guest, "LEAST_WORTH", np.inf)
    progress = Progress(small_plant(77), condition=of(folder))
    said = lived(progress, biased(77, 1900), biased(177, 3600, 1.15))
    assert progress._condition.first is None
    assert progress._condition._since_ns > HOUR_NS * 400_023, "it is asked again in a day"
    assert all(one.states == () for one in said)
    progress.close()


def test_without_a_model_that_tells_states_there_is_none(folder, fleet, tmp_path):
    dataclasses.replace(fleet, states=None).save(tmp_path / "plain")
    assert of(tmp_path / "plain") is None
    assert condition_of(FleetForecastConfig(enabled=False), small_plant(77)) is None
    assert (
        condition_of(FleetForecastConfig(model=str(folder)), dataclasses.replace(small_plant(77), step_s=60.0)) is None
    )


def test_states_are_said_in_plain_words_and_their_trend_as_any_other():
    known = {"unit": "%", "value": -22.0, "low": -30.0, "high": -15.0, "changed": True}
    states = (
        wired.HiddenState(name="reactivity of the lime", **known),
        wired.HiddenState(name="reading of the belt scale", **(known | {"changed": False})),
    )
    quantity = wired.Quantity(
        name="condition.reactivity", kind=wired.QuantityKind.CONDITION, signal="reactivity of the lime", unit="%"
    )
    drift = DriftTrend(
        quantity=quantity, level=-22.0, per_day=(-3.0, -2.0, -1.0), limit=-40.0, limit_source=LimitSource.FLEET,
        days=(6.0, 9.0, 18.0), since_ns=HOUR_NS,
    )  # fmt: skip
    said = Progression(t_ns=HOUR_NS, trends=(drift,), watched=3, seen_days=9.0, states=states, states_since_ns=1)
    message = progression_message(said, SMALL, "m")
    board = Board(SMALL, 60.0)
    board.take("fusion/small/v1/progression", encode(message))
    lines = progression_lines(board)
    assert lines[0] == "Reactivity of the lime: 22 % (15 to 30) below what it was at first"
    assert lines[1] == "1 hidden state is as at first"
    assert lines[0] in progression(board)
    assert trend_text(board, board.progression.trends[0]) == (
        "The reactivity of the lime is 22 % below what it was at first, falling 2 % a day; would be as far off as on "
        "the most worn plants of the fleet in 9 days (6 to 18)"
    )
    assert json.loads(encode(message))["states"][0]["low"] == -30.0


def test_a_head_is_asked_of_a_model_that_has_one(fleet):
    with pytest.raises(ValueError, match="tells no hidden states"):
        Condition(dataclasses.replace(fleet, states=None), small_plant(77), ())
