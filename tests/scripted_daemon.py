"""A daemon of real parts around an engine that opens and clears events by a script, and a life of it to be killed."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from grid_runs import frame_of

from control.anomaly.alarms import AlarmConfig
from fusion.clock import CLOCK
from fusion.daemon import clerk, service
from fusion.daemon.audit import AUDIT, Audit
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.memory import TickMemory
from fusion.daemon.outlet import MqttOutlet
from fusion.daemon.service import Daemon
from fusion.daemon.store import Store
from fusion.outcome import Outcome
from fusion.plant import Plant, Signal
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.records import NS_PER_S, Anomaly, AnomalyKind, AnomalyState
from fusion.timeline.timeline import TimelineHealth
from models.ticks import TickBuilder

PLANT = Plant(name="kiln", signals=(Signal(name="TT1", unit="Cel"),))


def event(name, t_ns, state=AnomalyState.RAISED, onset_ns=None):
    return Anomaly(
        id=name,
        t_onset_ns=t_ns if onset_ns is None else onset_ns,
        t_ns=t_ns,
        state=state,
        p_value=1e-6,
        kind=AnomalyKind.PROCESS,
        by_modality={"process": 1.0},
        top_signals=(),
        energies=(("innovation.1", 2.0),),
        model_id="m",
    )


class Scripted:
    """As much of an engine as a daemon asks for; ``play`` gives what happens at each tick."""

    plant, model_id, calibrated_hours, level, mode = PLANT, "m", 1.0, "observe", "observe"
    flags, calibration, notes = (), None, {}

    def __init__(self, sequence=0, play=lambda engine, t_ns: []):
        self.sequence, self.open, self.accepted, self.skips = sequence, {}, [], 0
        self._play, self._builder = play, TickBuilder(PLANT)

    def resume(self, anomalies):
        self.open = {anomaly.id: anomaly for anomaly in anomalies}

    def rise(self, t_ns):
        self.sequence += 1
        return self._changed(event(f"kiln-{self.sequence}", t_ns))

    def fall(self, name, t_ns):
        return self._changed(event(name, t_ns, AnomalyState.CLEARED, self.open[name].t_onset_ns))

    def _changed(self, anomaly):
        self.open[anomaly.id] = anomaly
        if anomaly.state is AnomalyState.CLEARED:
            del self.open[anomaly.id]
        return anomaly

    def step(self, frame, newest):
        changes = self._play(self, frame.t_ns)
        standing = tuple(self.open.values())
        return Outcome(
            frame=frame,
            surprise=None,
            anomalies=tuple(changes),
            open_anomalies=standing,
            forecast=None,
            recommendation=None,
            flags=(),
            ticks=self._builder.tick(frame),
        )

    def accept(self, name):
        self.accepted.append(name)

    def answer(self, answer):
        pass

    def note_skipped(self):
        self.skips += 1


class Ticking:
    """A timeline that closes a tick whenever it is asked."""

    def advance(self, now_ns):
        return [frame_of(PLANT, now_ns, {"TT1": 1.0})]

    def health(self):
        counted = ("late", "duplicates", "bad", "dropped", "clock_offset_s", "clock_steps", "clock_of")
        nothing = {name: {} for name in counted}
        return TimelineHealth(**nothing, skewed=())


def daemon(folder, port, play, config=None):
    """Store, desk, memory, outbox and publisher as `fusion run` puts them together."""
    desk = AlarmDesk(config or AlarmConfig(keep=100_000), Store(folder / "state", PLANT.name))
    engine = Scripted(desk.sequence, play)
    memory = TickMemory(folder / "state" / "ticks", "m", 3600)
    memory.recall(CLOCK.now_ns(), 600)
    engine.resume(desk.open)
    settings = PublisherConfig(port=port, retry_s=0.02, retry_max_s=0.1, outbox=str(folder / "outbox.sqlite"))
    publisher = MqttPublisher(settings, PLANT, "m")
    outlet, audit = MqttOutlet(publisher, engine), Audit(folder / "state" / AUDIT)
    return Daemon([], Ticking(), engine, outlet, desk=desk, memory=memory, audit=audit), engine, publisher


# --- lives that end by SIGKILL


def restless(chance):
    def play(engine, t_ns):
        changes = []
        if len(engine.open) < 4 and chance.random() < 0.5:
            changes.append(engine.rise(t_ns))
        elif len(engine.open) > 1 and chance.random() < 0.5:  # so that one stands when all is over
            changes.append(engine.fall(next(iter(engine.open)), t_ns))
        return changes

    return play


def live(folder, port, play, enough=lambda publisher: False):
    async def life():
        made, engine, publisher = daemon(folder, port, play)
        resumed, stop = sorted(engine.open), asyncio.Event()
        running = asyncio.create_task(made.run(stop))
        while not enough(publisher):
            await asyncio.wait({running}, timeout=0.05)
            assert not running.done(), "a life ended by itself"
        stop.set()
        await running
        return resumed

    return asyncio.run(life())


def main(folder, port, kills):
    """Lives of a few milliseconds to a third of a second, then one in which nothing happens and all is delivered."""
    service.INTAKE_PERIOD_S, clerk.ORDERS_PERIOD_S, service.HEALTH_PERIOD_S = 0.004, 0.02, 0.1
    chance = random.Random(11)
    for life in range(kills):
        child = os.fork()
        if not child:
            live(folder, port, restless(random.Random(life)))
            os._exit(1)
        time.sleep(chance.uniform(0.004, 0.28))
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(ended), "a life ended by itself"
    started = time.monotonic()

    def delivered(publisher):
        return time.monotonic() - started > 1.0 and publisher.settled and publisher.waiting == 0

    resumed = live(folder, port, lambda engine, t_ns: [], delivered)
    print(json.dumps({"resumed": resumed, "now_s": CLOCK.now_ns() / NS_PER_S}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
