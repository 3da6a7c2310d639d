from dataclasses import replace

import pytest
import torch
from control_worlds import LinearWorld, small_plant

from control.advice.advisor import Advisor, AdvisorConfig
from control.advice.licence import Level, Licence, SignalLicence
from control.advice.planner import Planner, PlannerConfig
from control.advice.situation import Situation
from fusion.errors import ConfigError
from fusion.records import Anomaly, AnomalyKind, AnomalyState, Answer, AnswerKind, HoldReason, SignalBlame, Verdict
from fusion.targets import Target

S = 1_000_000_000
ANOMALY = Anomaly(
    id="a",
    t_onset_ns=0,
    t_ns=0,
    state=AnomalyState.HELD,
    p_value=1e-5,
    kind=AnomalyKind.PROCESS,
    by_modality={"process": 1.0},
    top_signals=(SignalBlame(signal="T", residual=1.0, share=1.0),),
    energies=(),
    model_id="m",
)


class Desk:
    """An advisor with a clock that stands where the situation does."""

    def __init__(self, world=None, plant=None, level=Level.ADVISE, **settings):
        self.world = world or LinearWorld()
        self.plant = plant or small_plant()
        config = AdvisorConfig(**{"planner": PlannerConfig(samples=64, elites=8), **settings})
        signals = {n: SignalLicence(signal=n, level=level, reasons=("why",)) for n in self.world.manipulated}
        self.now_ns = 0
        self.situation = {}
        planner = Planner(config.planner, self.plant, self.world)
        self.advisor = Advisor(config, self.plant, planner, Licence(signals=signals), "m", lambda: self.now_ns)

    def ask(self, t=0, world="own", **situation):
        self.now_ns = t * S
        self.news = self.advisor.advise(self.world if world == "own" else world, Situation(t_ns=t * S, **situation))
        return self.advisor.said


def test_advice_says_all_that_an_operator_needs():
    desk = Desk()
    advice = desk.ask(10)
    assert advice.verdict is Verdict.ADVISE
    assert advice.reason is None
    (move,) = advice.moves
    assert (move.signal, move.unit, move.low, move.high, move.rate) == ("T.SP", "Cel", 70, 90, 0.05)
    assert move.recommended == pytest.approx(85.0, abs=0.5)
    assert "T.SP 80 -> 8" in advice.text
    assert advice.valid_until_ns == 310 * S
    assert advice.rollback == pytest.approx({"T.SP": 80.0, "L.SP": 0.6})
    assert advice.requires == ("T.SP: loop in automatic and taking a setpoint",)
    assert advice.gain_low > 0
    assert advice.expected.mean.shape == (10, 3)
    assert advice.expected.signals == ("T", "L", "F")
    assert (advice.baseline.high > advice.baseline.mean).all()
    assert advice.licence == "advise"
    assert advice.plant_fingerprint == desk.plant.fingerprint


def test_an_advice_stands_until_it_expires():
    desk = Desk()
    first = desk.ask(0)
    assert desk.ask(200) is first
    again = desk.ask(301)
    assert again.sequence > first.sequence
    assert again.id != first.id


def test_an_applied_advice_is_not_repeated_at_once():
    desk = Desk()
    desk.ask(0)
    desk.world.current_action = torch.tensor([85.0, 0.6])
    held = desk.ask(60)
    assert held.reason is HoldReason.RATE_LIMITED


def test_an_advice_falls_with_the_licence_or_the_loop_it_needs():
    for lose in (
        lambda desk: setattr(desk.advisor, "licence", desk.advisor.licence.demoted(Level.SHADOW, "drifted")),
        lambda desk: desk.situation.update(available={"T.SP": False}),
    ):
        desk = Desk()
        assert desk.ask(0).moves[0].signal == "T.SP"
        lose(desk)
        after = desk.ask(30, **desk.situation)
        assert "T.SP" not in {move.signal for move in after.moves}
    demoted = Desk()
    demoted.ask(0)
    demoted.advisor.licence = demoted.advisor.licence.demoted(Level.SHADOW, "drifted")
    assert "drifted" in demoted.ask(30).text


def test_an_overtaken_advice_falls():
    desk = Desk()
    first = desk.ask(0)
    desk.world.current_action = torch.tensor([78.0, 0.6])
    assert desk.ask(60).id != first.id


def hold(desk, **ask):
    found = desk.ask(**{"t": 5, **ask})
    assert found.verdict is Verdict.HOLD
    assert found.moves == ()
    assert found.text.startswith("Hold: ")
    return found.reason


def test_hold_for_stale_data():
    assert hold(Desk(), stale=("T",)) is HoldReason.STALE_DATA
    assert hold(Desk(), stale=("L.SP",)) is HoldReason.STALE_DATA
    assert hold(Desk(), stale=("T", "L", "F")) is HoldReason.STALE_DATA
    desk = Desk()
    desk.now_ns = 60 * S
    late = desk.advisor.advise(desk.world, Situation(t_ns=50 * S))
    assert late is not None
    assert late.reason is HoldReason.STALE_DATA
    assert "more than 5 s old" in late.text


def test_a_tick_is_fresh_until_the_next_one_may_be_late():
    desk = Desk(plant=replace(small_plant(), step_s=60.0))
    for age_s, fresh in ((59, True), (89, True), (91, False)):
        desk.now_ns = 1000 * S
        desk.advisor.advise(desk.world, Situation(t_ns=(1000 - age_s) * S))
        assert (desk.advisor.said.reason is not HoldReason.STALE_DATA) == fresh


def test_what_stands_is_said_once():
    desk = Desk()
    assert desk.ask(0) is desk.news
    assert desk.ask(5).verdict is Verdict.ADVISE
    assert desk.news is None
    assert hold(desk, t=10, stale=("T",)) is HoldReason.STALE_DATA
    assert desk.news is not None
    hold(desk, t=15, stale=("T",))
    assert desk.news is None


def test_a_stale_camera_is_named_but_does_not_hold():
    advice = Desk().ask(stale=("camera",))
    assert advice.verdict is Verdict.ADVISE
    assert advice.stale == ("camera",)


def test_hold_for_operator_mode():
    assert hold(Desk(), hands_off=True) is HoldReason.OPERATOR_MODE
    assert hold(Desk(level=Level.ADVISE), available={"T.SP": False, "L.SP": False}) is HoldReason.OPERATOR_MODE
    desk = Desk()
    desk.advisor.mode = Level.OBSERVE
    assert hold(desk) is HoldReason.OPERATOR_MODE


def test_a_loop_in_manual_is_not_moved():
    desk = Desk()
    found = desk.ask(available={"T.SP": False})
    assert found.reason is HoldReason.SMALL_GAIN


def test_hold_for_an_open_anomaly_but_not_for_a_dirty_camera():
    assert hold(Desk(), anomalies=(ANOMALY,)) is HoldReason.ANOMALY
    unknown = replace(ANOMALY, kind=AnomalyKind.UNKNOWN, top_signals=())
    assert hold(Desk(), anomalies=(unknown,)) is HoldReason.ANOMALY
    dirty = replace(
        ANOMALY, kind=AnomalyKind.SENSOR, top_signals=(SignalBlame(signal="camera", residual=0.0, share=1.0),)
    )
    assert Desk().ask(anomalies=(dirty,)).verdict is Verdict.ADVISE
    sensor = replace(ANOMALY, kind=AnomalyKind.SENSOR)
    assert hold(Desk(), anomalies=(sensor,)) is HoldReason.ANOMALY


def test_an_advice_falls_with_an_anomaly():
    desk = Desk()
    first = desk.ask(0)
    assert hold(desk, t=10, anomalies=(ANOMALY,)) is HoldReason.ANOMALY
    assert desk.ask(20).id != first.id


def test_hold_without_licence_and_plan_in_silence_in_shadow():
    assert hold(Desk(level=Level.OBSERVE)) is HoldReason.NO_LICENCE
    desk = Desk(level=Level.SHADOW)
    shadow = desk.ask()
    assert shadow.reason is HoldReason.NO_LICENCE
    assert shadow.moves == ()
    assert shadow.gain > 0
    assert shadow.expected is not None
    assert shadow.licence == "shadow"


def test_hold_for_the_rate_limit():
    desk = Desk(valid_s=60.0, interval_s=60.0, per_hour=3)
    found = [desk.ask(t) for t in (0, 61, 122)]
    assert {f.verdict for f in found} == {Verdict.ADVISE}
    assert hold(desk, t=183) is HoldReason.RATE_LIMITED
    assert desk.ask(3601).verdict is Verdict.ADVISE


def test_hold_for_a_failed_model():
    assert hold(Desk(), world=None) is HoldReason.MODEL_FAILED
    desk = Desk()
    desk.world.foretold = lambda action_NKA, at_s: torch.full((len(action_NKA), len(at_s), 3), float("nan"))
    assert hold(desk) is HoldReason.MODEL_FAILED


def test_hold_outside_the_trained_region():
    desk = Desk()
    desk.world.limit = 0.4
    assert hold(desk) is HoldReason.OUT_OF_REGION


def test_hold_where_limits_cannot_be_kept():
    targets = (Target(signal="F", high=0.3), Target(signal="T", setpoint=85.0, scale=2.0, weight=1.0))
    world = LinearWorld(gain=((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)))
    assert hold(Desk(world=world, plant=small_plant(targets))) is HoldReason.CONSTRAINT


def test_advice_that_relieves_a_violated_limit_is_given_at_a_loss():
    targets = (Target(signal="T", setpoint=90.0, scale=2.0, weight=1.0, high=84.0, backoff=1.0),)
    world = LinearWorld(state=(86.0, 0.6, 0.5), action=(86.0, 0.6), lag_s=60.0)
    advice = Desk(world=world, plant=small_plant(targets)).ask()
    assert advice.verdict is Verdict.ADVISE
    assert advice.gain < 0
    assert advice.moves[0].recommended < 83.5


def test_hold_where_the_gain_is_not_certain():
    settled = LinearWorld(state=(85.0, 0.6, 0.5), action=(85.0, 0.6))
    assert hold(Desk(world=settled)) is HoldReason.SMALL_GAIN
    vague = LinearWorld(state=(84.0, 0.6, 0.5), action=(84.0, 0.6), band=20.0)
    found = Desk(world=vague).ask()
    assert found.reason is HoldReason.SMALL_GAIN
    assert found.gain_low < 0 < found.gain
    assert hold(Desk(least_gain=1e6)) is HoldReason.SMALL_GAIN


def test_the_order_of_reasons_is_fixed():
    desk = Desk(level=Level.OBSERVE)
    everything = {"stale": ("T",), "hands_off": True, "anomalies": (ANOMALY,), "world": None}
    assert hold(desk, **everything) is HoldReason.STALE_DATA
    everything.pop("stale")
    assert hold(desk, **everything) is HoldReason.OPERATOR_MODE
    everything.pop("hands_off")
    assert hold(desk, **everything) is HoldReason.ANOMALY
    everything.pop("anomalies")
    assert hold(desk, **everything) is HoldReason.NO_LICENCE


def test_the_same_hold_is_not_told_anew():
    desk = Desk(level=Level.OBSERVE)
    first = desk.ask(0)
    assert desk.ask(100) is first
    assert desk.ask(301).sequence == first.sequence + 1


def test_a_rejection_brings_quiet():
    desk = Desk(after_rejection_s=900.0)
    advice = desk.ask(0)
    assert not desk.advisor.answer(Answer(id="other", answer=AnswerKind.REJECTED), S)
    assert desk.advisor.answer(Answer(id=advice.id, answer=AnswerKind.REJECTED, reason="not now"), 10 * S)
    assert hold(desk, t=400) is HoldReason.RATE_LIMITED
    assert desk.ask(911).verdict is Verdict.ADVISE


def test_a_setpoint_outside_its_range_is_not_moved():
    """Back into the range could be further than one step: somebody has to say what is meant."""
    only = Desk(world=LinearWorld(action=(96.0, 0.6)))
    moves = only.ask(0)
    assert "T.SP" not in {move.signal for move in moves.moves}
    both = Desk(world=LinearWorld(action=(96.0, 0.95))).ask(0)
    assert (both.verdict, both.reason) == (Verdict.HOLD, HoldReason.CONSTRAINT)
    assert "T.SP stands at 96, outside its range 70 to 90; L.SP stands at 0.95" in both.text


def test_configuration_is_checked():
    with pytest.raises(ConfigError, match="valid_s"):
        AdvisorConfig(valid_s=0)


def test_following_the_advice_brings_a_drifting_plant_to_its_setpoint():
    state, action = 79.0, 79.0
    desk = Desk()
    for t in range(0, 3600, 60):
        world = LinearWorld(state=(state, 0.6, 0.5), action=(action, 0.6))
        world.foretold = settling(world, state, action)
        advice = desk.ask(t, world=world)
        for move in advice.moves:
            if move.signal == "T.SP":
                action += max(-3.0, min(3.0, move.recommended - action))
        state += (action - state) * (1 - 2.718 ** (-60 / 120))
    assert state == pytest.approx(85.0, abs=0.7)


def settling(world, state, action):
    """The present state relaxes towards the present action, plus the response to moves."""
    respond = world.foretold

    def foretold(action_NKA, at_s):
        made = respond(action_NKA, at_s)
        made[..., 0] += (action - state) * (1 - torch.exp(-torch.tensor(at_s) / 120))
        return made

    return foretold
