"""What must hold for any order, delay, loss and clock: the same ticks, or an explicit flag."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.recordings.recording import arrival_ns
from fusion.records import NS_PER_S, Columns, Item, Sample
from fusion.timeline.clock_models import ClockModel
from fusion.timeline.timeline import Timeline, TimelineConfig
from tests.timeline_streams import PLANT, TAGS, at, bulk, differing, later, live, same, seconds, stamped

PROPERTY = settings(
    derandomize=True, deadline=None, max_examples=25, database=None, suppress_health_check=[HealthCheck.too_slow]
)
SEEDS = st.integers(0, 2**32 - 1)


def trouble(seed: int) -> list[Item]:
    """Eight seconds with late, lost and repeated items, wrong clocks and an outage, at random."""
    rng = np.random.default_rng(seed)
    items = seconds(0, 8)
    skews = {clock: int(rng.choice([0, 0, 2, -2, 0.3]) * NS_PER_S) for clock in ("plc", "camera", "microphone")}
    dead, outage = rng.choice(["camera", "plc", "none"]), rng.uniform(1, 5)
    sent: list[Item] = []
    for item in items:
        lost = rng.uniform() < 0.05 or (item.clock == dead and at(outage) < arrival_ns(item) < at(outage + 4))
        if not lost:
            delay_ns = int(rng.choice([0.02, 0.1, 1.0, 3.0], p=[0.6, 0.3, 0.07, 0.03]) * rng.uniform() * NS_PER_S)
            moved = stamped(later(item, delay_ns), skews.get(item.clock, 0))
            sent += [moved] * (2 if rng.uniform() < 0.05 else 1)
    return sent


@PROPERTY
@given(seed=SEEDS, gaps_ms=st.lists(st.integers(1, 1500), min_size=1, max_size=30))
def test_any_cadence_gives_the_frames_of_bulk(seed: int, gaps_ms: list[int]):
    items = trouble(seed)
    moments = at(0) + np.cumsum(np.resize(gaps_ms, 300)) * 1_000_000
    newest = max(arrival_ns(item) for item in items)
    live_timeline = Timeline(PLANT)
    frames = live(live_timeline, items, moments[moments <= newest].tolist())
    bulk_timeline = Timeline(PLANT)
    for index in np.random.default_rng(seed).permutation(len(items)):
        bulk_timeline.push(items[index])
    expected = bulk_timeline.flush()
    assert differing(frames, expected) == []
    assert live_timeline.health() == bulk_timeline.health()


@PROPERTY
@given(seed=SEEDS)
def test_delays_within_lateness_change_nothing(seed: int):
    rng = np.random.default_rng(seed)
    items = seconds(0, 5)
    shuffled = [later(item, int(rng.uniform(0, 0.149) * NS_PER_S)) for item in items]
    timeline = Timeline(PLANT)
    frames = live(timeline, shuffled, [at(0.05 * i) for i in range(1, 120)])
    assert differing(frames[:5], bulk(items)[:5]) == []
    assert not timeline.health().late


@PROPERTY
@given(seed=SEEDS)
def test_duplicates_change_nothing_and_are_counted(seed: int):
    rng = np.random.default_rng(seed)
    items = seconds(0, 5)
    again = [later(items[i], int(rng.uniform(0, 0.1) * NS_PER_S)) for i in rng.choice(len(items), 20, replace=False)]
    timeline = Timeline(PLANT)
    frames = live(timeline, [*items, *again], [at(0.05 * i) for i in range(1, 120)])
    assert differing(frames, bulk(items)) == []
    health = timeline.health()
    assert sum(health.duplicates.values()) + sum(health.late.values()) == len(again)


@PROPERTY
@given(
    skew_s=st.floats(0.8, 3600) | st.floats(-3600, -0.8),
    seed=SEEDS,
    clock=st.sampled_from(["plc", "camera", "microphone"]),
)
def test_a_constant_skew_gives_the_same_ticks_or_a_flag(skew_s: float, seed: int, clock: str):
    rng = np.random.default_rng(seed)
    right = [later(item, int(rng.uniform(0.001, 0.02) * NS_PER_S)) for item in seconds(0, 12)]
    skew_ns = round(skew_s * NS_PER_S)
    wrong = [stamped(item, skew_ns) if item.clock == clock else item for item in right]
    timeline = Timeline(PLANT)
    frames = live(timeline, wrong, [at(0.1 * i) for i in range(1, 130)])
    for seen, expected in zip(frames, bulk(right), strict=True):
        assert same(replace(seen, flags=()), expected) or f"clock:{clock}" in seen.flags or seen.t_ns <= at(3)
        if seen.t_ns >= at(8):
            assert seen.values.keys() == expected.values.keys()
            assert seen.coverage == pytest.approx(expected.coverage, abs=0.11)
            assert seen.age_s == pytest.approx(expected.age_s, abs=0.15)
    assert timeline.health().skewed == (clock,)
    assert timeline.health().clock_offset_s[clock] == pytest.approx(-skew_s, abs=0.03)


@PROPERTY
@given(seed=SEEDS, victim=st.sampled_from(["plc", "camera", "microphone", "scanner"]))
def test_death_and_rebirth_touch_one_source_only(seed: int, victim: str):
    rng = np.random.default_rng(seed)
    dies_s, lives_s = sorted(rng.uniform(1.5, 8, 2))
    items = seconds(0, 12)
    left = [i for i in items if i.clock != victim or not at(dies_s) < arrival_ns(i) < at(lives_s)]
    frames = live(Timeline(PLANT), left, [at(0.05 * i) for i in range(1, 260)])
    mine = set(TAGS) if victim == "plc" else {victim}
    for seen, expected in zip(frames, bulk(items), strict=True):
        for name in PLANT.by_name.keys() - mine:
            assert np.array_equal(seen.values.get(name, ()), expected.values.get(name, ()))
            assert seen.age_s.get(name) == expected.age_s.get(name)
        if seen.t_ns < at(dies_s) or seen.t_ns - NS_PER_S > at(lives_s + 2):
            assert same(seen, expected)


@PROPERTY
@given(seed=SEEDS)
def test_every_picture_is_shown_late_repeated_or_dropped(seed: int):
    items = [item for item in trouble(seed) if isinstance(item, Columns) or item.signal == "camera"]
    timeline = Timeline(PLANT)
    frames = live(timeline, [*items, *seconds(20, 25)], [at(0.1 * i) for i in range(1, 300)])
    shown = sum(len(frame.values.get("camera", ())) for frame in frames)
    health = timeline.health()
    counted = sum(counts.get("camera", 0) for counts in (health.late, health.duplicates, health.dropped))
    sent = sum(isinstance(item, Sample) for item in items) + 50
    assert shown + counted == sent


@PROPERTY
@given(seed=SEEDS, cuts=st.lists(st.integers(1, 399), max_size=8, unique=True))
def test_a_clock_model_does_not_care_how_arrivals_are_cut(seed: int, cuts: list[int]):
    rng = np.random.default_rng(seed)
    arrival = at(0) + np.sort(rng.integers(0, 40 * NS_PER_S, 400))
    skew = np.where(arrival > at(rng.uniform(5, 30)), rng.choice([3.0, -3.0, 0.0]), rng.choice([0.0, 5.0, -0.4]))
    delay = (rng.uniform(0, 0.1, 400) * NS_PER_S + skew * NS_PER_S).astype(np.int64)
    delay[rng.integers(0, 400, 3)] += rng.integers(-(10**15), 10**15, 3)
    whole, parts = ClockModel(), ClockModel()
    expected = whole.shift_ns(arrival, delay)
    edges = [0, *sorted(cuts), 400]
    got = [parts.shift_ns(arrival[a:b], delay[a:b]) for a, b in pairwise(edges)]
    assert np.array_equal(np.concatenate(got), expected)
    assert (parts.offset_ns, parts.steps, parts.flag.up, parts.smallest_s) == (
        whole.offset_ns,
        whole.steps,
        whole.flag.up,
        whole.smallest_s,
    )
    assert [parts.flag.up_at(at(s)) for s in range(40)] == [whole.flag.up_at(at(s)) for s in range(40)]


@PROPERTY
@given(seed=SEEDS)
def test_memory_is_bounded_when_nobody_advances(seed: int):
    config = TimelineConfig(capacity_s=2.0, capacity_rows=5)
    timeline = Timeline(PLANT, config)
    items = seconds(0, 10)
    for item in np.random.default_rng(seed).permutation(np.array(items, dtype=object)):
        timeline.push(item)
    kept = timeline.health().dropped
    assert kept["camera"] == 100 - 21
    assert kept["scanner"] == 50 - 11
    assert sum(kept[name] for name in ("TT101", "FT101", "LIC101.SP")) == 25 - 5
