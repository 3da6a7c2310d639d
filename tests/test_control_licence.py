import json

import numpy as np
import pytest
from control_worlds import LinearWorld, small_plant

from control.advice.excitation import Excitation, excitations
from control.advice.gains import GainConfig, check_gains, model_gains
from control.advice.licence import Level, Licence, LicenceConfig, Skill, grant
from fusion.errors import ConfigError
from fusion.plant import Gain

MOVED = Excitation(moves=40, hours=10.0, span=0.1, feedback=0.0)
QUIET = Excitation(moves=0, hours=100.0, span=0.001, feedback=0.99)
GOOD = Skill(model=0.35, arx=0.36, shuffled=0.6)
SKILL = {"T": GOOD, "L": GOOD}
EXCITED = {"T.SP": MOVED, "L.SP": MOVED}


def card(plant=None, worlds=None):
    plant = plant or small_plant()
    worlds = worlds or [LinearWorld(), LinearWorld(state=(84.0, 0.5, 0.6), action=(84.0, 0.5))]
    measured = np.stack([model_gains(w, plant) for w in worlds])
    return check_gains(measured, worlds[0].manipulated, worlds[0].signals, plant)


def test_gains_are_those_of_the_world():
    measured = model_gains(LinearWorld(), small_plant())
    assert measured == pytest.approx(np.array([[1.0, 0.0, 0.02], [0.0, 1.0, 0.0]]), abs=0.03)
    at_wall = model_gains(LinearWorld(action=(90.0, 0.8)), small_plant())
    assert at_wall[0, 0] == pytest.approx(1.0, abs=0.03)


def test_gains_are_checked_as_far_as_plans_look_ahead():
    """Beyond that a model may know nothing: it is not asked."""
    world, plant = LinearWorld(lag_s=600.0), small_plant()
    world.course_s = world.course_s[:30]
    world._weights[world.course_s] = world._weights[LinearWorld().course_s][:30]
    measured = model_gains(world, plant)
    assert measured[0, 0] == pytest.approx(1 - np.exp(-(300 - 10) / 600), abs=0.03)


def test_an_answer_of_one_signal_shows_that_a_model_heeds_actions():
    slow = Skill(model=0.3, arx=0.3, shuffled=0.3)
    assert grant(small_plant(), EXCITED, card(), {"T": GOOD, "L": slow, "F": slow}).level is Level.ADVISE
    assert grant(small_plant(), EXCITED, card(), {"T": slow, "L": slow, "F": slow}).level is Level.OBSERVE


def test_a_good_model_is_licensed_to_advise():
    licence = grant(small_plant(), EXCITED, card(), SKILL, coverage=0.9)
    assert licence.level is Level.ADVISE
    assert licence.allowed() == ("T.SP", "L.SP")
    assert licence.reasons == ()


@pytest.mark.parametrize(
    ("gain", "reason"),
    [
        (((-1.0, 0.0), (0.0, 1.0), (0.0, 0.0)), "sign"),
        (((0.2, 0.0), (0.0, 1.0), (0.0, 0.0)), "below"),
        (((9.0, 0.0), (0.0, 1.0), (0.0, 0.0)), "above"),
        (((0.0, 0.0), (0.0, 1.0), (0.0, 0.0)), "sign"),
    ],
)
def test_a_wrong_gain_blocks_its_signal_only(gain, reason):
    licence = grant(small_plant(), EXCITED, card(worlds=[LinearWorld(gain=gain)]), SKILL)
    assert licence.allowed() == ("L.SP",)
    assert licence.signals["T.SP"].level is Level.SHADOW
    assert any(reason in r and "T.SP -> T" in r for r in licence.signals["T.SP"].reasons)


def test_gains_that_are_not_finite_pass_nothing():
    broken = LinearWorld(gain=((float("nan"), 0.0), (0.0, 1.0), (0.0, 0.0)))
    verdicts = card(worlds=[broken])
    assert [v.passed for v in verdicts] == [False, True, False]
    assert "not finite" in verdicts[0].reason


def test_a_gain_on_a_declared_zero_blocks_its_signal():
    cross = LinearWorld(gain=((1.0, 20.0), (0.0, 1.0), (0.0, 0.0)))
    licence = grant(small_plant(), EXCITED, card(worlds=[cross]), SKILL)
    assert licence.allowed() == ("T.SP",)
    assert "no effect declared" in licence.signals["L.SP"].reasons[0]
    weak = LinearWorld(gain=((1.0, 2.0), (0.0, 1.0), (0.0, 0.0)))
    assert grant(small_plant(), EXCITED, card(worlds=[weak]), SKILL).allowed() == ("T.SP", "L.SP")


def test_a_wrong_sign_at_one_of_a_few_operating_points_blocks():
    worlds = [LinearWorld(), LinearWorld(gain=((-1.0, 0.0), (0.0, 1.0), (0.0, 0.0))), LinearWorld()]
    assert not card(worlds=worlds)[0].passed
    lenient = check_gains(
        np.stack([model_gains(w, small_plant()) for w in worlds]),
        worlds[0].manipulated,
        worlds[0].signals,
        small_plant(),
        GainConfig(agree=0.6),
    )
    assert lenient[0].passed


def test_quiet_data_give_observe_and_name_the_step_test():
    licence = grant(small_plant(), {"T.SP": QUIET, "L.SP": MOVED}, card(), SKILL)
    assert licence.signals["T.SP"].level is Level.OBSERVE
    assert "step test" in licence.signals["T.SP"].reasons[0]
    assert licence.signals["L.SP"].level is Level.ADVISE
    assert grant(small_plant(), {}, card(), SKILL).level is Level.OBSERVE


@pytest.mark.parametrize(
    ("skill", "level", "reason"),
    [
        (Skill(model=0.7, arx=0.8, shuffled=1.0), Level.SHADOW, "of persistence"),
        (Skill(model=0.45, arx=0.40, shuffled=1.0), Level.SHADOW, "worse than ARX"),
        (Skill(model=float("nan"), arx=0.4, shuffled=1.0), Level.OBSERVE, "shuffled"),
        (Skill(model=0.4, arx=0.4, shuffled=0.4), Level.OBSERVE, "shuffled"),
        (Skill(model=0.4, arx=0.4), Level.OBSERVE, "shuffled"),
    ],
)
def test_errors_on_perturbed_windows_decide(skill, level, reason):
    licence = grant(small_plant(), EXCITED, card(), {"T": skill, "L": skill})
    assert licence.level is level
    assert any(reason in r for r in licence.signals["T.SP"].reasons)


def test_bands_and_the_ceiling_cap_the_level():
    assert grant(small_plant(), EXCITED, card(), SKILL, coverage=0.6).level is Level.SHADOW
    quiet = LicenceConfig(ceiling=Level.SHADOW)
    assert grant(small_plant(), EXCITED, card(), SKILL, config=quiet).level is Level.SHADOW
    assert grant(small_plant(), EXCITED, card(), SKILL).level is Level.ADVISE


def test_a_signal_without_declared_gain_stays_in_shadow():
    plant = small_plant(gains=(Gain(manipulated="T.SP", controlled="T", sign=1),))
    licence = grant(plant, EXCITED, card(plant), SKILL)
    assert licence.signals["L.SP"].level is Level.SHADOW
    assert "refill" not in licence.signals


def test_a_licence_survives_json_and_is_only_ever_demoted():
    licence = grant(small_plant(), EXCITED, card(), SKILL, coverage=0.9)
    again = Licence.from_dict(json.loads(json.dumps(licence.to_dict(), allow_nan=False)))
    assert again.signals == licence.signals
    assert again.level is Level.ADVISE
    lower = again.demoted(Level.SHADOW, "bands drifted")
    assert lower.allowed() == ()
    assert lower.signals["T.SP"].reasons[-1] == "bands drifted"
    assert lower.demoted(Level.ADVISE, "no").level is Level.SHADOW
    with pytest.raises(ConfigError, match="observe, shadow"):
        Licence.from_dict({"signals": [{"signal": "x", "level": "all", "reasons": []}], "reasons": [], "numbers": {}})


def historian(moves, hours=6, seed=0, dither=0.0):
    """A first-order plant under PI control that writes T.SP as its actuator, and L.SP that rests."""
    rng = np.random.default_rng(seed)
    ticks = hours * 3600
    y, integral, setpoint, disturbance = 80.0, 80.0, 80.0, 0.0
    u, outputs = np.zeros((ticks, 2)), np.zeros((ticks, 1))
    for t in range(ticks):
        disturbance = 0.999 * disturbance + 0.02 * rng.standard_normal()
        seen = y + 0.02 * rng.standard_normal()
        if moves and t % 300 == 0:
            setpoint = 80 + rng.uniform(-4, 4)
        integral += 0.01 * (setpoint - seen)
        u[t] = np.clip(integral + 0.5 * (setpoint - seen) + dither * rng.standard_normal(), 70, 90), 0.6
        y += 0.02 * (u[t, 0] + disturbance - y)
        outputs[t] = seen
    return u, outputs


def test_a_quiet_loop_has_no_exogenous_moves():
    quiet = excitations([historian(moves=False)], ("T.SP", "L.SP"), small_plant())
    assert quiet["T.SP"].moves < 10
    assert quiet["T.SP"].feedback > 0.9
    assert quiet["L.SP"].moves == 0
    assert grant(small_plant(), quiet, card(), SKILL).level is Level.OBSERVE


def test_the_same_loop_with_operator_moves_or_dither_is_identifiable():
    moved = excitations([historian(moves=True)], ("T.SP", "L.SP"), small_plant())
    assert moved["T.SP"].moves >= 40
    assert grant(small_plant(), moved, card(), SKILL).allowed() == ("T.SP",)
    dithered = excitations([historian(moves=False, dither=1.0, hours=2)], ("T.SP", "L.SP"), small_plant())
    assert dithered["T.SP"].moves > 100


def test_setpoints_that_an_operator_steps_count_even_if_an_output_follows_at_once():
    rng = np.random.default_rng(1)
    steps = 80 + np.repeat(rng.uniform(-4, 4, 30), 200)
    u = np.stack([steps, np.full(6000, 0.6)], axis=1)
    found = excitations([(u[:3000], u[:3000, :1]), (u[3000:], u[3000:, :1])], ("T.SP", "L.SP"), small_plant())
    assert found["T.SP"].moves >= 27
    assert found["T.SP"].span > 0.05


def test_bad_runs_and_thresholds_are_refused():
    with pytest.raises(ConfigError, match="ticks"):
        excitations([(np.zeros((3, 2)), np.zeros((3, 1)))], ("T.SP", "L.SP"), small_plant())
    with pytest.raises(ConfigError, match="least_moves"):
        LicenceConfig(least_moves=0)
