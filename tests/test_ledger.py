"""Promised against delivered: what became of each advice, modes that operators order, and targets that change."""

import asyncio
import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from control_worlds import HORIZON_S, LinearWorld, small_plant
from hypothesis import given, settings
from hypothesis import strategies as st
from mosquitto import Mosquitto, needs_broker
from test_prospect import Foreseeing, running
from wire_examples import until

from control.advice.advisor import Advisor, AdvisorConfig
from control.advice.ledger import KEPT, Ledger
from control.advice.licence import Level, Licence, SignalLicence
from control.advice.objective import ObjectiveConfig
from control.advice.planner import Planner
from control.advice.situation import Situation
from fusion.daemon import start
from fusion.daemon.follower import Follower, Heard
from fusion.errors import ConfigError
from fusion.ledger import EntryState
from fusion.records import NS_PER_S, Answer, AnswerKind, Verdict
from fusion.targets import Target

PLANT = small_plant()
S = NS_PER_S
ACTIONS = [s.name for s in PLANT.actions]


def advisor(level=Level.ADVISE, granted=Level.SUPERVISED, world=None):
    world = world or LinearWorld()
    config = AdvisorConfig(level=level)
    licence = Licence(signals={n: SignalLicence(signal=n, level=granted) for n in world.manipulated})
    return Advisor(config, PLANT, Planner(config.planner, PLANT, world), licence, "m", lambda: 0)


def advice():
    made = advisor().advise(LinearWorld(), Situation(t_ns=0))
    assert made.verdict is Verdict.ADVISE
    return made


ADVICE = advice()
AIM = ADVICE.moves[0].recommended


def ledger(*given):
    found = Ledger(PLANT, ObjectiveConfig(), 0.01)
    for advice in given or (ADVICE,):
        found.issue(advice)
    return found


def lives(book, world, start_s=0, seconds=640, action=lambda t: (80.0, 0.6, 0.0), tags=None):
    """A second a tick: the world's course from the first move on, unless ``tags`` says otherwise."""
    for t in range(start_s, start_s + seconds):
        book.see(t * S, np.array(tags(t) if tags else (80.0, 0.6, 0.5)), np.array(action(t)))
    return book.entries[-1]


def ramp(t):
    return (min(80.0 + 0.05 * t, AIM), 0.6, 0.0)


def as_promised(t):
    course = ADVICE.expected.mean
    hours = np.concatenate([[0.0], HORIZON_S])
    start = np.array([80.0, 0.6, 0.5])
    return [float(np.interp(t - 6, hours, np.concatenate([[start[i]], course[:, i]]))) for i in range(3)]


def test_what_comes_as_promised_delivers_what_was_promised():
    entry = lives(ledger(), None, action=ramp, tags=as_promised)
    assert (entry.state, entry.note) == (EntryState.APPLIED, "")
    assert entry.delivered == pytest.approx(entry.gain, rel=0.15)
    assert entry.within >= 0.9  # between the horizons the course is drawn as straight lines


def test_where_nothing_comes_of_the_moves_the_ledger_says_so():
    entry = lives(ledger(), None, action=ramp)
    assert entry.delivered < 0.2 * entry.gain
    assert entry.within < 0.8


@pytest.mark.parametrize(
    ("action", "state", "note"),
    [
        (lambda t: (80.0, 0.6, 0.0), EntryState.EXPIRED, ""),
        (lambda t: (80.0 if t > 150 else ramp(t)[0], 0.6, 0.0), EntryState.APPLIED, "a setpoint was moved again"),
        (lambda t: (min(ramp(t)[0], 82.0), 0.6, 0.0), EntryState.EXPIRED, "not every move was made"),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_no_number(action, state, note):
    entry = lives(ledger(), None, action=action)
    assert (entry.state, entry.delivered, entry.note) == (state, None, note)


def test_missing_ticks_leave_no_number():
    book = ledger()
    for t in (*range(100), *range(400, 640)):
        book.see(t * S, np.array(as_promised(t)), np.array(ramp(t)))
    assert (book.entries[0].delivered, book.entries[0].note) == (None, "ticks are missing")


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_every_answer_is_kept_with_who_gave_it(kind):
    book = ledger()
    assert book.answer(Answer(id=ADVICE.id, answer=kind, reason="because", by="kim"), 9 * S)
    (entry,) = book.entries
    assert (entry.state, entry.by, entry.reason, entry.t_answer_ns) == (EntryState(kind.value), "kim", "because", 9 * S)
    assert book.changed


def test_an_answer_to_what_is_over_or_unknown_changes_nothing():
    book = ledger()
    assert not book.answer(Answer(id="other", answer=AnswerKind.ACCEPTED), S)
    assert book.answer(Answer(id=ADVICE.id, answer=AnswerKind.REJECTED), S)
    assert not book.answer(Answer(id=ADVICE.id, answer=AnswerKind.ACCEPTED), S)
    assert book.entries[0].state is EntryState.REJECTED


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(AnswerKind)), st.integers(0, 2)), max_size=12))
def test_no_order_of_answers_brings_a_rejected_advice_back(answers):
    book = ledger(*(replace(ADVICE, id=str(i)) for i in range(3)))
    refused = {}
    for kind, i in answers:
        book.answer(Answer(id=str(i), answer=kind), 0)
        now = {entry.id: entry.state for entry in book.entries}
        assert {name: now[name] for name in refused} == refused
        refused |= {n: s for n, s in now.items() if s in (EntryState.REJECTED, EntryState.EXPIRED, EntryState.FAILED)}


def test_another_advice_or_a_hold_withdraws_the_one_before():
    book = ledger(ADVICE, replace(ADVICE, id="second"))
    assert [e.state for e in book.entries] == [EntryState.WITHDRAWN, EntryState.OPEN]
    book.withdraw()
    assert book.entries[1].state is EntryState.WITHDRAWN


def test_the_newest_are_kept_and_survive_a_restart():
    book = ledger(*(replace(ADVICE, id=str(i)) for i in range(KEPT + 5)))
    lives(book, None, seconds=200, action=ramp, tags=as_promised)
    again = ledger()
    again = Ledger(PLANT, ObjectiveConfig(), 0.01)
    again.resume(json.loads(json.dumps(book.kept)))
    assert [e.id for e in again.entries] == [str(i) for i in range(5, KEPT + 5)]
    assert again.entries[-1] == replace(book.entries[-1], note="the daemon was started again meanwhile")
    again.resume([{"id": 3}])
    assert len(again.entries) == KEPT


# --- modes and targets


def test_supervised_needs_the_licence_the_configuration_and_the_operator():
    made = advisor(Level.SUPERVISED)
    assert made.mode is Level.ADVISE
    assert made.advise(LinearWorld(), Situation(t_ns=0)).mode == "advise"
    for level, granted, mode in (
        (Level.SUPERVISED, Level.SUPERVISED, "supervised"),
        (Level.SUPERVISED, Level.ADVISE, "advise"),
    ):
        made = advisor(level, granted)
        made.mode = Level.SUPERVISED
        assert made.advise(LinearWorld(), Situation(t_ns=0)).mode == mode


def test_other_targets_make_another_advice_without_training():
    made = advisor()
    first = made.advise(LinearWorld(), Situation(t_ns=0))
    assert first.moves[0].recommended > 80
    other = replace(PLANT, targets=(Target(signal="T", setpoint=76.0, scale=2.0, weight=1.0),))
    assert other.fingerprint == PLANT.fingerprint
    made.retarget(other, Planner(AdvisorConfig().planner, other, LinearWorld()))
    second = made.advise(LinearWorld(), Situation(t_ns=400 * S))
    assert second.moves[0].recommended < 80


class Ordered(Foreseeing):
    mode = "advise"

    def order(self, mode):
        if mode == "supervised":
            raise ConfigError("the configuration allows advise at most")
        changed, self.mode = mode != self.mode, mode
        return changed

    def retarget(self, plant):
        self.plant = plant


@needs_broker
def test_a_mode_that_is_ordered_is_audited_and_one_that_is_not_allowed_is_counted(tmp_path):
    from fusion.daemon.audit import AUDIT, Audit

    broker = Mosquitto(tmp_path)
    try:
        with running(broker.port, Ordered(), audit=Audit(tmp_path / AUDIT)) as (engine, publisher):
            topic = "fusion/small/v1/mode/order"
            broker.write(topic, '{"mode": "shadow", "by": "kim"}')
            until(lambda: engine.mode == "shadow", "the mode")
            broker.write(topic, '{"mode": "supervised", "by": "lee"}')
            until(lambda: publisher.dropped["mode:refused"], "the refusal")
            broker.write(topic, '{"mode": "off", "by": "kim"}')
            until(lambda: publisher.dropped["mode:not_understood"], "no mode")
    finally:
        broker.stop()
    said = [json.loads(line) for line in (tmp_path / AUDIT).read_text().splitlines()]
    assert [(s["what"], s["by"]) for s in said if s["what"] in ("mode", "refused")] == [
        ("mode", "kim"),
        ("refused", "lee"),
    ]


def test_supervised_stands_only_while_the_verifier_is_heard():
    follower, supervised = Follower(10.0), Level.SUPERVISED
    assert not follower.lost(Level.ADVISE, None, 0.0)
    assert not follower.lost(supervised, None, 100.0)  # ordered before the verifier was started
    assert not follower.lost(supervised, None, 109.0)
    assert "10 s" in follower.lost(supervised, None, 111.0)
    assert not follower.lost(supervised, Heard("ready", 108.0), 117.0)
    assert "10 s" in follower.lost(supervised, Heard("ready", 108.0), 118.5)
    assert "offline" in follower.lost(supervised, Heard("offline", 108.0), 109.0)
    assert not follower.lost(Level.ADVISE, Heard("offline", 108.0), 200.0)
    assert not follower.lost(supervised, Heard("offline", 108.0), 201.0)  # what was before the order is over


class Supervisable(Ordered):
    def order(self, mode):
        changed, self.mode = mode != self.mode, mode
        return changed


@needs_broker
def test_a_verifier_that_falls_silent_ends_supervised(tmp_path):
    from fusion.daemon.audit import AUDIT, Audit
    from fusion.publish.encoding import verifier_message
    from fusion.publish.messages import encode

    broker, beat = Mosquitto(tmp_path), encode(verifier_message(PLANT, S, "ready", "", "", 1)).decode()
    try:
        settings = {"audit": Audit(tmp_path / AUDIT), "verifier_timeout_s": 1.5}
        with running(broker.port, Supervisable(), **settings) as (engine, publisher):
            broker.write("fusion/small/v1/mode/order", '{"mode": "supervised", "by": "kim"}')
            until(lambda: engine.mode == "supervised", "supervised")
            for _ in range(8):
                broker.write("fusion/small/v1/verifier", beat)
                time.sleep(0.3)
            assert engine.mode == "supervised"
            assert publisher.verifier[0] == "ready"
            until(lambda: engine.mode == "advise", "advice is asked for again")
    finally:
        broker.stop()
    said = [json.loads(line) for line in (tmp_path / AUDIT).read_text().splitlines()]
    modes = [(s["mode"], s["by"]) for s in said if s["what"] == "mode"]
    assert modes == [("supervised", "kim"), ("advise", "daemon")]


def test_time_in_manual_is_told_of_the_last_day():
    signals = [replace(s, auto_tag="F") if s.name == "T.SP" else s for s in PLANT.signals]
    book = Ledger(replace(PLANT, signals=tuple(signals)), ObjectiveConfig(), 0.01)
    action = np.array((80.0, 0.6, 0.0))
    for hour in range(30):
        for minute in range(60):
            automatic = hour >= 10 or minute >= 30
            book.see((hour * 60 + minute) * 60 * S, np.array((80.0, 0.6, float(automatic))), action)
    assert book.changed
    assert book.manual == {"T.SP": pytest.approx(4 * 30 / (24 * 60))}  # hours 6 to 9 of the last 24
    assert Ledger(PLANT, ObjectiveConfig(), 0.01).manual == {}


@needs_broker
def test_the_ledger_is_retained_for_a_page_that_comes_later(tmp_path):
    from fusion.publish.encoding import ledger_message

    broker = Mosquitto(tmp_path)
    try:
        with running(broker.port) as (_, publisher):
            publisher.publish(ledger_message(ledger().entries, PLANT, S, "m"))
            until(lambda: publisher.published["ledger"], "the ledger is out")
            reader = broker.read("fusion/small/v1/ledger", 1)
            with reader:
                (line,) = [line for line in reader.stdout if line.startswith("fusion/")]
            (entry,) = json.loads(line.split(" ", 1)[1])["entries"]
            assert (entry["id"], entry["state"], entry["promised"]["expected"] > 0) == (ADVICE.id, "open", True)
    finally:
        broker.stop()


def test_a_hangup_takes_over_new_targets_and_refuses_another_plant(tmp_path, caplog):
    import yaml
    from test_clock import Listening
    from test_prospect import SmallTicking

    from fusion.daemon.service import Daemon
    from fusion.plant import plant_to_dict

    file = tmp_path / "plant.yaml"

    def write(plant):
        file.write_text(yaml.safe_dump(plant_to_dict(plant)))

    async def scenario():
        engine, outlet = Ordered(), Listening()
        engine.frames = []
        life = asyncio.create_task(start._until_stopped(lambda: Daemon([], SmallTicking(), engine, outlet), file))
        await asyncio.sleep(0)
        write(replace(PLANT, targets=()))
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(10):
            while engine.plant.targets:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        write(replace(PLANT, name="other"))
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(10):
            while "stay as they were" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)
        await life

    write(PLANT)
    asyncio.run(scenario())
