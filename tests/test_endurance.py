"""A daemon that runs for months does not grow: after a stretch of ticks as much is alive as after the one before it."""

import asyncio
import gc
import sys

import numpy as np
from mosquitto import Mosquitto, needs_broker

from fusion.recordings.normal import SETTLING_S
from fusion.recordings.recording import Recording
from fusion.recordings.room import GIB
from fusion.records import NS_PER_S, Columns, Quality
from fusion.training.settings import train_config
from fusion.training.train import train
from tests.drills.endurance import Life
from tests.small_plants import SMALL, small_values, write_recording

START_S = 1_700_000_000
STRETCH, UPSET = 150, slice(100, 115)
WARM, MEASURED, EVERY = 760, 300, 20  # ticks: trails are full after 720
BUDGET = 120_000  # bytes: less than all of it takes


def stretch():
    """Some minutes of the small plant, second by second, with an upset that is an event."""
    values = small_values(11, STRETCH)
    values["TT1"][UPSET] += 20.0
    names = tuple(values)
    for second in range(STRETCH):
        stamps = np.full(len(names), (START_S + 86_400 + second) * NS_PER_S)
        yield [
            Columns(
                signals=names,
                index=np.arange(len(names), dtype=np.int32),
                t_ns=stamps,
                received_ns=stamps + NS_PER_S // 100,
                value=np.array([values[name][second] for name in names]),
                quality=np.full(len(names), Quality.GOOD, np.uint8),
                clock="plc",
            )
        ]


async def alive(daemon):
    """Blocks of memory that Python holds, every so many ticks of a daemon's life, by the tick."""
    running, found = asyncio.create_task(daemon.run(asyncio.Event())), {}
    while not running.done():
        await asyncio.sleep(0.005)
        if daemon.statistics.ticks // EVERY > len(found):
            gc.collect()
            found[daemon.statistics.ticks] = sys.getallocatedblocks()
    await running
    return found


@needs_broker
def test_nothing_grows_with_ticks_events_and_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.recordings.recorder.WAKE_S", 0.01)
    run = write_recording(tmp_path / "run", SMALL, small_values(0, 3700), START_S)
    train([run], tmp_path / "model", train_config(["steps=0", "threads=1"]))
    broker, record = Mosquitto(tmp_path), {"segment_s": 60.0, "budget_gib": BUDGET / GIB, "free_gib": 0.0}
    try:
        life = Life(tmp_path, SMALL, list(stretch()), WARM + 2 * MEASURED, port=broker.port, speed=1e9, **record)
        found = asyncio.run(alive(life.daemon))
    finally:
        broker.stop()
    parts = [[n for tick, n in found.items() if at <= tick < at + MEASURED] for at in (WARM, WARM + MEASURED)]
    before, after = (min(part) for part in parts)
    assert after - before < MEASURED  # a record that is kept of each tick is a dozen times that
    assert life.counts["events"] >= 2
    assert life.counts["not_recorded"] == life.counts["letters_waiting"] == 0
    kept = [Recording.verified(path) for path in (tmp_path / "records").glob("2*")]
    assert 2 < len(kept) < (WARM + 2 * MEASURED) / 60 - 3
    marks = life.recorder._journal._marks.values()
    assert min(mark.end_ns or 2**62 for mark in marks) >= min(r.span_ns[0] for r in kept) - round(SETTLING_S * NS_PER_S)
