"""Own moves taken back: where to, when, and what the model may say against it."""

from dataclasses import replace

import pytest
import torch
from control_worlds import LinearWorld, small_plant
from hypothesis import given, settings
from hypothesis import strategies as st
from test_control_advisor import ANOMALY, Desk, S

from control.advice.ledger import Ledger
from control.advice.licence import Level
from control.advice.objective import ObjectiveConfig
from control.advice.retreat import before_advice
from fusion.ledger import Entry, EntryState
from fusion.publish.encoding import to_message
from fusion.publish.messages import decode, encode
from fusion.records import AdviceKind, AnomalyKind, Answer, AnswerKind, HoldReason, Move, Verdict
from fusion.targets import Target

NEAR = {"T.SP": 0.2, "L.SP": 0.005}


def move(current, recommended, signal="T.SP"):
    return Move(signal=signal, current=current, recommended=recommended, unit="Cel", low=70, high=90, rate=0.05)


def entry(t, *moves, kind=AdviceKind.PLAN, state=EntryState.WITHDRAWN):
    gain = {"gain": 1.0, "gain_low": 0.5, "gain_high": 1.5}
    return Entry(
        id=str(t), t_ns=t * S, valid_until_ns=(t + 300) * S, mode="advise", moves=moves, kind=kind, state=state, **gain
    )


def back(*entries, now=80.0, since=0):
    return before_advice(entries, since * S, {"T.SP": now, "L.SP": 0.6}, NEAR)


def test_the_way_back_leads_to_where_the_first_of_several_moves_began():
    chain = entry(0, move(80, 85)), entry(300, move(82, 87)), entry(600, move(86, 88))
    assert back(*chain, now=88.0) == {"T.SP": 80}
    assert back(*chain, now=81.0) == {"T.SP": 80}
    assert back(*chain, now=88.0, since=1) == {"T.SP": 82}, "what is older has had its effect"
    assert back(*chain, now=88.0, since=601) == {}


def test_what_nobody_followed_is_not_taken_back():
    assert back(entry(0, move(80, 85)), now=80.0) == {}
    for state in (EntryState.REJECTED, EntryState.FAILED):
        assert back(entry(0, move(80, 85), state=state), now=85.0) == {}


def test_what_the_operator_moved_elsewhere_is_his():
    assert back(entry(0, move(80, 85)), now=78.0) == {}
    assert back(entry(0, move(80, 85)), now=86.0) == {}
    assert back(entry(0, move(80, 85)), entry(300, move(75, 76)), now=76.0) == {"T.SP": 75}


def test_a_return_ends_where_it_leads_and_may_come_in_parts():
    up, part = entry(0, move(80, 88)), entry(300, move(88, 83), kind=AdviceKind.RETURN)
    assert back(up, part, now=83.0) == {"T.SP": 80}
    rest = entry(600, move(83, 80), kind=AdviceKind.RETURN)
    assert back(up, part, rest, now=80.0) == {}
    assert back(rest, now=82.0, since=600) == {"T.SP": 80}, "the return alone is remembered, and still on its way"
    assert back(rest, now=80.0, since=600) == {}
    assert back(rest, entry(900, move(80, 84)), now=84.0, since=600) == {"T.SP": 80}


def test_a_signal_that_is_not_moved_any_more_is_left_out():
    assert back(entry(0, move(1, 2, signal="gone"), move(80, 85)), now=85.0) == {"T.SP": 80}


# --- the advisor


class Followed(Desk):
    """A desk whose advice of T.SP from 80 on was followed as far as 82."""

    def __init__(self, world=None, **settings):
        super().__init__(world=world, **settings)
        self.ledger = Ledger(self.plant, ObjectiveConfig(), 0.01)
        first = self.ask(0)
        assert first.verdict is Verdict.ADVISE
        self.world.current_action = torch.tensor([82.0, 0.6])

    def ask(self, t=0, **rest):
        said = super().ask(t, given=self.ledger.entries, **rest)
        if self.news is not None and self.news.verdict is Verdict.ADVISE:
            self.ledger.issue(self.news)
        return said


def test_an_anomaly_has_own_moves_taken_back_in_time_and_in_words():
    desk = Followed()
    assert desk.ask(100, anomalies=(ANOMALY,)).reason is HoldReason.ANOMALY, "the rate limit holds for it too"
    said = desk.ask(301, anomalies=(ANOMALY,))
    assert (said.verdict, said.kind, said.reason, said.mode) == (Verdict.ADVISE, AdviceKind.RETURN, None, "advise")
    (only,) = said.moves
    assert (only.signal, only.current, only.recommended) == ("T.SP", 82.0, 80.0)
    assert said.text == "Take own moves back, T.SP 82 -> 80 Cel: open anomaly a (process)"
    assert desk.ask(330, anomalies=(ANOMALY,)) is said
    desk.world.current_action = torch.tensor([80.0, 0.6])
    assert desk.ask(360, anomalies=(ANOMALY,)).reason is HoldReason.ANOMALY
    assert desk.ask(900, anomalies=(ANOMALY,)).reason is HoldReason.ANOMALY
    assert desk.ledger.entries[-1].kind is AdviceKind.RETURN
    message = decode(encode(to_message(said, desk.plant, "m")))
    assert (message.kind, message.verdict, message.rollback["T.SP"]) == ("return", "advise", 82.0)


def test_after_a_return_no_plan_comes_for_as_long_as_plans_look_ahead():
    desk = Followed()
    desk.ask(301, anomalies=(ANOMALY,))
    desk.world.current_action = torch.tensor([80.0, 0.6])
    assert desk.ask(890).reason is HoldReason.RATE_LIMITED
    plan = desk.ask(902)
    assert (plan.verdict, plan.kind) == (Verdict.ADVISE, AdviceKind.PLAN)


def test_a_return_is_never_followed_unasked():
    desk = Followed(level=Level.SUPERVISED)
    desk.advisor.mode = Level.SUPERVISED
    assert desk.ask(301, anomalies=(ANOMALY,)).mode == "advise"


def test_outside_the_trained_region_own_moves_are_taken_back_and_those_of_others_are_not():
    desk = Followed()
    desk.world.limit = 0.4
    assert desk.ask(301).kind is AdviceKind.RETURN
    other = Desk(world=LinearWorld(action=(82.0, 0.6)))
    other.world.limit = 0.4
    assert other.ask(301).reason is HoldReason.OUT_OF_REGION


def test_what_is_accepted_and_still_stands_is_no_ground_for_plans():
    accepted = Desk().ask(0, accepted=True)
    assert accepted.reason is HoldReason.OUT_OF_REGION
    assert "accepted as normal" in accepted.text
    assert Followed().ask(301, accepted=True).kind is AdviceKind.RETURN


@pytest.mark.parametrize(
    "ask",
    [
        {"anomalies": (replace(ANOMALY, kind=AnomalyKind.SENSOR),)},
        {"anomalies": (ANOMALY,), "stale": ("T",)},
        {"anomalies": (ANOMALY,), "hands_off": True},
        {"anomalies": (ANOMALY,), "available": {"T.SP": False}},
        {"anomalies": (ANOMALY,), "world": None},
        {"anomalies": (ANOMALY,), "t": 700},
    ],
    ids=["an instrument", "stale", "hands off", "manual", "no forecast", "long ago"],
)
def test_nothing_is_taken_back(ask):
    assert Followed().ask(**{"t": 301, **ask}).verdict is Verdict.HOLD


def test_no_licence_and_a_rejection_forbid_a_return_too():
    desk = Followed()
    desk.advisor.licence = desk.advisor.licence.demoted(Level.SHADOW, "drifted")
    assert desk.ask(301, anomalies=(ANOMALY,)).reason is HoldReason.ANOMALY
    desk = Followed()
    back_again = desk.ask(301, anomalies=(ANOMALY,))
    desk.advisor.answer(Answer(id=back_again.id, answer=AnswerKind.REJECTED), 302 * S)
    assert desk.ask(610, anomalies=(ANOMALY,)).reason is HoldReason.ANOMALY


def test_the_model_may_speak_against_a_return_that_comes_nearer_to_a_limit():
    targets = (Target(signal="T", setpoint=85.0, scale=2.0, weight=1.0, low=81.0),)
    desk = Followed(plant=small_plant(targets), world=LinearWorld(state=(82.0, 0.6, 0.5)))
    said = desk.ask(301, anomalies=(ANOMALY,))
    assert said.reason is HoldReason.ANOMALY
    assert said.text.endswith("to take own moves back would come nearer to a limit")


@settings(max_examples=40, deadline=None)
@given(st.floats(65, 95), st.lists(st.tuples(st.floats(70, 90), st.floats(70, 90)), max_size=4), st.floats(0.05, 1.0))
def test_no_return_leaves_the_range_or_steps_too_far(now, given_moves, largest):
    desk = Desk(world=LinearWorld(action=(now, 0.6)))
    desk.advisor._config.planner.constraints.largest_step = largest
    entries = tuple(entry(k, move(*pair)) for k, pair in enumerate(given_moves))
    said = desk.ask(10, anomalies=(ANOMALY,), given=entries)
    for made in said.moves:
        assert said.kind is AdviceKind.RETURN
        assert 70 <= made.recommended <= 90
        assert abs(made.recommended - made.current) <= 20 * largest * (1 + 1e-5)
        assert 70 - 0.2 <= made.current <= 90 + 0.2
