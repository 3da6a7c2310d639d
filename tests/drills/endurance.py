"""A drill of endurance: a day of the lime line through all of a daemon, much faster than it passes."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from mosquitto import Mosquitto

from connectors.base import Source, SourceEnded
from connectors.settings import Supervision
from control.anomaly.alarms import AlarmConfig
from fusion.checkpoint import load_checkpoint
from fusion.clock import Clock
from fusion.daemon.allocator import keep_memory_low
from fusion.daemon.audit import AUDIT, Audit
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.memory import TickMemory
from fusion.daemon.outlet import MqttOutlet
from fusion.daemon.progression import FILE, Progress
from fusion.daemon.resume import columns_of
from fusion.daemon.seat import Seat
from fusion.daemon.service import Daemon
from fusion.daemon.store import Store
from fusion.garbage import set_apart
from fusion.inference import Engine
from fusion.plant_file import load_plant
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.recordings import recorder as recording
from fusion.recordings.recorder import Recorder, RecorderConfig
from fusion.recordings.recording import Recording, arrival_ns
from fusion.recordings.room import size
from fusion.records import NS_PER_S
from fusion.simulator.record import record, record_batch
from fusion.simulator.scenario import ExcitationSettings, FaultEvent, Scenario, Sensors
from fusion.simulator.simulation import Simulation
from fusion.timeline.timeline import Timeline
from fusion.training.settings import train_config
from fusion.training.train import train
from tests.drills.rig import Memory, Options, Outcome

CONFIGS = Path(__file__).parents[2] / "configs"
LIME = load_plant(CONFIGS / "plant" / "lime.yaml")
SENSORS = Sensors(lidar_hz=1.0)
EXCITED = ExcitationSettings(enabled=True, mean_interval_s=600.0)
STRETCH_S, SEED = 900, 7
SPEED = 200.0  # at most; the machine decides
A_SECOND, MOST_BEHIND = 100, 2**18  # values in the source's buffer; bytes that wait for the disk
RECORD = {
    "segment_s": 600.0,
    "slice_s": 60.0,
    "budget_gib": 0.5,
    "free_gib": 0.1,
    "thin": {"camera": 10, "silo_lidar": 10},
}
RECORD_TAGS = {"segment_s": 600.0, "slice_s": 60.0, "budget_gib": 0.01, "free_gib": 0.1}
WARM_S = 1800.0  # of the plant: windows of averages are full then
MOST_MIB_PER_H = 1.0
FAULT = FaultEvent(name="belt_slip", onset_s=500.0, ramp_s=5.0, end_s=560.0)
TAG_RUNS, TAG_S, MEDIA_RUNS, MEDIA_S = 6, 900.0, 5, 480.0


def commissioned(folder):
    """A model of a few steps of the line, with all its senses."""
    tags = [
        Scenario(name="tags", seed=100 + i, duration_s=TAG_S, media=False, excitation=EXCITED, start=_start(i))
        for i in range(TAG_RUNS)
    ]
    runs = record_batch(tags, LIME, folder)
    for i in range(MEDIA_RUNS):
        place = folder / f"media{i}"
        scenario = Scenario(seed=200 + i, duration_s=MEDIA_S, excitation=EXCITED, sensors=SENSORS, start=_start(10 + i))
        record(scenario, LIME, place)
        runs.append(place)
    settings = ["seconds=inf", "steps=16", "validate_every=8", "batch=8", "threads=1", "calibration_share=0.4"]
    train(runs, folder / "model", train_config(settings))


def _start(hour):
    return f"2026-01-05T{hour:02d}:00:00Z"


def stretch(seed, media=True):
    """A quarter of an hour of the line, second by second, with a fault in it."""
    more = {"excitation": EXCITED, "sensors": SENSORS, "faults": (FAULT,), "media": media}
    line = Simulation(Scenario(seed=seed, start=_start(20), **more), LIME)
    return [line.advance() for _ in range(STRETCH_S)]


class Again:
    """A stretch of plant time over and over, each time later, ``speed`` times as fast as it passes: a driver.

    It waits while ``held`` says so; ``now_ns`` is the plant's time.
    """

    message = ""

    def __init__(self, some, seconds, speed, held):
        self._some, self._seconds, self._speed, self._held = some, seconds, speed, held
        self.second, self.now_ns, self._began_s = 0, arrival_ns(some[0][0]), 0.0

    async def open(self):
        self._began_s = time.monotonic()

    async def read(self):
        if self.second == self._seconds:
            raise SourceEnded("the plant's time is over")
        await asyncio.sleep(max(self._began_s + self.second / self._speed - time.monotonic(), 0.0))
        while self._held():  # noqa: ASYNC110 - a thread that has no event to say so
            await asyncio.sleep(0.002)
        turn, place = divmod(self.second, len(self._some))
        self.second += 1
        items = [later(item, turn * len(self._some) * NS_PER_S) for item in self._some[place]]
        self.now_ns = max(self.now_ns, *map(arrival_ns, items))
        return items

    async def close(self):
        pass


def later(item, by_ns):
    """An item as it would come so much later."""
    return replace(item, t_ns=item.t_ns + by_ns, received_ns=item.received_ns + by_ns)


class Life:
    """All that `fusion run` puts together around a model, or without one, in the time of the feed."""

    def __init__(self, folder, plant, some, seconds, *, port, speed, judged=True, **record):
        self.feed = Again(some, seconds, speed, lambda: self.recorder._size > MOST_BEHIND)
        clock = Clock(lambda: self.feed.now_ns, lambda: self.feed.now_ns)
        state = folder / "state"
        engine = Engine(load_checkpoint(folder / "model", plant)) if judged else None
        self.seat = seat = Seat(plant, engine, progress=Progress(plant, state / FILE))
        settings = PublisherConfig(port=port, outbox=str(folder / "outbox.sqlite"), retry_s=0.05, retry_max_s=0.5)
        self.publisher = MqttPublisher(settings, plant, seat.model_id, clock=clock)
        self.recorder = Recorder(RecorderConfig(folder=str(folder / "records"), **record), plant, clock.now_ns)
        self.desk = AlarmDesk(AlarmConfig(keep=50), Store(state, plant.name))
        patience = Supervision(overflow="wait", buffer_values=A_SECOND)
        self.daemon = Daemon(
            [Source("line", plant.signals, lambda: self.feed, patience)],
            Timeline(plant),
            seat,
            MqttOutlet(self.publisher, seat),
            desk=self.desk,
            memory=TickMemory(state / "ticks", columns_of(plant), 3600.0),
            audit=Audit(state / AUDIT, clock.now_ns),
            recorder=self.recorder,
            lossless=True,
            clock=clock,
        )

    @property
    def counts(self):
        return {
            "ticks": self.daemon.statistics.ticks,
            "skipped_ticks": self.daemon.statistics.skipped_ticks,
            "events": self.seat.sequence,
            "not_recorded": self.recorder.dropped,
            "letters_delivered": self.publisher.published["anomaly"] + self.publisher.published["alarm"],
            "letters_waiting": self.publisher.waiting,
        }


def lived(folder, port, seconds, judged, tags):
    """A life in a process of its own, which says what it has counted, and at its end all of it."""
    keep_memory_low()
    some, record = stretch(SEED, media=not tags), RECORD_TAGS if tags else RECORD
    set_apart()
    recording.WAKE_S = 1.0 / SPEED

    async def life():
        made = Life(folder, LIME, some, seconds, port=port, speed=SPEED, judged=judged, **record)
        running = asyncio.create_task(made.daemon.run(asyncio.Event()))
        while not (await asyncio.wait({running}, timeout=0.3))[0]:
            print(json.dumps(made.counts), flush=True)
        await running
        print(json.dumps(made.counts | {"trouble": made.recorder.trouble}), flush=True)

    asyncio.run(life())


# --- the drills


def endurance(options: Options, folder):
    """Hours of the lime line through timeline, model, recorder and broker, as fast as the machine can."""
    commissioned(folder)
    return _endured(options, folder, RECORD, "judged")


def endurance_recorded(options: Options, folder):
    """The same without a model: ticks are made, told and recorded, and nothing is judged."""
    return _endured(options, folder, RECORD)


def endurance_tags(options: Options, folder):
    """The same of tags alone, without a model: a day of it in minutes."""
    return _endured(options, folder, RECORD_TAGS, "tags")


def _endured(options, folder, record, *how):
    seconds, broker, records = round(3600 * options.hours), Mosquitto(folder), folder / "records"
    command = [sys.executable, "-m", "tests.drills.endurance", str(folder), str(broker.port), str(seconds), *how]
    with (
        (folder / "life.log").open("w") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            memory, most, counts, began = Memory(process.pid), 0, {}, None
            for line in process.stdout:
                counts, began = json.loads(line), began or time.monotonic()
                with contextlib.suppress(OSError):  # it has just ended, or a file has just gone
                    memory.note(counts["ticks"])
                    most = max(most, size(records))
        finally:
            process.terminate()
            broker.stop()
    counts |= _kept(records) | {"disk_MiB_most": round(most / 2**20, 1)} | memory.counts(min(WARM_S, seconds / 3))
    counts["times_real"] = round(counts["ticks"] / (time.monotonic() - began), 1)
    return _outcome(seconds, counts, record, process.returncode)


def _kept(records):
    """Recordings that are whole, what they hold of the plant's time, and what a day of it takes."""
    segments = [Recording.verified(path) for path in sorted(records.glob("2*"))]
    hours = sum(segment.span_s for segment in segments) / 3600
    return {
        "segments": len(segments),
        "kinds": Counter(segment.kind for segment in segments),
        "hours_kept": round(hours, 2),
        "disk_MiB_a_day": round(24 * sum(segment.bytes for segment in segments) / hours / 2**20),
    }


def _outcome(seconds, counts, record, code):
    growth = counts["own_MiB_per_h_warm"]
    budget = 1024 * record["budget_gib"]
    steady = seconds < 2 * WARM_S or growth < MOST_MIB_PER_H
    whole = counts["ticks"] >= seconds - 2 and not counts["not_recorded"] and not counts["letters_waiting"]
    grown = counts["descriptors_last"] - counts["descriptors_first"]
    said = f"{growth} MiB an hour of the plant's once warm and {grown} descriptors"
    return Outcome(
        passed=code == 0 and counts["disk_MiB_most"] <= budget and steady and whole,
        lost=f"{said}; disk {counts['disk_MiB_most']} of {budget:g} MiB; {seconds - counts['ticks']} ticks",
        parameters={"hours": seconds / 3600, "stretch_s": STRETCH_S, "seed": SEED, **record},
        counts=counts,
    )


DRILLS = (endurance, endurance_recorded, endurance_tags)

if __name__ == "__main__":
    lived(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "judged" in sys.argv, "tags" in sys.argv)
