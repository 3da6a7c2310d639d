from dataclasses import replace

import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.plant import Plant, Signal
from fusion.records import NS_PER_S, Columns, Frame, Item, Quality
from fusion.timeline.clock_models import ClockModel
from fusion.timeline.process import ProcessGrid
from fusion.timeline.timeline import Timeline, TimelineConfig
from tests.timeline_streams import (
    PLANT,
    RATE_HZ,
    TAGS,
    at,
    bulk,
    cloud,
    differing,
    later,
    live,
    picture,
    rows,
    same,
    seconds,
    sound,
    stamped,
)


def steps(until_s: float, every_s: float = 0.05) -> list[int]:
    return [at(every_s * i) for i in range(1, round(until_s / every_s) + 1)]


def frame_at(frames: list[Frame], second: int) -> Frame:
    return next(frame for frame in frames if frame.t_ns == at(second))


def test_a_tick_holds_what_came_in_its_second():
    frame = frame_at(bulk(seconds(0, 4)), 3)
    assert frame.values["TT101"] == 82.0
    assert frame.values["FT101"] == 0.2
    assert frame.age_s["TT101"] == pytest.approx(0.38)
    assert frame.values["camera"].shape == (10, 16, 16)
    assert frame.values["camera"][:, 0, 0].tolist() == list(range(20, 30))
    assert frame.age_s["camera"] == pytest.approx(0.05)
    assert np.array_equal(frame.values["microphone"], np.concatenate([sound(2 + 0.1 * i).value for i in range(10)]))
    assert frame.values["scanner"][0, 0] == pytest.approx(2.93)
    assert set(frame.coverage.values()) <= {0.0, 1.0}
    assert frame.flags == ()
    assert frame.revision == 0


def test_a_tick_closes_lateness_after_its_end_when_all_sources_keep_up():
    timeline = Timeline(PLANT)
    for item in seconds(0, 3):
        timeline.push(item)
    assert len(timeline.advance(at(2.14))) == 1
    assert timeline.advance(at(2.15)) == []
    assert [f.t_ns for f in timeline.advance(at(2.151))] == [at(2)]


def test_a_source_that_lags_holds_the_tick_back_until_it_arrives():
    items = [later(i, int(0.6 * NS_PER_S)) if i.clock == "camera" else i for i in seconds(0, 4)]
    timeline = Timeline(PLANT, TimelineConfig(skew_tolerance_s=2.0))
    frames = live(timeline, items, steps(4))
    assert frame_at(frames, 3).coverage["camera"] == 1.0
    assert not timeline.health().late
    early = Timeline(PLANT, TimelineConfig(skew_tolerance_s=2.0))
    for item in items:
        early.push(item)
    assert [f.t_ns for f in early.advance(at(2.6))] == [at(1)]


def test_the_deadline_closes_a_tick_whatever_is_missing_and_late_items_are_counted():
    items = [later(i, 2 * NS_PER_S) if i.clock == "camera" else i for i in seconds(0, 6)]
    timeline = Timeline(PLANT, TimelineConfig(skew_tolerance_s=10.0))
    frames = live(timeline, items, steps(6))
    assert frame_at(frames, 3).values["camera"][:, 0, 0].tolist() == [20, 21, 22, 23, 24]
    assert frame_at(frames, 3).coverage["camera"] == 0.5
    assert timeline.health().late["camera"] >= 20
    assert timeline.health().late.keys() == {"camera"}


def test_a_silent_source_is_not_waited_for_once_idle():
    items = [i for i in seconds(0, 12) if i.clock != "scanner" or i.t_ns < at(2)]
    timeline = Timeline(PLANT)
    for item in items:
        timeline.push(item)
    timeline.advance(at(8.1))
    assert [f.t_ns for f in timeline.advance(at(8.2))] == [at(8)]


def test_late_process_values_are_still_the_last_known_ones():
    items = [*seconds(0, 6), rows([("FT101", 5.9, 7.0)], arrival_s=7.9), *seconds(8, 10)]
    timeline = Timeline(PLANT, TimelineConfig(lateness_s=0.1))
    frames = live(timeline, items, steps(9))
    assert timeline.health().late["FT101"] == 1
    assert frame_at(frames, 6).values["FT101"] == 0.5
    assert frame_at(frames, 7).values["FT101"] == 7.0
    assert frame_at(frames, 7).age_s["FT101"] == pytest.approx(1.1)
    assert "FT101" not in frame_at(frames, 8).values


def test_values_grow_old_unless_a_heartbeat_confirms_them():
    first = rows([("TT101", 0.5, 80.0), ("FT101", 0.5, 1.0)])
    ticking = [picture(0.05 + 0.1 * i) for i in range(80)]
    beats = [replace(rows([], beat_s=0.75 + s), signals=("TT101",)) for s in range(1, 8)]
    frames = bulk([first, *ticking, *beats])
    last = frame_at(frames, 7)
    assert last.values["TT101"] == 80.0
    assert last.age_s["TT101"] == pytest.approx(0.25)
    assert last.coverage["TT101"] == 1.0
    assert "FT101" not in last.values
    assert last.age_s["FT101"] == pytest.approx(6.5)
    assert frame_at(frames, 2).values["FT101"] == 1.0
    assert frame_at(frames, 2).coverage["FT101"] == 0.0
    assert "LIC101.SP" not in {*last.values, *last.age_s, *last.quality}


def test_values_and_qualities_that_change_under_one_stamp_are_followed():
    """Stamps that stand still, one-second stamps of a tag that changes faster, and a quality that turns bad."""
    standing = [rows([("TT101", 0.2, float(i))], arrival_s=0.2 + 0.5 * i, beat_s=0.2 + 0.5 * i) for i in range(12)]
    seen = [frame.value_S[0] for frame in live(Timeline(PLANT), standing, steps(6))]
    assert seen[:5] == [1.0, 3.0, 5.0, 7.0, 9.0]
    coarse = [rows([("TT101", s, 10.0 * s + k)], arrival_s=s + 0.05 + 0.4 * k) for s in range(1, 5) for k in range(3)]
    assert frame_at(live(Timeline(PLANT), coarse, steps(6)), 4).value_S[0] in (32.0, 40.0)
    assert live(Timeline(PLANT), coarse, steps(7))[-1].value_S[0] == 42.0
    lost = [rows([("TT101", 0.2, 5.0)]), rows([("TT101", 0.2, 5.0)], arrival_s=1.2, quality=0)]
    assert [bool(frame.observed_S[0]) for frame in live(Timeline(PLANT), lost, steps(4))][:2] == [True, False]


def test_a_heartbeat_without_a_value_shows_nothing():
    frames = bulk([rows([], beat_s=0.5), *[picture(0.05 + 0.1 * i) for i in range(20)]])
    assert not {"TT101", "FT101"} & {*frames[0].values, *frames[0].age_s}


def test_bad_values_are_masked_and_counted():
    items = [rows([("TT101", 0.5, 80.0)]), rows([("TT101", 1.5, 81.0)], quality=0), rows([("FT101", 1.6, np.nan)])]
    pictures = [picture(1.05 + 0.1 * i, quality=Quality.BAD if i < 4 else Quality.GOOD) for i in range(10)]
    media = [
        cloud(0.5),
        cloud(1.5, quality=Quality.BAD),
        sound(1.0, quality=Quality.BAD, samples=RATE_HZ),
        picture(2.5),
    ]
    timeline = Timeline(PLANT)
    for item in [*items, *pictures, *media]:
        timeline.push(item)
    frame = frame_at(timeline.flush(), 2)
    assert not {"TT101", "FT101", "microphone"} & set(frame.values)
    assert frame.quality["TT101"] == frame.quality["FT101"] == frame.quality["microphone"] == Quality.BAD
    assert len(frame.values["camera"]) == 6
    assert frame.coverage["camera"] == pytest.approx(0.6)
    assert frame.values["scanner"][0, 0] == 0.5
    assert timeline.health().bad == {"TT101": 1, "FT101": 1, "camera": 4, "scanner": 1, "microphone": 1}


def test_gaps_in_sound_are_zero_and_lower_the_coverage():
    items = [sound(1 + 0.1 * i) for i in range(10) if i not in (3, 9)]
    frame = frame_at(bulk([*items, picture(0.5), picture(2.5)]), 2)
    heard = frame.values["microphone"]
    assert frame.coverage["microphone"] == pytest.approx(0.8)
    assert not heard[480:640].any()
    assert heard[:480].all()
    assert frame.age_s["microphone"] == pytest.approx(0.1)


def test_jittering_stamps_do_not_tear_the_sound():
    rng = np.random.default_rng(0)
    chunks = [sound(0.1 * i) for i in range(30)]
    shaken = [stamped(c, int(rng.uniform(-0.005, 0.005) * NS_PER_S)) for c in chunks[:-1]]
    frame = frame_at(bulk([chunks[0], *shaken[1:], picture(2.5)]), 2)
    steps_seen = np.diff(frame.values["microphone"].astype(np.float64))
    assert frame.coverage["microphone"] > 0.99
    assert np.count_nonzero(np.abs(steps_seen - 0.001) > 1e-4) <= 4


def test_a_chunk_across_a_boundary_is_shared_out():
    chunks = [sound(0.0, samples=RATE_HZ // 4), sound(0.25, samples=RATE_HZ), sound(1.25, samples=RATE_HZ)]
    frames = bulk([*chunks, *[picture(0.05 + 0.1 * i) for i in range(32)]])
    assert np.array_equal(frames[0].values["microphone"], sound(0.0, samples=RATE_HZ).value)
    assert np.array_equal(frames[1].values["microphone"], sound(1.0, samples=RATE_HZ).value)
    assert frames[2].coverage["microphone"] == pytest.approx(0.25)


def test_the_part_of_a_late_chunk_that_lies_in_an_open_tick_is_kept():
    steady = [picture(0.05 + 0.1 * i) for i in range(40)]
    timeline = Timeline(PLANT)
    frames = live(timeline, [*steady, sound(1.5, samples=RATE_HZ, arrival_s=2.6)], steps(4))
    assert "microphone" not in frame_at(frames, 2).values
    assert frame_at(frames, 3).coverage["microphone"] == pytest.approx(0.5)
    assert frame_at(frames, 3).values["microphone"][0] == sound(2.0).value[0]
    assert timeline.health().late == {"microphone": 1}


def test_a_cloud_is_held_until_it_is_stale():
    frames = bulk([cloud(0.9), *[picture(0.05 + 0.1 * i) for i in range(60)]])
    assert [frame.values.get("scanner") is not None for frame in frames[:5]] == [True, True, True, False, False]
    assert frames[0].coverage["scanner"] == 1.0
    assert frames[1].coverage["scanner"] == 0.0
    assert frames[2].age_s["scanner"] == pytest.approx(2.1)


def test_an_empty_cloud_is_a_value():
    frame = bulk([cloud(0.9, points=0), picture(1.5)])[0]
    assert frame.values["scanner"].shape == (0, 4)


def test_what_the_plant_does_not_know_or_has_another_shape_is_dropped_and_counted():
    timeline = Timeline(PLANT)
    foreign = rows([("TT101", 0.5, 1.0), ("FT101", 0.5, 2.0)])
    timeline.push(replace(foreign, signals=("nobody", "FT101", "x")))
    timeline.push(replace(picture(0.5), signal="other"))
    timeline.push(replace(picture(0.5), value=np.zeros((4, 4), np.uint8)))
    timeline.push(replace(cloud(0.5), value=np.zeros((8, 3), np.float32)))
    timeline.push(picture(1.5))
    frames = timeline.flush()
    assert frames[0].values.keys() == {"FT101"}
    assert timeline.health().dropped == {"nobody": 1, "other": 1, "camera": 1, "scanner": 1}


def test_stamps_that_go_backwards_are_put_in_order():
    shuffled = [picture(0.05 + 0.1 * i, arrival_s=0.99) for i in (3, 1, 2, 0, 9, 5)]
    frame = bulk([*shuffled, picture(1.5)])[0]
    assert frame.values["camera"][:, 0, 0].tolist() == [0, 1, 2, 3, 5, 9]


def test_a_clock_that_is_ahead_is_corrected_and_flagged():
    items = [stamped(i, 30 * NS_PER_S) if i.clock == "camera" else i for i in seconds(0, 8)]
    timeline = Timeline(PLANT)
    frames = live(timeline, items, steps(8))
    assert frame_at(frames, 1).coverage["camera"] == 1.0
    assert "clock:camera" in frame_at(frames, 6).flags
    assert frame_at(frames, 6).coverage["camera"] == 1.0
    assert timeline.health().clock_offset_s["camera"] == pytest.approx(-30)
    assert timeline.health().clock_steps["camera"] == 1


def test_a_device_that_is_slow_behind_a_shared_clock_is_flagged_by_its_name():
    """TT101 is an hour slow from 4 s to 20 s; others have the same clock, and are right."""
    items = [
        rows([(tag, s + 0.5 - 3600 * (tag == "TT101" and 4 <= s < 20), 1.0)], arrival_s=s + 0.5)
        for s in range(30)
        for tag in TAGS
    ]
    timeline = Timeline(PLANT)
    frames = live(timeline, items, steps(30))
    flagged = [round((f.t_ns - at(0)) / NS_PER_S) for f in frames if "clock:TT101" in f.flags]
    assert flagged == list(range(flagged[0], flagged[-1] + 1))
    assert (8 <= flagged[0] <= 11, 19 <= flagged[-1] <= 22) == (True, True)
    assert {flag for f in frames for flag in f.flags} == {"clock:TT101"}
    assert timeline.health().skewed == ()
    halfway = Timeline(PLANT)
    live(halfway, items[:45], steps(15))
    assert halfway.health().skewed == ("TT101",)


def test_a_clock_step_is_followed_and_forgotten_when_it_ends():
    items = [
        stamped(i, -5 * NS_PER_S) if i.clock == "camera" and at(5) < i.t_ns < at(20) else i for i in seconds(0, 30)
    ]
    timeline = Timeline(PLANT)
    frames = live(timeline, items, steps(30))
    flagged = [round((f.t_ns - at(0)) / NS_PER_S) for f in frames if f.flags]
    assert flagged == list(range(flagged[0], flagged[-1] + 1))
    assert 6 <= flagged[0] <= 9
    assert 20 <= flagged[-1] <= 24
    assert same(frame_at(frames, 29), frame_at(bulk(seconds(0, 30)), 29))
    assert timeline.health().skewed == ()
    assert timeline.health().clock_steps["camera"] == 2


def test_one_wild_stamp_does_not_move_a_clock():
    items = [stamped(i, 10**17) if i.clock == "camera" and i.t_ns == at(3.55) else i for i in seconds(0, 8)]
    timeline = Timeline(PLANT)
    frames = live(timeline, items, steps(8))
    clean = bulk(seconds(0, 8))
    assert differing([f for f in frames if f.t_ns != at(4)], [f for f in clean if f.t_ns != at(4)]) == []
    assert timeline.health().clock_steps["camera"] == 0


@pytest.mark.parametrize("t_ns", [-(2**63), 0, 2**63 - 1])
def test_impossible_stamps_break_nothing(t_ns: int):
    first = rows([("TT101", 0.5, 1.0)])
    items: list[Item] = [replace(first, t_ns=np.array([t_ns])), replace(picture(0.7), t_ns=t_ns), *seconds(1, 4)]
    assert [frame.t_ns for frame in bulk(items)] == [at(1), at(2), at(3), at(4)]


def test_drift_is_followed():
    def drifting(item: Item) -> Item:
        since_s = (int(np.max(item.t_ns)) - at(0)) / NS_PER_S
        return stamped(item, -int(since_s * 0.02 * NS_PER_S)) if item.clock == "camera" else item

    frames = live(Timeline(PLANT), [drifting(i) for i in seconds(0, 60)], steps(60, 0.1))
    assert all(f.coverage["camera"] >= 0.6 or f.flags for f in frames)
    assert "clock:camera" in frames[-1].flags
    assert frames[-1].age_s["camera"] < 0.7


def test_ticks_stop_after_a_long_silence_and_begin_again():
    timeline = Timeline(PLANT, TimelineConfig(longest_gap_s=10.0))
    for item in [*seconds(0, 3), *seconds(100, 103)]:
        timeline.push(item)
    frames = timeline.flush()
    ticks = [round((frame.t_ns - at(0)) / NS_PER_S) for frame in frames]
    assert ticks == [*range(1, 14), 101, 102, 103]
    assert [t for t, frame in zip(ticks, frames, strict=True) if "gap" in frame.flags] == [101]
    quiet = Timeline(PLANT, TimelineConfig(longest_gap_s=10.0))
    for item in seconds(0, 3):
        quiet.push(item)
    assert len(quiet.advance(at(10_000_000))) == 13
    assert quiet.advance(at(20_000_000)) == []


def test_nothing_pushed_is_nothing_closed():
    timeline = Timeline(PLANT)
    assert timeline.advance(at(5)) == []
    assert timeline.flush() == []
    assert timeline.health().late == {}


def test_what_is_pushed_after_its_arrival_was_passed_counts_as_arriving_then():
    timeline = Timeline(PLANT)
    for item in seconds(0, 2):
        timeline.push(item)
    assert len(timeline.advance(at(1.9))) == 1
    timeline.push(rows([("TT101", 1.99, 5.0)], arrival_s=1.5))
    timeline.push(rows([("TT101", 0.99, 4.0)], arrival_s=1.0))
    for item in seconds(2, 4):
        timeline.push(item)
    assert timeline.advance(at(2.3))[0].values["TT101"] == 5.0
    assert timeline.health().late == {"TT101": 1}


def test_a_source_of_its_own_for_every_clock():
    one = [rows([("TT101", s + 0.5, float(s))], clock="plc") for s in range(8)]
    other = [rows([("FT101", s + 0.6, float(s))], clock="skid", arrival_s=s + 1.4) for s in range(8)]
    timeline = Timeline(PLANT, TimelineConfig(skew_tolerance_s=2.0))
    frames = live(timeline, [*one, *other], steps(8))
    assert timeline.health().late == {"FT101": 1}  # the first one, when nobody knew of the source
    assert frame_at(frames, 5).values["FT101"] == 4.0


def test_other_steps_than_a_second_work():
    plant = Plant(name="fast", step_s=0.5, signals=PLANT.signals)
    timeline = Timeline(plant)
    for item in seconds(0, 3):
        timeline.push(item)
    frames = timeline.flush()
    assert [frame.t_ns for frame in frames] == [at(0.5 * i) for i in range(1, 7)]
    assert all(len(frame.values["camera"]) == 5 for frame in frames)
    assert all(frame.values["microphone"].shape == (RATE_HZ // 2,) for frame in frames)


def test_process_values_in_bulk_are_those_of_the_frames():
    items = [item for item in seconds(0, 20) if isinstance(item, Columns)]
    frames = bulk(items)
    timeline = Timeline(PLANT)
    for item in items:
        timeline.push(item)
    grid = timeline.flush_process()
    assert grid.t_ns.tolist() == [frame.t_ns for frame in frames]
    for i, frame in enumerate(frames):
        for j, name in enumerate(("TT101", "FT101", "LIC101.SP")):
            assert (name in frame.values) == grid.observed[i, j]
            assert not grid.observed[i, j] or frame.values[name] == grid.value[i, j]
            assert frame.age_s.get(name, np.inf) == grid.age_s[i, j]


def held_beside(garbage: float) -> ProcessGrid:
    timeline = Timeline(PLANT)
    for batch in (
        rows([("TT101", 0.5, 80.0)]),
        rows([("TT101", 1.5, garbage)], quality=Quality.BAD),
        rows([("FT101", 3.5, 1.0)]),
    ):
        timeline.push(batch)
    return timeline.flush_process()


def test_the_last_usable_value_is_held_while_the_newest_is_bad():
    grid = held_beside(99.0)
    setpoint = PLANT.by_name["LIC101.SP"]
    assert grid.value[:, 0].tolist() == [80.0] * 3
    assert grid.observed[:, 0].tolist() == [True, False, False]
    assert grid.quality[:, 0].tolist() == [Quality.GOOD, Quality.BAD, Quality.BAD]
    assert set(grid.value[:, 2].tolist()) == {(setpoint.low + setpoint.high) / 2}
    assert not grid.observed[:, 2].any()


@pytest.mark.parametrize("garbage", [np.nan, 1e300, -np.inf])
def test_a_masked_value_changes_nothing_bit_for_bit(garbage: float):
    for field in ("value", "observed", "age_s", "quality", "coverage"):
        np.testing.assert_array_equal(getattr(held_beside(garbage), field), getattr(held_beside(99.0), field))


def test_a_plant_without_process_signals_or_without_media():
    for signals in (PLANT.of(PLANT.by_name["camera"].modality), PLANT.signals[:3]):
        timeline = Timeline(Plant(name="part", signals=signals))
        for item in seconds(0, 3):
            timeline.push(item)
        assert len(timeline.flush()) in (2, 3)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"lateness_s": 2.0}, "lateness_s"),
        ({"lateness_s": -0.1}, "lateness_s"),
        ({"idle_after_s": 1.0}, "idle_after_s"),
        ({"skew_tolerance_s": 0.0}, "skew_tolerance_s"),
        ({"longest_gap_s": 1.0}, "longest_gap_s"),
        ({"capacity_rows": 0}, "capacity_rows"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, float], key: str):
    with pytest.raises(ConfigError, match=key):
        TimelineConfig(**settings)


def test_a_config_builds_its_timeline():
    signal = Signal(name="TT101")
    assert isinstance(Timeline(Plant(name="one", signals=(signal,)), TimelineConfig()), Timeline)


def test_a_clock_that_stepped_for_a_moment_is_well_again_though_its_values_take_their_time():
    clock, second = ClockModel(), np.arange(10) * NS_PER_S // 10
    transport = np.linspace(0.35, 0.9, 10) * NS_PER_S
    flagged = []
    for number in range(40):
        step_ns = 3600 * NS_PER_S if 10 <= number < 14 else 0
        clock.shift_ns(number * NS_PER_S + second, transport.astype(np.int64) - step_ns)
        flagged.append(clock.flag.up)
    assert not any(flagged[:10])
    assert flagged[13]
    assert not any(flagged[22:])
    assert clock.offset_ns == 0
