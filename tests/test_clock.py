"""One time axis: a step of the system's clock, at boot or live, loses nothing."""

import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from connectors.base import Source, Tally
from connectors.columns import ColumnsBuilder
from connectors.settings import Supervision
from fusion.clock import CLOCK, Clock
from fusion.daemon.service import Daemon
from fusion.outcome import Outcome
from fusion.plant import Plant, Role, Signal
from fusion.records import NS_PER_S
from fusion.timeline.timeline import Timeline

HOUR_NS = 3600 * NS_PER_S
PLANT = Plant(name="clocked", signals=(Signal(name="A"), Signal(name="B")))


def test_a_step_of_the_system_clock_moves_nothing_and_is_told():
    system, monotonic = [1000 * NS_PER_S], [5 * NS_PER_S]
    clock = Clock(lambda: system[0], lambda: monotonic[0])
    system[0] += HOUR_NS + 2 * NS_PER_S
    monotonic[0] += 2 * NS_PER_S
    assert clock.now_ns() == 1002 * NS_PER_S
    assert clock.stepped_s() == pytest.approx(3600.0)
    assert clock.utc_ns(5 * NS_PER_S) == 1000 * NS_PER_S


class Teller:
    """A driver of both tags, five times a second, stamped by a server whose clock is right."""

    message = ""

    async def open(self):
        pass

    async def read(self):
        await asyncio.sleep(0.2)
        rows = ColumnsBuilder()
        for index in range(2):
            rows.add(index, CLOCK.now_ns(), CLOCK.now_ns(), 1.0, 2)
        return [rows.columns(("A", "B"), "server", None)]

    async def close(self):
        pass


class Listening:
    """An engine that only looks, and an outlet that only keeps."""

    plant, model_id, calibrated_hours, level, mode, flags = PLANT, "m", 1.0, "observe", "observe", ()
    sequence, notes, settled, trouble = 0, {}, True, ""

    def __init__(self):
        self.frames, self.said, self.gaps, self.to_answer, self.answered = [], [], [], [], []
        self.to_order, self.alarms, self.refusals = [], [], []

    def step(self, frame, newest):
        self.frames.append(frame)
        return Outcome.empty(frame, ())

    def outcome(self, outcome):
        pass

    def health(self, health):
        self.said.append(health)

    def gap(self, gap):
        self.gaps.append(gap)

    def answers(self):
        return [self.to_answer.pop()] if self.to_answer else []

    def answer(self, answer):
        self.answered.append(answer)

    def orders(self):
        return [self.to_order.pop()] if self.to_order else []

    verifier = None

    def questions(self):
        return ()

    def refused(self, what):
        self.refusals.append(what)

    def alarm(self, alarm, t_ns):
        self.alarms.append((alarm, t_ns))

    def again(self, alarm, t_ns):
        self.alarms.append((alarm, t_ns))

    def note_skipped(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_steps_while_the_daemon_runs_closes_no_tick_before_its_data(monkeypatch, hours):
    real_ns = time.time_ns

    async def scenario():
        listening = Listening()
        source = Source("plc", PLANT.signals, Teller, Supervision(), tally=Tally())
        daemon = Daemon([source], Timeline(PLANT), listening, listening)
        stop = asyncio.Event()
        running = asyncio.create_task(daemon.run(stop))
        await asyncio.sleep(1.5)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + hours * HOUR_NS)
        await asyncio.sleep(3.0)
        stop.set()
        await running
        return listening

    listening = asyncio.run(scenario())
    seen = [frame for frame in listening.frames[1:] if frame.observed_S.all()]
    assert len(seen) >= 3
    assert len(listening.frames) <= 7
    assert all(np.all(frame.age_s_S <= 1.5) for frame in seen)


def test_the_daemon_says_that_the_host_clock_has_stepped():
    stepped = [0]
    clock = Clock(lambda: time.time_ns() + stepped[0])
    listening = Listening()
    daemon = Daemon([], Timeline(PLANT), listening, listening, clock=clock)
    assert daemon.health("online").flags == ()
    stepped[0] = -HOUR_NS
    assert daemon.health("online").flags == ("clock:host",)


def test_sources_daemon_publisher_and_simulator_share_one_axis():
    """The axis is made once, before anything that asks for the time, so that no step can come between."""
    code = (
        "import time; real = time.time_ns; steps = iter(range(10**6));"
        "time.time_ns = lambda: real() + next(steps) * 3600 * 10**9;"
        "import fusion.clock, fusion.daemon.service as s, fusion.publish.publisher as p, connectors.base as b;"
        "import fusion.simulator.live as l, inspect;"
        "clocks = {id(m.CLOCK) for m in (fusion.clock, s, p, b, l)};"
        "assert len(clocks) == 1, clocks;"
        "assert inspect.signature(p.MqttPublisher).parameters['clock'].default is fusion.clock.CLOCK"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_a_loop_that_takes_no_setpoint_is_told_by_its_tag():
    from fusion.outlook import available

    loop = Signal(name="SP", role=Role.MANIPULATED, low=0.0, high=1.0, auto_tag="AUTO")
    plant = SimpleNamespace(actions=(loop, Signal(name="X", role=Role.MANIPULATED, low=0.0, high=1.0)))
    for values, expected in (({"AUTO": 1.0}, True), ({"AUTO": 0.0}, False), ({}, False)):
        assert available(plant, SimpleNamespace(values=values)) == {"SP": expected}
