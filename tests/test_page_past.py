"""What the page reads of a recorder's folder, the stretch it looks at, and what of a chart is sent."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from small_plants import SMALL, small_values, write_recording
from test_recorder import PLANT as MEDIA_PLANT
from test_recorder import T0, Hands, media, value
from wire_examples import PLANT as LINE
from wire_examples import Story

from fusion.alarms import MarkKind
from fusion.dashboard import charts
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.courses import Buckets
from fusion.dashboard.lookback import recorded
from fusion.dashboard.sight import LONGEST_S, SHORTEST_S, Sight
from fusion.dashboard.strips import difference, moved_on, shape
from fusion.publish.encoding import to_message
from fusion.publish.messages import encode
from fusion.recordings.marks import Journal, Mark
from fusion.recordings.recorder import MARKS, OPEN, Recorder, RecorderConfig
from fusion.recordings.recording import PROCESS
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns

START_S = 1_796_000_000
MINUTE_NS = 60 * NS_PER_S


def batch(signal, t_s, values, quality=2, heartbeat_s=None):
    t_ns = (np.asarray(t_s, np.int64) + START_S) * NS_PER_S
    return Columns(
        signals=(signal,),
        index=np.zeros(len(t_ns), np.int32),
        t_ns=t_ns,
        received_ns=t_ns,
        value=np.asarray(values, np.float64),
        quality=np.full(len(t_ns), quality, np.uint8),
        clock="plc",
        heartbeat_ns=None if heartbeat_s is None else (START_S + heartbeat_s) * NS_PER_S,
    )


def at(course, s):
    """The value of a course with a point a second, s seconds after the start."""
    return next(v for t_ms, v in course if t_ms == (START_S + s) * 1000)


def test_a_course_keeps_every_extreme_and_breaks_where_nothing_was_recorded(tmp_path):
    values = small_values(1, 1800)
    values["PT1"][700] = 99.0
    write_recording(tmp_path / "one", SMALL, values, START_S)
    write_recording(tmp_path / "two", SMALL, small_values(2, 1800), START_S + 3600)
    span_ns = START_S * NS_PER_S, (START_S + 5400) * NS_PER_S
    course = Archive(tmp_path, SMALL).courses(["PT1", "camera", "nobody"], *span_ns, 200)
    assert list(course) == ["PT1"]
    assert len(course["PT1"]) <= 2 * 201 + 1
    assert max(v for _, v in course["PT1"] if v is not None) == 99.0
    gaps = [t_ms / 1000 - START_S for t_ms, v in course["PT1"] if v is None]
    assert len(gaps) == 1
    assert 1800 <= gaps[0] <= 1860


def test_a_quiet_tag_is_known_from_before_and_bad_or_stale_is_nothing(tmp_path):
    with RecordingWriter(tmp_path / "a", SMALL) as writer:
        writer.process(batch("FT1.SP", [0], [4.5]))
        writer.process(batch("TT1", range(60), np.arange(60)))
    with RecordingWriter(tmp_path / "b", SMALL) as writer:
        for s in range(61, 120, 2):
            writer.process(batch("FT1.SP", [], [], heartbeat_s=s))
        writer.process(batch("TT1", [70], [1.0]))
        writer.process(batch("TT1", [72], [2.0], quality=0))
    archive = Archive(tmp_path, SMALL)
    course = archive.courses(["FT1.SP", "TT1"], (START_S + 60) * NS_PER_S, (START_S + 110) * NS_PER_S, 50)
    assert at(course["FT1.SP"], 100) == 4.5
    assert at(course["TT1"], 70) == 1.0
    assert at(course["TT1"], 72) is None
    assert at(archive.courses(["TT1"], START_S * NS_PER_S, (START_S + 59) * NS_PER_S, 60)["TT1"], 30) == 30.0


def test_a_damaged_or_foreign_recording_costs_itself(tmp_path, caplog):
    for name, plant, start_s in (("one", SMALL, 0), ("two", SMALL, 100), ("other", replace(SMALL, name="other"), 200)):
        write_recording(tmp_path / name, plant, small_values(1, 100), START_S + start_s)
    (tmp_path / "two" / PROCESS).write_bytes(b"no Parquet")
    (tmp_path / "empty").mkdir()
    archive = Archive(tmp_path, SMALL)
    course = archive.courses(["TT1"], START_S * NS_PER_S, (START_S + 300) * NS_PER_S, 300)["TT1"]
    assert max(t_ms for t_ms, v in course if v is not None) <= (START_S + 101) * 1000
    assert "two is left out" in caplog.text
    assert Archive(tmp_path / "nowhere", SMALL).span_ns() is None


def fingerprints(folder):
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_open_slices_and_what_became_of_them_are_read_and_nothing_is_written(tmp_path):
    clock = Hands()
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=1, segment_s=3600), MEDIA_PLANT, clock)
    recorder.start()
    for s in range(20):
        clock.t_ns = T0 + s * NS_PER_S
        recorder.add(value(clock.t_ns, s))
        for sample in media(clock.t_ns, s):
            recorder.add(sample)
    recorder.mark(Mark(name="trip", kind=MarkKind.FAULT, onset_ns=T0, end_ns=T0 + MINUTE_NS, by="kim"))
    recorder.close()
    archive = Archive(tmp_path, MEDIA_PLANT)
    before = fingerprints(tmp_path)
    assert archive.span_ns() == (T0, T0 + 19 * NS_PER_S)
    course = archive.courses(["T"], T0, T0 + 19 * NS_PER_S, 30)["T"]
    assert [v for _, v in course] == [float(n) for n in range(20)]
    then = recorded(archive, MEDIA_PLANT, T0 + 7 * NS_PER_S)
    assert (list(then.pictures), list(then.sounds), list(then.clouds)) == (["cam"], ["mic"], ["scan"])
    assert np.frombuffer(then.clouds["scan"], "<f4")[0] == 7.0
    assert abs(int(archive.samples(MEDIA_PLANT.by_name["cam"], T0 + 7 * NS_PER_S)[0].mean()) - 7) <= 1
    assert not recorded(archive, MEDIA_PLANT, T0 + 40 * NS_PER_S).pictures
    assert [mark.name for mark in archive.marks(T0, T0 + NS_PER_S)] == ["trip"]
    assert archive.marks(T0 + 2 * MINUTE_NS, T0 + 3 * MINUTE_NS) == []
    assert fingerprints(tmp_path) == before


def test_slices_that_a_segment_took_up_are_not_counted_twice(tmp_path):
    write_recording(tmp_path / "whole", SMALL, small_values(1, 100), START_S)
    write_recording(tmp_path / OPEN / f"{START_S:020d}", SMALL, small_values(1, 50), START_S)
    write_recording(tmp_path / OPEN / f"{START_S + 100:020d}", SMALL, small_values(3, 50), START_S + 100)
    archive = Archive(tmp_path, SMALL)
    assert [block.path.name for block in archive._found()] == ["whole", f"{START_S + 100:020d}"]


def test_a_mark_that_is_still_being_written_is_no_mark_yet(tmp_path):
    Journal(tmp_path / MARKS).add(Mark(name="one", kind=MarkKind.GOOD, onset_ns=0))
    whole = (tmp_path / MARKS).read_text()
    with (tmp_path / MARKS).open("a") as stream:
        stream.write(whole[:20])
    assert [mark.name for mark in Archive(tmp_path, SMALL).all_marks()] == ["one"]
    assert (tmp_path / MARKS).read_text() == whole + whole[:20]


def test_what_is_kept_of_tags_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.dashboard.archive.COURSES_KEPT", 2)
    write_recording(tmp_path / "one", SMALL, small_values(1, 100), START_S)
    archive = Archive(tmp_path, SMALL)
    archive.courses(["TT1", "FT1", "PT1"], START_S * NS_PER_S, (START_S + 90) * NS_PER_S, 50)
    assert len(archive._kept) == 2


def test_buckets_stay_where_they_are_when_time_goes_on():
    t_ns = np.arange(START_S, START_S + 1000, dtype=np.int64) * NS_PER_S
    values = np.sin(np.arange(1000) / 20)
    first, later = (
        Buckets.over((START_S + s) * NS_PER_S, (START_S + s + 800) * NS_PER_S, 80, NS_PER_S) for s in (0, 50)
    )
    for buckets in (first, later):
        buckets.add(t_ns, values)
    known = {tuple(point) for point in later.points()[4:60]}
    assert known <= {tuple(point) for point in first.points()}


# -- the stretch


NOW = START_S * NS_PER_S


def test_a_sight_follows_the_plant_until_it_is_told_to_stand():
    sight = Sight(900.0)
    assert sight.live
    assert sight.span_ns(NOW) == (NOW - 15 * MINUTE_NS, NOW)
    stood = sight.paused(NOW)
    assert stood.span_ns(NOW + MINUTE_NS) == (NOW - 15 * MINUTE_NS, NOW)
    assert stood.followed().live
    assert sight.moved(0.5, NOW).live
    assert stood.moved(-0.5, NOW).at_ns == NOW - round(7.5 * MINUTE_NS)
    assert stood.moved(-0.5, NOW).moved(0.5, NOW).live


def test_a_moment_outside_moves_the_stretch_and_one_inside_does_not():
    stood = Sight(3600.0).paused(NOW)
    inside = stood.at(NOW - 20 * MINUTE_NS, NOW)
    assert inside.span_ns(NOW) == stood.span_ns(NOW)
    outside = stood.at(NOW - 600 * MINUTE_NS, NOW)
    since_ns, until_ns = outside.span_ns(NOW)
    assert since_ns < outside.at_ns < until_ns
    assert stood.at(NOW + MINUTE_NS, NOW).at_ns == NOW


def test_zooming_keeps_the_moment_and_stays_within_a_minute_and_a_day():
    stood = Sight(3600.0).paused(NOW).at(NOW - 30 * MINUTE_NS, NOW)
    closer = stood.long(1800.0, NOW)
    assert closer.at_ns == stood.at_ns
    assert closer.span_ns(NOW) == (stood.at_ns - 15 * MINUTE_NS, stood.at_ns + 15 * MINUTE_NS)
    assert stood.long(1.0, NOW).length_s == SHORTEST_S
    assert stood.long(1e9, NOW).length_s == LONGEST_S
    assert Sight(900.0).long(3600.0, NOW).live
    moved = stood.between(NOW - 50 * MINUTE_NS, NOW + 5 * MINUTE_NS, NOW)
    assert moved.span_ns(NOW) == (NOW - 50 * MINUTE_NS, NOW)


# -- what is sent


def applied(before, change):
    """What the browser makes of a change."""
    after = json.loads(json.dumps(before))
    for key, parts in change.items():
        by_id = {part["id"]: part for part in after[key]}
        for part in json.loads(json.dumps(parts)):
            if isinstance(part.get("data"), dict):
                old, data = by_id[part["id"]]["data"], part["data"]
                part["data"] = old[data["cut"] : data["cut"] + data["keep"]] + data["add"]
            by_id[part["id"]].update(part)
    return after


def chart(points, text="1"):
    return {
        "animation": False,
        "title": [{"id": "0.left", "text": text}],
        "grid": [{"id": "0.grid", "top": 0}],
        "xAxis": [{"id": "0.time", "min": points[0][0] if points else 0}],
        "yAxis": [{"id": "0.value"}],
        "series": [{"id": "a.actual", "data": points}, {"id": "b.actual", "data": points[::2]}],
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([[t, t] for t in range(50)], [[t, t] for t in range(1, 51)]),
        ([[0, 1], [1, 1], [2, None]], [[1, 1], [2, None], [3, 4]]),
        ([[0, 1], [1, 1], [2, 5]], [[0, 1], [1, 1], [3, 5], [4, 5]]),
        ([], [[1, 1]]),
        ([[1, 1]], []),
        ([[1, 1], [2, 2]], [[7, 1], [8, 2]]),
    ],
)
def test_what_is_sent_of_a_chart_makes_the_new_one_of_the_old(old, new):
    before, after = chart(old), chart(new, "2")
    assert shape(before) == shape(after)
    assert applied(before, difference(before, after)) == after


def test_a_course_that_moves_on_costs_its_new_points_alone():
    old = [[t, 1.0] for t in range(450)]
    assert moved_on(old, [*old[3:], [450, 2.0]]) == {"cut": 3, "keep": 447, "add": [[450, 2.0]]}
    same = chart(old)
    assert difference(same, chart(old)) == {}
    assert shape(same) != shape(chart(old) | {"series": chart(old)["series"][:1]})


def test_titles_say_what_was_at_the_moment_that_is_looked_at():
    story = Story(T0)
    board = Board(LINE, 900.0)
    for s in range(60):
        board.take("fusion/lime/v1/frame", encode(to_message(story.frame(s), LINE, "m")))
        board.take("fusion/lime/v1/energy", encode(story.energy(s)))
    at_ms = story.at(20) / 1e6
    past = charts.Past((story.at(0) / 1e6, story.at(50) / 1e6), at_ms)
    option = charts.trend_options(board, ["TT101"], 600, past=past)
    then = next(value for t_ms, value in board.tags["TT101"] if t_ms == at_ms)
    assert option["title"][1]["text"].startswith(f"{then:.4g} \N{DEGREE SIGN}C")
    assert option["series"][0]["markLine"]["data"][0]["xAxis"] == at_ms
    assert not any(series["id"].endswith(".mean") for series in option["series"])
    surprise = next(value for t_ms, value in board.surprise["process"] if t_ms == at_ms)
    assert charts.surprise_options(board, past=past)["title"][1]["text"] == f"{surprise / 4.0:.3g} of its limit"
    early = charts.Past(past.span_ms, story.at(-5) / 1e6)
    assert charts.trend_options(board, ["TT101"], 600, past=early)["title"][1]["text"].startswith("- ")


def test_marks_lie_behind_the_trends_with_their_names():
    board = Board(LINE, 900.0)
    board.take("fusion/lime/v1/frame", encode(to_message(Story(T0).frame(0), LINE, "m")))
    marks = (
        Mark(name="trip", kind=MarkKind.FAULT, onset_ns=T0, end_ns=T0 + NS_PER_S),
        Mark(name="lime-1", kind=MarkKind.ALARM, onset_ns=T0, signals=("LT101",)),
    )
    option = charts.trend_options(board, ["TT101", "LT101"], 600, past=charts.Past(marks=marks))
    areas = {series["id"]: series["markArea"]["data"] for series in option["series"] if "markArea" in series}
    assert [area[0]["name"] for area in areas["TT101.actual"]] == ["fault: trip"]
    assert [area[0]["name"] for area in areas["LT101.actual"]] == ["", ""]
    assert areas["LT101.actual"][1][1]["xAxis"] == board.now_ns // 1_000_000
