"""How unusual each sense was, kept with the recordings: from the daemon's tick to the page and the export."""

import asyncio
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from test_clock import PLANT as CLOCK_PLANT
from test_clock import Listening, Teller
from test_control_surprise import ENERGIES, slow_noise
from test_recorder import PLANT, T0, Hands, recorded, settle, value
from wire_examples import PLANT as LINE
from wire_examples import Story

from connectors.base import Source
from connectors.settings import Supervision
from control.anomaly.calibration import calibrate
from fusion.cli import main
from fusion.daemon.outlet import energy_of
from fusion.daemon.peaks import Peaking
from fusion.daemon.service import Daemon
from fusion.dashboard import charts
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.lookback import LookBack
from fusion.dashboard.sight import Sight
from fusion.frames import surprise
from fusion.outcome import Outcome
from fusion.publish.encoding import to_message
from fusion.publish.messages import encode
from fusion.recordings.recorder import OPEN, Recorder, RecorderConfig
from fusion.recordings.recording import SURPRISE, Recording
from fusion.records import NS_PER_S, Frame, Peaks
from fusion.timeline.timeline import Timeline


@pytest.fixture(scope="module")
def calibration():
    return calibrate(slow_noise(1, 3), ENERGIES)


def outcome(t_ns, surprise):
    nothing = np.empty(0)
    frame = Frame(
        t_ns=t_ns,
        signals=(),
        value_S=nothing,
        observed_S=nothing,
        age_s_S=nothing,
        quality_S=nothing,
        coverage_S=nothing,
        media={},
        flags=(),
    )
    return replace(Outcome.empty(frame, ()), surprise=surprise)


def test_what_is_kept_of_a_tick_is_what_the_page_is_told_of_it(calibration):
    """By sense; and beyond that by the family of its energies, of which one that is not known has no row."""
    standardised = np.array([0.5, 7.0, np.nan, 3.0]) * calibration.threshold
    said = outcome(T0, SimpleNamespace(standardised=standardised, p_value=0.1))
    engine = SimpleNamespace(calibration=calibration, model_id="m", plant=LINE)
    peaks = Peaking().of(said, engine)
    assert (peaks.t_ns, peaks.model_id) == (T0, "m")
    assert list(zip(peaks.senses, peaks.families, peaks.factor.tolist(), strict=True)) == [
        ("process", "cross", 0.5),
        ("audio", "cross", 7.0),
        ("process", "health", 3.0),
    ]
    told = {out.modality: out.value / out.limit for out in energy_of(said, engine).by_modality}
    assert told == pytest.approx({"process": 3.0, "audio": 7.0}, rel=1e-3)
    assert Peaking().of(outcome(T0, None), engine) is None
    assert Peaking().of(said, SimpleNamespace(calibration=None)) is None


class Judging(Listening):
    """An engine that finds each tick as unusual as the one before, in one sense."""

    def __init__(self, calibration, enough):
        super().__init__()
        self.calibration, self._enough = calibration, enough

    def step(self, frame, newest):
        if len(self.frames) == 2:
            self._enough()
        standardised = np.array([np.nan, 2.0, np.nan, np.nan]) * self.calibration.threshold
        found = SimpleNamespace(standardised=standardised, p_value=0.1)
        return replace(super().step(frame, newest), surprise=found)


def test_a_daemon_records_how_unusual_it_found_each_tick(tmp_path, calibration):
    async def scenario():
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        engine = Judging(calibration, lambda: loop.call_soon_threadsafe(stop.set))
        recorder = Recorder(RecorderConfig(folder=str(tmp_path)), CLOCK_PLANT)
        source = Source("plc", CLOCK_PLANT.signals, Teller, Supervision())
        daemon = Daemon([source], Timeline(CLOCK_PLANT), engine, Listening(), recorder=recorder)
        await daemon.run(stop)
        return engine, recorder

    engine, recorder = asyncio.run(scenario())
    (segment,) = recorder.segments()
    segment.verify()
    assert segment.surprise()["t_ns"].to_list() == [frame.t_ns for frame in engine.frames]
    assert segment.surprise().drop("t_ns").unique().rows() == [("audio", "cross", 2.0, "m")]


def peaks(t_ns, *factors):
    senses, families = ("process", "process", "audio"), ("innovation", "health", "cross")
    return Peaks(t_ns=t_ns, senses=senses, families=families, factor=np.array(factors, np.float32), model_id="m")


@pytest.fixture
def folder(tmp_path):
    """Two recordings of a minute and slices of a third, with a peak in each."""
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path / "of"), slice_s=5, segment_s=60), PLANT, clock)
    recorder.start()
    for second in range(150):
        clock.t_ns += NS_PER_S
        recorder.add(value(clock.t_ns, second))
        recorder.note(peaks(clock.t_ns, 0.5, 3.0 if second == 30 else 0.25, 5.0 if second == 130 else 0.1))
        if second % 5 == 4:
            settle(recorder)
    shutil.copytree(tmp_path / "of", tmp_path / "killed", ignore=shutil.ignore_patterns("*.partial", "lock"))
    recorder.close()
    return tmp_path


def test_every_tick_is_in_one_recording_and_what_a_kill_leaves_is_read(folder):
    segments = [Recording.verified(place) for place in sorted((folder / "of").glob("2*"))]
    rows = pl.concat([segment.surprise() for segment in segments])
    assert sorted(rows["t_ns"].unique()) == [T0 + s * NS_PER_S for s in range(1, 151)]
    assert len(rows) == 450
    assert all(segment.bytes > (segment.path / SURPRISE).stat().st_size > 0 for segment in segments)
    assert list((folder / "killed" / OPEN).iterdir())
    for place in ("of", "killed"):
        found = Archive(folder / place, PLANT).surprise(T0, T0 + 150 * NS_PER_S, 150)
        assert {sense: max(v for _, v in points if v is not None) for sense, points in found.items()} == {
            "process": 3.0,
            "audio": 5.0,
        }
        assert next(t_ms for t_ms, v in found["process"] if v == 3.0) == (T0 + 31 * NS_PER_S) // 1_000_000


def test_a_slice_that_lasts_for_long_has_all_its_peaks(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.recordings.recorder.MOST_PEAKS", 3)
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=60, segment_s=60), PLANT, clock)
    recorder.start()
    for second in range(10):
        clock.t_ns += NS_PER_S
        recorder.add(value(clock.t_ns, second))
        recorder.note(peaks(clock.t_ns, 0.5, 0.25, 0.1))
    recorder.close()
    (segment,) = recorder.segments()
    assert segment.surprise()["t_ns"].unique().to_list() == [T0 + s * NS_PER_S for s in range(1, 11)]


def test_a_recording_from_before_has_none_and_a_damaged_one_costs_itself(folder, tmp_path, caplog):
    (old,) = recorded(tmp_path / "old", 5).segments()
    assert SURPRISE not in old.manifest["files"]
    assert len(old.surprise()) == 0
    old.verify()
    assert Archive(tmp_path / "old", PLANT).surprise(T0, T0 + NS_PER_S, 10) == {}
    first = sorted((folder / "of").glob("2*"))[0]
    (first / SURPRISE).write_bytes(b"no Parquet")
    found = Archive(folder / "of", PLANT).surprise(T0, T0 + 150 * NS_PER_S, 150)
    assert max(v for _, v in found["process"] if v is not None) == 0.5
    assert "is left out" in caplog.text


def test_a_page_that_looks_back_for_long_forgets_what_it_read_first(folder, monkeypatch):
    whole = Archive(folder / "of", PLANT).surprise(T0, T0 + 150 * NS_PER_S, 150)
    monkeypatch.setattr("fusion.dashboard.archive.SURPRISES_KEPT", 2)
    archive = Archive(folder / "of", PLANT)
    assert [archive.surprise(T0, T0 + 150 * NS_PER_S, 150) for _ in range(2)] == [whole] * 2
    assert len(archive._surprises) == 2


class Fetched:
    """What takes time, at once."""

    busy = False

    def get(self, key, make):
        return make()


def test_a_page_that_has_just_begun_shows_what_was_recorded_before_it(monkeypatch):
    story, board = Story(T0), Board(LINE, 900.0)
    for s in range(3600, 3660):
        board.take("fusion/lime/v1/frame", encode(to_message(story.frame(s), LINE, "m")))
        board.take("fusion/lime/v1/energy", encode(story.energy(s)))

    class Folder:
        def surprise(self, t0_ns, t1_ns, points):
            return {"process": [[story.at(60) / 1e6, 3.0], [story.at(3650) / 1e6, 9.0]]}

        def courses(self, *asked):
            return {}

        def marks(self, *asked):
            return []

    monkeypatch.setattr("fusion.dashboard.lookback.Fetch", lambda nothing, done: Fetched())
    sight = Sight(4000.0).paused(board.now_ns)
    past = LookBack(board, Folder(), lambda: None).past(["TT101"], sight.at(story.at(60), board.now_ns), 0.0)
    option = charts.surprise_options(board, past=past)
    drawn = next(series for series in option["series"] if series["id"] == "process.value")["data"]
    assert drawn[0] == [story.at(60) / 1e6, 3.0]
    assert drawn[1][0] == story.at(3600) / 1e6
    assert all(v != 9.0 for _, v in drawn)  # from its own beginning on the page knows better


def test_what_was_recorded_of_it_is_exported_without_a_model(folder, tmp_path, capsys):
    place = sorted((folder / "of").glob("2*"))[0]
    out = tmp_path / "energies.parquet"
    assert main(["export", "energies", "--recording", str(place), "--out", str(out)]) == 0
    table = pl.read_parquet(out)
    assert table.columns == ["time", "audio.cross", "process.health", "process.innovation"]
    assert table["process.health"].max() == 3.0
    assert table.equals(surprise(place))
    (old,) = recorded(tmp_path / "old", 5).segments()
    assert main(["export", "energies", "--recording", str(old.path), "--out", str(out)]) == 2
    assert "nothing was judged while this was recorded" in capsys.readouterr().err
