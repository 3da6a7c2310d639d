import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Signal
from fusion.recordings import normal
from fusion.recordings.held import CLOCK
from fusion.recordings.marks import Journal, Mark, MarkKind, kind_of
from fusion.recordings.recorder import OPEN, WAKE_S, Recorder, RecorderConfig
from fusion.recordings.recording import Recording
from fusion.recordings.room import GIB, Room, size
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Sample
from fusion.timeline.history import process_grid

TURN_S = 1.5 * WAKE_S
T0 = 1_780_000_000 * NS_PER_S
PLANT = Plant(
    name="own",
    signals=(
        Signal(name="T", unit="Cel"),
        Signal(name="cam", modality=Modality.VIDEO, shape=(16, 16), unit="1", period_s=0.5),
        Signal(name="mic", modality=Modality.AUDIO, shape=(800,), unit="1", period_s=1.0),
        Signal(name="scan", modality=Modality.LIDAR, shape=(64, 4), unit="m", period_s=1.0),
    ),
)


class Hands:
    """A clock that is set by hand."""

    def __init__(self):
        self.t_ns = T0

    def __call__(self):
        return self.t_ns


def value(t_ns, number):
    return Columns(
        signals=("T",),
        index=np.zeros(1, np.int32),
        t_ns=np.array([t_ns]),
        received_ns=np.array([t_ns]),
        value=np.array([float(number)]),
        quality=np.array([2], np.uint8),
        clock="plc",
    )


def media(t_ns, number):
    picture = np.full((16, 16), number % 200, np.uint8)
    sound = np.full(800, 0.25, np.float32)
    cloud = np.full((5, 4), number, np.float32)
    for name, what in (("cam", picture), ("mic", sound), ("scan", cloud)):
        yield Sample(signal=name, t_ns=t_ns, received_ns=t_ns, value=what, clock="box")


def settle(recorder):
    """Wait until the recorder's thread has taken what it was given."""
    deadline = time.monotonic() + 10
    while recorder._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)


def recorded(folder, seconds, clock=None, **settings):
    """A recorder that has seen some seconds, and is closed."""
    clock = clock or Hands()
    recorder = Recorder(RecorderConfig(folder=str(folder), **settings), PLANT, clock)
    recorder.start()
    for second in range(seconds):
        clock.t_ns += NS_PER_S
        recorder.add(value(clock.t_ns, second))
        for sample in media(clock.t_ns, second):
            recorder.add(sample)
        if clock.t_ns // NS_PER_S % 5 == 0:
            settle(recorder)
    recorder.close()
    return recorder


def test_what_arrives_becomes_recordings_that_hold_all_of_it(tmp_path):
    recorder = recorded(tmp_path, 47, segment_s=20, slice_s=5)
    segments = recorder.segments()
    assert len(segments) >= 2
    assert not list((tmp_path / OPEN).iterdir())
    for segment in segments:
        segment.verify()
    values = np.concatenate([s.table().filter(pl.col("clock") != CLOCK)["value"].to_numpy() for s in segments])
    assert values.tolist() == list(range(47))
    items = [item for s in segments for item in s.items() if isinstance(item, Sample)]
    assert [sum(item.signal == name for item in items) for name in ("cam", "mic", "scan")] == [47, 47, 47]
    pictures = [int(item.value.mean().round()) for item in items if item.signal == "cam"]
    np.testing.assert_allclose(pictures, np.arange(47) % 200, atol=3)
    assert {item.clock for item in items} == {"box"}


def test_pictures_of_a_camera_are_recorded_as_they_came(tmp_path):
    recorder, noise = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT, Hands()), np.random.default_rng(0)
    pictures = [noise.integers(90, 110, (16, 16), np.uint8) for _ in range(25)]
    recorder.start()
    for number, picture in enumerate(pictures):
        t_ns = T0 + number * NS_PER_S // 2
        recorder.add(Sample(signal="cam", t_ns=t_ns, received_ns=t_ns, value=picture, clock="box"))
    recorder.close()
    (segment,) = recorder.segments()
    seen = [item.value for item in segment.items() if isinstance(item, Sample)]
    assert len(seen) == len(pictures)
    assert all(np.array_equal(kept, came) for kept, came in zip(seen, pictures, strict=True))


def test_pictures_and_clouds_may_be_thinned_and_sound_not(tmp_path):
    segments = recorded(tmp_path, 20, slice_s=5, thin={"cam": 5, "scan": 2}).segments()
    names = [item.signal for s in segments for item in s.items() if isinstance(item, Sample)]
    assert [names.count(name) for name in ("cam", "mic", "scan")] == [4, 20, 10]
    with pytest.raises(ConfigError, match=r"record.thin: 'mic' is not accepted; expected some of cam, scan"):
        Recorder(RecorderConfig(folder=str(tmp_path / "other"), thin={"mic": 2}), PLANT)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_recorder import *
folder = Path(sys.argv[1])
recorder = Recorder(RecorderConfig(folder=str(folder), slice_s=0.2, segment_s=1.0), PLANT)
recorder.start()
number = int(sys.argv[2])
while True:
    now = time.time_ns()
    recorder.add(value(now, number))
    for sample in media(now, number):
        recorder.add(sample)
    print(number, flush=True)
    number += 1
    time.sleep(0.005)
"""


def test_a_process_that_is_killed_loses_no_more_than_the_open_slice(tmp_path):
    rng, number, lost = np.random.default_rng(5), 0, []
    for _ in range(6):
        code = KILLED.format(tests=str(Path(__file__).parent))
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], stdout=subprocess.PIPE)
        first = child.stdout.readline()
        time.sleep(0.4 + rng.random())
        os.kill(child.pid, signal.SIGKILL)
        given = [int(line) for line in (first + child.stdout.read()).split()]
        child.wait()
        child.stdout.close()
        number = given[-1] + 1
        recorder = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT)
        recorder.start()
        recorder.close()
        kept = [int(v) for s in recorder.segments() for v in s.table()["value"]]
        assert len(kept) == len(set(kept))
        lost.append(len(set(given) - set(kept)) * 0.005)
        assert set(given) - set(kept) == set(range(given[-1] + 1 - len(set(given) - set(kept)), given[-1] + 1))
    assert max(lost) < 0.2 + 1.0, lost  # the slice, and what waits for the thread to wake
    for segment in recorder.segments():
        segment.verify()


def test_a_tag_that_rests_is_known_in_every_recording(tmp_path):
    """A server tells a setpoint once; afterwards keep-alives say that it is as it was."""
    plant = Plant(name="own", signals=(Signal(name="SP", unit="Cel"), Signal(name="T", unit="Cel")))
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), segment_s=20, slice_s=5), plant, clock)
    recorder.start()
    for second in range(60):
        clock.t_ns += NS_PER_S
        told = replace(value(clock.t_ns, second), signals=("T", "SP"), heartbeat_ns=clock.t_ns)
        if second == 0:
            recorder.add(replace(value(clock.t_ns, 74.5), signals=("SP",)))
        recorder.add(told)
        settle(recorder)
    recorder.close()
    segments = recorder.segments()
    assert len(segments) == 3
    for segment in segments:
        grid = process_grid(segment)
        assert grid.observed[1:, 0].all()
        assert set(grid.value[1:, 0]) == {74.5}
        assert segment.span_ns[1] - segment.span_ns[0] < 25 * NS_PER_S


@pytest.mark.parametrize(
    ("kind", "until_s", "oldest", "newest"),
    [
        (MarkKind.MAINTENANCE, 1, True, True),
        (MarkKind.ALARM, None, False, True),
        (MarkKind.FAULT, None, True, False),
    ],
)
def test_no_more_disk_is_taken_than_the_budget_says(tmp_path, monkeypatch, kind, until_s, oldest, newest):
    """But for a slice that is larger than any before: open slices and what is being joined count too.

    What people have marked stays, what only alarms have marked goes.
    """
    a_segment = size(recorded(tmp_path / "one", 10, slice_s=5).segments()[0].path)
    clock, place, most, remove = Hands(), tmp_path / "kept", [], shutil.rmtree

    def measured(path, **how):
        most.append(size(place))
        remove(path, **how)

    monkeypatch.setattr(shutil, "rmtree", measured)
    monkeypatch.setattr("fusion.recordings.recorder.WAKE_S", 0.01)
    budget = 6 * a_segment
    config = RecorderConfig(folder=str(place), slice_s=5, segment_s=10, budget_gib=budget / GIB)
    recorder = Recorder(config, PLANT, clock)
    recorder.start()
    end_ns = None if until_s is None else T0 + until_s * NS_PER_S
    recorder.mark(Mark(name="it", kind=kind, onset_ns=T0, end_ns=end_ns, by="kim"))
    for second in range(90):
        clock.t_ns += NS_PER_S
        recorder.add(value(clock.t_ns, second))
        for sample in media(clock.t_ns, second):
            recorder.add(sample)
        if second % 5 == 4:
            settle(recorder)
    recorder.close()
    assert max(most) <= budget + a_segment / 2
    begins = [(segment.span_ns[0] - T0) / NS_PER_S for segment in recorder.segments()]
    assert len(begins) >= 2
    assert (begins[0] < 10, begins[-1] > 70) == (oldest, newest)
    assert ("marked recordings fill the budget" in recorder.trouble) == (not newest)


def test_a_disk_with_less_free_than_is_to_be_kept_is_named_until_there_is_room(tmp_path, caplog):
    clock = Hands()
    short = recorded(tmp_path, 10, clock, slice_s=5, free_gib=1e9)
    assert short.segments() == []
    assert "record.free_gib keeps 1e+09; make room" in short.trouble
    assert [line.count("what is recorded goes again") for line in caplog.messages if "free_gib" in line] == [1]
    clock.t_ns += 60 * NS_PER_S
    roomy = recorded(tmp_path, 10, clock, slice_s=5)
    assert (len(roomy.segments()), roomy.trouble) == (1, "")


def test_marks_say_what_may_be_learned_from(tmp_path):
    journal = Journal(tmp_path / "marks.jsonl")
    alarm = Mark(name="own-1", kind=MarkKind.ALARM, onset_ns=100, end_ns=200, verdict="sensor", signals=("T",))
    journal.add(alarm)
    assert kind_of(journal.within(150, 300)) == "marked"
    assert kind_of(journal.within(201, 300)) == "normal"
    journal.add(Mark(name="own-1 good", kind=MarkKind.GOOD, onset_ns=90, end_ns=250, by="kim"))
    with (tmp_path / "marks.jsonl").open("a") as stream:
        stream.write('{"name": "half')
    again = Journal(tmp_path / "marks.jsonl")
    again.add(replace(alarm, name="own-2", onset_ns=400, end_ns=None))
    read = Journal(tmp_path / "marks.jsonl")
    assert kind_of(read.within(150, 300)) == "normal"
    assert [mark.name for mark in read.within(10**15, 10**16)] == ["own-2"]
    for wrong, text in (({"name": " "}, "a name is missing"), ({"name": "x", "end_ns": 1}, "it ends before it begins")):
        with pytest.raises(ConfigError, match=text):
            Mark(kind=MarkKind.FAULT, onset_ns=5, **wrong)


def test_a_disk_that_takes_nothing_is_said_and_recording_goes_on_after_it(tmp_path, caplog):
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=5), PLANT, clock)
    recorder.start()
    (tmp_path / OPEN).rmdir()
    (tmp_path / OPEN).write_text("in the way")
    recorder.add(value(clock.t_ns, 1))
    settle(recorder)
    assert "record: " in recorder.trouble
    assert recorder.dropped == 1
    assert "record: 1 items are not recorded by now" in caplog.text
    (tmp_path / OPEN).unlink()
    (tmp_path / OPEN).mkdir()
    recorder.add(value(clock.t_ns, 2))
    settle(recorder)
    recorder.close()
    assert recorder.trouble == ""
    assert [s.table()["value"].to_list() for s in recorder.segments()] == [[2.0]]


def test_a_full_disk_is_said_until_a_slice_is_whole_and_what_it_cost_is_counted(tmp_path, monkeypatch):
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=5), PLANT, clock)
    recorder.start()
    close = RecordingWriter.close

    def full(_writer):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said = []
    for number, writes in enumerate((full, full, close)):
        monkeypatch.setattr(RecordingWriter, "close", writes)
        recorder.add(value(clock.t_ns, number))
        settle(recorder)
        said.append(recorder.trouble)
        clock.t_ns += 6 * NS_PER_S
        time.sleep(TURN_S)
        said.append(recorder.trouble)
    recorder.close()
    full_disk = f"record: {tmp_path}: No space left on device"
    assert said == ["", full_disk, full_disk, full_disk, full_disk, ""]
    assert recorder.dropped == 2
    assert [s.table()["value"].to_list() for s in recorder.segments()] == [[2.0]]


def test_a_full_disk_takes_from_the_oldest_before_the_segment_is_over(tmp_path, monkeypatch):
    clock, free = Hands(), [10 * 2**30]
    recorded(tmp_path, 10, clock, slice_s=5)
    monkeypatch.setattr(Room, "_free", lambda _: free[0])
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=5), PLANT, clock)
    recorder.start()
    recorder.add(value(clock.t_ns, 1))
    settle(recorder)
    assert len(recorder.segments()) == 1
    free[0] = 2**30
    clock.t_ns += 6 * NS_PER_S
    deadline = time.monotonic() + 10
    while not recorder.trouble and time.monotonic() < deadline:
        time.sleep(0.05)
    assert recorder.segments() == []
    assert "record.free_gib keeps 2" in recorder.trouble
    recorder.close()


def test_a_clock_that_was_set_back_costs_no_recording(tmp_path):
    clock = Hands()
    for length in (5, 10):
        clock.t_ns = T0
        recorder = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT, clock)
        recorder.start()
        recorder.add(value(clock.t_ns + length, length))
        recorder.add(value(clock.t_ns + length * NS_PER_S, length))
        settle(recorder)
        recorder.close()
    assert [s.table()["value"].to_list() for s in recorder.segments()] == [[5.0, 5.0], [10.0, 10.0]]


def test_a_segment_may_be_closed_before_its_time_and_its_normal_part_is_told(tmp_path):
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT, clock)
    recorder.start()
    recorder.add(value(clock.t_ns, 1))
    settle(recorder)
    clock.t_ns += 7 * NS_PER_S
    assert recorder.open_s == pytest.approx(7.0, abs=1.0)
    recorder.cut()
    deadline = time.monotonic() + 10
    while recorder.open_s and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(recorder.segments()) == 1
    assert recorder.open_s == 0.0
    recorder.mark(Mark(name="trip", kind=MarkKind.FAULT, onset_ns=clock.t_ns))
    recorder.add(value(clock.t_ns, 2))
    settle(recorder)
    clock.t_ns += 7 * NS_PER_S
    assert recorder.open_s == 0.0
    recorder.close()
    assert [s.kind for s in recorder.segments()] == ["normal", "marked"]


def test_a_mark_costs_what_it_covers_and_what_settles_after_it(tmp_path):
    """The plant settles in the recording that follows; where the mark is moved, both are normal again."""
    clock = Hands()
    recorded(tmp_path, 10, clock)
    first, second = recorded(tmp_path, 10, clock).segments()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT, clock)
    recorder.start()
    start_ns, end_ns = first.span_ns
    cleaned = Mark(
        name="cleaned", kind=MarkKind.MAINTENANCE, onset_ns=start_ns + 2 * NS_PER_S, end_ns=end_ns - NS_PER_S
    )
    recorder.mark(cleaned)
    settle(recorder)
    marked = recorder.segments()
    assert [(s.kind, s.events[0].ignore) for s in marked] == [("marked", True)] * 2
    assert normal.of(marked[0]) == [(start_ns, cleaned.onset_ns)]
    assert normal.of(marked[1]) == []
    assert normal.hours(marked) == pytest.approx(2 / 3600)
    recorder.mark(replace(cleaned, onset_ns=end_ns + 10**12, end_ns=end_ns + 2 * 10**12))
    recorder.close()
    assert [s.kind for s in recorder.segments()] == ["normal", "normal"]
    assert normal.of(recorder.segments()[1]) == [second.span_ns]


def test_two_processes_do_not_record_into_one_folder(tmp_path):
    config = RecorderConfig(folder=str(tmp_path))
    recorder = Recorder(config, PLANT)
    with pytest.raises(ConfigError, match="recorded into by another process"):
        Recorder(config, PLANT)
    recorder.close()
    Recorder(config, PLANT).close()


def test_a_manifest_says_what_was_marked_and_hashes_stay_true(tmp_path):
    recorder = recorded(tmp_path, 8, slice_s=5)
    (segment,) = recorder.segments()
    assert segment.kind == "normal"
    again = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT, Hands())
    again.start()
    again.mark(Mark(name="leak at P1", kind=MarkKind.FAULT, onset_ns=T0 + 3 * NS_PER_S, by="kim", verdict="process"))
    again.close()
    marked = Recording.verified(segment.path)
    assert (marked.kind, marked.events[0].name, marked.events[0].kind) == ("marked", "leak at P1", "process")
    assert json.loads((segment.path / "manifest.json").read_text())["files"]
