"""An alarm from its raise to its end, over a real broker: what operators order, what is said, what a start finds."""

import asyncio
import contextlib
import json
import logging
from dataclasses import replace

import pytest
from grid_runs import frame_of
from mosquitto import Mosquitto, needs_broker
from scripted_daemon import Ticking, daemon, event
from test_clock import PLANT, Listening
from test_publish import messages_of
from wire_examples import until

from control.anomaly.alarms import AlarmConfig
from fusion.alarms import Alarm, AlarmOrder, AlarmState, MarkKind, MarkOrder, OrderKind
from fusion.daemon import clerk, service
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.service import Daemon
from fusion.records import AnomalyState
from models.ticks import TickBuilder

S = 1_000_000_000
ORDER = "fusion/kiln/v1/alarm/order"


@pytest.fixture
def broker(tmp_path):
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(clerk, "ORDERS_PERIOD_S", 0.02)
    monkeypatch.setattr(service, "HEALTH_PERIOD_S", 0.2)


@contextlib.asynccontextmanager
async def running(made):
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def wait(condition, what):
    await asyncio.to_thread(until, condition, what)


def order(name, kind, **more):
    return json.dumps({"id": name, "order": kind, "by": "kim", **more})


def told(reader):
    return [message["alarm"] for topic, message in messages_of(reader) if topic.endswith("/alarm")]


@needs_broker
def test_an_alarm_is_acknowledged_shelved_taken_back_accepted_and_returns(broker, tmp_path, caplog):
    script = {"next": []}

    def play(engine, t_ns):
        wanted, script["next"] = script["next"], []
        return [engine.rise(t_ns) if what == "rise" else engine.fall(what, t_ns) for what in wanted]

    reader = broker.read("fusion/kiln/v1/alarm", 7, timeout_s=20)
    caplog.set_level(logging.INFO, "fusion.daemon.clerk")

    async def scenario():
        made, engine, out = daemon(tmp_path, broker.port, play, AlarmConfig(longest_shelf_s=0.6))
        log = made._desk.log

        async def say(payload, condition, what):
            await asyncio.to_thread(broker.write, ORDER, payload)
            await wait(condition, what)

        def state():
            return log.alarms[0].state(made.health("online").t_ns)

        async with running(made):
            await wait(lambda: out.published["health"] >= 1, "connected")
            script["next"] = ["rise"]
            await wait(lambda: log.active, "raised")
            await say(order("kiln-1", "acknowledge"), lambda: log.alarms[0].acknowledged_by == "kim", "acknowledged")
            await say(order("kiln-1", "shelve", for_s=1e300), lambda: state() is AlarmState.SHELVED, "shelved")
            assert made.health("online").plant_state != "alarm"
            await wait(lambda: state() is AlarmState.ACKNOWLEDGED, "the shelf is over")
            assert made.health("online").plant_state == "alarm"
            await say(order("kiln-1", "shelve", for_s=0.5), lambda: state() is AlarmState.SHELVED, "shelved again")
            await say(order("kiln-1", "unshelve"), lambda: state() is AlarmState.ACKNOWLEDGED, "taken back")
            await say(order("kiln-1", "normal"), lambda: engine.accepted == ["kiln-1"], "accepted")
            await say(order("kiln-9", "acknowledge"), lambda: out.dropped["order:refused"] == 1, "unknown")
            await say(order("kiln-1", "shelve", for_s=-1), lambda: out.dropped["order:refused"] == 2, "no time")
            script["next"] = ["kiln-1"]
            await wait(lambda: not log.active, "returned")
            await wait(lambda: out.waiting == 0, "delivered")

    asyncio.run(scenario())
    said = told(reader)
    states = ["unacknowledged", "acknowledged", "shelved", "acknowledged", "shelved", "acknowledged", "acknowledged"]
    assert [alarm["state"] for alarm in said] == states
    assert [alarm["shelved_by"] for alarm in said] == ["", "", "kim", "", "kim", "", ""]
    assert [alarm["accepted_by"] for alarm in said] == [""] * 6 + ["kim"]
    lines = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert sum(line.startswith("alarm kiln-1") for line in lines) == 8
    assert sum("acknowledged by kim at 20" in line for line in lines) == 7
    assert any("'kiln-9' is not known" in record.message for record in caplog.records)


@needs_broker
def test_a_start_finds_what_stood_and_says_so_at_once(broker, tmp_path):
    def play(engine, t_ns):
        return [engine.rise(t_ns)] if engine.sequence < 2 else []

    async def first():
        made, _, _ = daemon(tmp_path, broker.port, play)
        async with running(made):
            await wait(lambda: len(made._desk.log.active) == 2, "raised")
            await asyncio.to_thread(broker.write, ORDER, order("kiln-2", "acknowledge"))
            await wait(lambda: any(a.acknowledged_by for a in made._desk.log.alarms), "acknowledged")

    async def second():
        made, engine, out = daemon(tmp_path, broker.port, lambda engine, t_ns: [])
        assert engine.sequence == 2
        assert sorted(engine.open) == ["kiln-1", "kiln-2"]
        async with running(made):
            await wait(lambda: out.published["health"] >= 2, "health")
            for _ in range(50):
                said = await asyncio.to_thread(lambda: messages_of(broker.read("fusion/kiln/v1/health"))[0][1])
                if said["plant_state"]:  # not the birth, which may be the last the broker has kept so far
                    break
                await asyncio.sleep(0.1)
            return said

    asyncio.run(first())
    said = asyncio.run(second())
    assert [a["id"] for a in said["open_anomalies"]] == ["kiln-1", "kiln-2"]
    assert [a["state"] for a in said["alarms"]] == ["unacknowledged", "acknowledged"]
    assert said["alarms"][1]["acknowledged_by"] == "kim"


def lived(listening, desk, seconds=0.5, timeline=None):
    async def scenario():
        async with running(Daemon([], timeline or Ticking(), listening, listening, desk=desk)):
            await asyncio.sleep(seconds)

    asyncio.run(scenario())


def test_orders_are_done_without_ticks_and_one_that_changes_nothing_is_not_told():
    class Silent(Ticking):
        def advance(self, now_ns):
            return []

    listening, desk = Listening(), AlarmDesk()
    desk.log.record([event("a", S)])
    acknowledge = AlarmOrder(id="a", order=OrderKind.ACKNOWLEDGE, by="kim")
    trip = MarkOrder(name="trip", kind=MarkKind.FAULT, by="kim")  # and nothing is recorded here
    listening.to_order = [replace(acknowledge, by=" \n "), replace(acknowledge, by="lee"), trip, acknowledge]
    lived(listening, desk, timeline=Silent())
    ((alarm, _),) = listening.alarms
    assert alarm.acknowledged_by == "kim"
    assert listening.refusals == ["mark:refused", "order:refused"]
    assert listening.said[0].plant_state == "no_data"


def test_what_the_detector_does_not_hold_any_more_has_returned():
    class Forgetful(Listening):
        def step(self, frame, newest):
            return replace(super().step(frame, newest), ticks=TickBuilder(PLANT).tick(frame))

    class Clocked(Ticking):
        def advance(self, now_ns):
            return [frame_of(PLANT, now_ns, {"A": 1.0, "B": 1.0})]

    listening, desk = Forgetful(), AlarmDesk()
    desk.log.record([event("a", S)])
    lived(listening, desk, timeline=Clocked())
    (alarm,) = desk.log.alarms
    assert alarm.anomaly.state is AnomalyState.CLEARED
    assert [a.anomaly.id for a, _ in listening.alarms] == ["a"]
    assert isinstance(listening.alarms[0][0], Alarm)
