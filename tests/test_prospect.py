"""What if: a question is answered beside doing nothing, or refused with a reason, and no tick waits for it."""

import asyncio
import contextlib
import json
import re
import threading
import time

import numpy as np
import pytest
import torch
import yaml
from control_worlds import LinearWorld, small_plant
from grid_runs import frame_of
from hypothesis import given, settings
from hypothesis import strategies as st
from mosquitto import Mosquitto, needs_broker
from scripted_daemon import Scripted, Ticking
from test_clock import Listening

from control.advice.planner import PlannerConfig
from control.advice.prospect import approached, foresee
from fusion.cli import main
from fusion.daemon.inquiries import Inquiries
from fusion.daemon.outlet import MqttOutlet
from fusion.daemon.seat import Seat
from fusion.daemon.service import Daemon
from fusion.errors import ModelError
from fusion.plant import plant_to_dict
from fusion.prospects import Prospect, Question, Refusal
from fusion.publish.messages import decode
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.records import ACTION_STEPS
from tests.wire_examples import until

PLANT = small_plant()


def asked(world=None, **moves):
    question = Question(id="q", moves={name.replace("_", "."): value for name, value in moves.items()})
    return foresee(question, world or LinearWorld(), PLANT, 7, PlannerConfig())


def test_a_hotter_setpoint_is_foreseen_beside_doing_nothing():
    found = asked(T_SP=85.0)
    assert (found.refusal, found.t_ns, found.moves[0].current) == (None, 7, 80.0)
    assert found.moved.mean[-1, 0] == pytest.approx(85.0, abs=0.2)
    assert found.baseline.mean[-1, 0] == pytest.approx(80.0)
    assert (found.moved.low < found.moved.mean).all()
    saving, low, high = found.gain
    assert low < saving < high
    assert saving > 0
    assert found.support == pytest.approx(0.5)


def test_a_move_takes_the_time_that_its_rate_allows():
    path = approached(torch.tensor([80.0, 0.6]), {"T.SP": 85.0}, LinearWorld(), PLANT)
    assert path.shape == (ACTION_STEPS, 2)
    assert path[:3, 0].tolist() == pytest.approx([80.5, 81.0, 81.5])
    assert path[-1].tolist() == pytest.approx([85.0, 0.6])


def test_limits_that_the_moved_course_reaches_are_named():
    assert asked(LinearWorld(state=(93.0, 0.6, 0.5)), T_SP=85.0).binding == ("T high",)


class Failing(LinearWorld):
    def rollout(self, paths):
        raise ModelError("out of order")


class NotFinite(LinearWorld):
    def rollout(self, paths):
        return super().rollout(paths) * float("nan")


class Far(LinearWorld):
    def support(self, paths):
        return torch.tensor([1.4, 0.5])


@pytest.mark.parametrize(
    ("world", "moves", "refusal", "text"),
    [
        (LinearWorld(), {"refill": 1.0}, Refusal.UNKNOWN_SIGNAL, r"'refill' cannot be moved; accepted: T\.SP, L\.SP"),
        (LinearWorld(), {"T_SP": 91.0}, Refusal.OUT_OF_RANGE, r"T\.SP 91: expected 70 to 90 Cel"),
        (LinearWorld(), {"T_SP": float("nan")}, Refusal.OUT_OF_RANGE, r"T\.SP nan"),
        (Far(), {"T_SP": 85.0}, Refusal.OUT_OF_REGION, r"it would be at 1\.4 of the limit"),
        (Failing(), {"T_SP": 85.0}, Refusal.MODEL_FAILED, "out of order"),
        (NotFinite(), {"T_SP": 85.0}, Refusal.MODEL_FAILED, "not finite"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(world, moves, refusal, text):
    found = asked(world, **moves)
    assert (found.refusal, found.moved, found.moves) == (refusal, None, ())
    assert re.search(text, found.text)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(60, 100), st.floats(0.2, 0.9), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from((0.5, 1.5))
)
def test_no_question_is_answered_outside_range_or_region(t, level, wanted, limit):
    world = LinearWorld(state=(t, level, 0.5), action=(min(max(t, 70.0), 90.0), 0.6))
    world.limit = 1 / limit
    found = foresee(Question(id="q", moves={"T.SP": wanted}), world, PLANT, 0, PlannerConfig())
    assert (found.refusal is None) == (70.0 <= wanted <= 90.0 and 0.5 * limit <= 1)
    if found.moved is not None:
        assert np.isfinite(found.moved.mean).all()


def test_questions_beyond_the_rate_are_refused_until_the_minute_is_over():
    now = [0.0]
    limit = Inquiries(2, lambda: now[0])
    question = Question(id="q", moves={})
    assert [limit.refusal(question, 0) is None for _ in range(3)] == [True, True, False]
    now[0] = 60.0
    assert limit.refusal(question, 0) is None
    assert Inquiries(0, lambda: 0.0).refusal(question, 0).refusal is Refusal.TOO_MANY


def test_before_there_is_a_model_the_answer_says_so():
    found = Seat(PLANT).whatif(Question(id="q", moves={"T.SP": 80.0}))
    assert (found.refusal, found.text) == (Refusal.NO_MODEL, "no model")


# --- over a broker


class Foreseeing(Scripted):
    """Ticks as scripted; questions go to a small world."""

    plant = PLANT

    def __init__(self, **rest):
        super().__init__(**rest)
        self.threads = set()

    def step(self, frame, newest):
        self.threads.add(threading.get_ident())
        return Listening.step(self, frame, newest)

    def whatif(self, question):
        self.threads.add(threading.get_ident())
        return foresee(question, LinearWorld(), PLANT, 7, PlannerConfig())


class SmallTicking(Ticking):
    def advance(self, now_ns):
        return [frame_of(PLANT, now_ns, {"T": 80.0})]


@contextlib.contextmanager
def running(port, engine=None, **settings):
    """A daemon on a broker, in a thread of its own."""
    engine, stop, life = engine or Foreseeing(), asyncio.Event(), {}
    engine.frames = []

    async def live():
        life["loop"] = asyncio.get_running_loop()
        publisher = MqttPublisher(PublisherConfig(port=port, outbox="", retry_s=0.05), PLANT, "m")
        life["publisher"] = publisher
        await Daemon([], SmallTicking(), engine, MqttOutlet(publisher, engine), **settings).run(stop)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        until(lambda: "publisher" in life and life["publisher"].state == "online", "the daemon is online")
        yield engine, life["publisher"]
    finally:
        life["loop"].call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()


@needs_broker
def test_a_question_over_mqtt_is_answered_and_the_ticks_go_on(tmp_path, capsys):
    (tmp_path / "plant.yaml").write_text(yaml.safe_dump(plant_to_dict(PLANT)))
    broker = Mosquitto(tmp_path)
    try:
        with running(broker.port, whatif_per_minute=2) as (engine, publisher):
            ask = ["whatif", "--broker", f"127.0.0.1:{broker.port}", "--plant", str(tmp_path / "plant.yaml"), "--set"]
            assert main([*ask, "T.SP=85"]) == 0
            answer = json.loads(capsys.readouterr().out)
            message = decode(json.dumps(answer).encode())
            assert (message.verdict, message.moves[0].recommended) == ("answered", 85.0)
            assert [c.signal for c in message.if_moved] == [c.signal for c in message.if_nothing] == ["T", "L"]
            assert message.if_moved[0].mean[-1] > message.if_nothing[0].mean[-1]
            reader = broker.read("fusion/small/v1/whatif", 2, timeout_s=10)
            for name in ("second", "third"):
                broker.write("fusion/small/v1/whatif/request", json.dumps({"id": name, "moves": {"T.SP": 99}}))
            with reader:
                said = [json.loads(line.split(" ", 1)[1]) for line in reader.stdout if line.startswith("fusion/")]
            assert [(s["id"], s["reason"]) for s in said] == [
                ("second", "outside_range"),
                ("third", "too_many_questions"),
            ]
            broker.write("fusion/small/v1/whatif/request", '{"id": "", "moves": []}')
            until(lambda: publisher.dropped["question:not_understood"], "what is no question is counted")
            ticks = len(engine.frames)
            until(lambda: len(engine.frames) > ticks, "ticks go on")
            assert len(engine.threads) == 1
    finally:
        broker.stop()


def test_ticks_come_first():
    """While ticks wait, a question waits; after a while it is told so."""

    class Slow(Foreseeing):
        def step(self, frame, newest):
            time.sleep(0.2)
            return super().step(frame, newest)

    class Asked(Listening):
        def __init__(self):
            super().__init__()
            self.open, self.told, self.answering = [Question(id="q", moves={"T.SP": 85.0})], [], asyncio.Event()

        def questions(self):
            return [self.open.pop()] if self.open else ()

        def prospect(self, prospect: Prospect):
            self.told.append(prospect)
            self.loop.call_soon_threadsafe(self.answering.set)

    async def scenario():
        engine, outlet, stop = Slow(), Asked(), asyncio.Event()
        engine.frames = []
        life = asyncio.create_task(Daemon([], SmallTicking(), engine, outlet).run(stop))
        outlet.loop = asyncio.get_running_loop()
        await asyncio.wait_for(outlet.answering.wait(), 20)
        stop.set()
        await life
        return outlet.told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusion.daemon.service.PATIENCE_S", 0.6)
        (told,) = asyncio.run(scenario())
    assert told.refusal is Refusal.BUSY
