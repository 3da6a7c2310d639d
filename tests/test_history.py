from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusion.recordings.recording import Recording
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Frame, Item, MediaTick
from fusion.timeline.history import frames, process_grid
from fusion.timeline.timeline import Timeline, TimelineConfig
from fusion.training.ticks import ticks
from tests.timeline_streams import PLANT, TAGS, at, bulk, differing, later, live, rows, seconds


def write(path: Path, items: list[Item]) -> Recording:
    with RecordingWriter(path, PLANT) as writer:
        for item in items:
            writer.write(item)
    return Recording(path)


def troubled(seed: int, last_s: int = 40) -> list[Item]:
    """Process values from two clocks with delays, an outage, heartbeats and a clock that steps."""
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    for second in range(last_s):
        for tag in TAGS:
            if not 12 < second < 20 or tag == "TT101":
                slow = int(rng.choice([0.02, 0.3, 2.5], p=[0.8, 0.15, 0.05]) * rng.uniform() * NS_PER_S)
                clock = "skid" if tag == "FT101" else "plc"
                skew_s = 4.0 if clock == "skid" and second > 25 else 0.0
                stamp_s = second + rng.uniform()
                item = rows([(tag, stamp_s - skew_s, rng.normal())], arrival_s=stamp_s, clock=clock)
                items.append(later(item, slow))
        items.append(rows([], beat_s=second + 0.5))
    return items


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows_at_once", [7, 10**6])
def test_the_bulk_way_gives_the_values_of_the_frames(
    tmp_path: Path, seed: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fusion.timeline.history._ROWS_AT_ONCE", rows_at_once)
    recording = write(tmp_path / "run", troubled(seed))
    shown = list(frames(recording))
    grid = process_grid(recording)
    assert grid.t_ns.tolist() == [frame.t_ns for frame in shown]
    for i, frame in enumerate(shown):
        observed = {name for name, seen in zip(TAGS, grid.observed[i], strict=True) if seen}
        assert observed == frame.values.keys()
        for j, name in enumerate(TAGS):
            assert name not in observed or frame.values[name] == grid.value[i, j]
            assert frame.age_s.get(name, np.inf) == grid.age_s[i, j]
            assert frame.coverage[name] == grid.coverage[i, j]
            assert frame.quality.get(name, 0) == grid.quality[i, j]


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_gives_the_frames_that_were_seen_live(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    whole = [i for i in seconds(0, 20) if not isinstance(i, Columns) and i.signal != "camera"]
    items = [*troubled(seed, 20), *[later(i, int(rng.exponential(0.1) * NS_PER_S)) for i in whole]]
    seen = live(Timeline(PLANT), items, [at(0.05 * i) for i in range(1, 400)])
    replayed = list(frames(write(tmp_path / "run", items)))
    heard = [frame.values.get("microphone") for frame in replayed]
    for frame, sound in zip(seen, heard, strict=True):
        if sound is not None:
            assert np.allclose(frame.values["microphone"], sound, atol=2e-5)
    assert differing([_silent(f) for f in seen], [_silent(f) for f in replayed]) == []


def _silent(frame: Frame) -> Frame:
    return replace(frame, media={**frame.media, "microphone": MediaTick()})


def test_a_path_will_do_and_settings_reach_the_timeline(tmp_path: Path):
    recording = write(tmp_path / "run", seconds(0, 5))
    assert [f.t_ns for f in frames(tmp_path / "run")] == [f.t_ns for f in bulk(seconds(0, 5))]
    late = [later(i, NS_PER_S) if isinstance(i, Columns) else i for i in seconds(0, 8)]
    patient = write(tmp_path / "late", late)
    short = TimelineConfig(lateness_s=0.1, deadline_s=0.2, idle_after_s=0.3, skew_tolerance_s=3.0)
    assert list(frames(patient, short))[4].coverage["TT101"] == 0.0
    assert list(frames(patient, TimelineConfig(skew_tolerance_s=3.0)))[4].coverage["TT101"] == 1.0
    assert recording.has_media


def test_an_empty_recording_has_no_ticks(tmp_path: Path):
    recording = write(tmp_path / "run", [])
    assert list(frames(recording)) == []
    assert len(process_grid(recording).t_ns) == 0


def test_tags_only_model_input_is_that_of_the_frames(tmp_path: Path):
    recording = write(tmp_path / "run", troubled(1))
    made = ticks(recording)
    shown = list(frames(recording))
    assert made.t_ns.tolist() == [frame.t_ns for frame in shown]
    for i, frame in enumerate(shown):
        for j, signal in enumerate(PLANT.tags):
            assert made.observed[i, j] == (signal.name in frame.values)
            assert not made.observed[i, j] or made.tags[i, j] == frame.values[signal.name]
