import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.training.settings import TrainConfig
from fusion.training.splitting import GAP_SHARE, GAP_TICKS, split_runs
from models.actions import HORIZONS
from models.ticks import Ticks

STEP_NS = 10**9


def run(start_s, ticks, media=False, step_ns=STEP_NS):
    n = np.zeros((ticks, 2))
    media = {"camera": n} if media else {}
    return Ticks(
        t_ns=start_s * 10**9 + step_ns * np.arange(ticks, dtype=np.int64),
        tags=n,
        observed=n == 0,
        age_s=n,
        quality=n.astype(np.uint8),
        action=n,
        media=media,
        present={name: np.ones(ticks, bool) for name in media},
        patches={},
    )


def spans(runs):
    return [(int(r.t_ns[0]), int(r.t_ns[-1])) for r in runs]


def gap_ticks(earlier, later, step_ns=STEP_NS):
    return (min(a for a, _ in spans(later)) - max(b for _, b in spans(earlier))) / step_ns


@pytest.mark.parametrize("lengths", [(20_000,), (9_000, 14_000), (3_000, 9_000, 6_000)])
def test_few_long_recordings_are_cut_by_time_with_gaps(lengths):
    starts = np.cumsum([0, *lengths[:-1]])
    split = split_runs([run(int(s), n) for s, n in zip(starts, lengths, strict=True)], TrainConfig())
    assert gap_ticks(split.training, split.held_out) > GAP_TICKS >= max(HORIZONS)
    assert gap_ticks(split.held_out, split.calibration) > GAP_TICKS
    used = sum(len(r) for part in (split.training, split.held_out, split.calibration) for r in part)
    assert used > sum(lengths) - 2 * GAP_TICKS - 3 * 120
    assert sum(map(len, split.training)) > sum(map(len, split.held_out))


def test_a_long_training_run_has_pieces_that_the_closed_forms_can_hold_out():
    split = split_runs([run(0, 30_000)], TrainConfig())
    assert len(split.training) >= 3
    whole = Ticks.concat(split.training)
    assert np.array_equal(np.diff(whole.t_ns), np.full(len(whole) - 1, STEP_NS))


def test_of_little_time_little_is_gap():
    split = split_runs([run(0, 3_700)], TrainConfig())
    for earlier, later in ((split.training, split.held_out), (split.held_out, split.calibration)):
        assert 120 < gap_ticks(earlier, later) <= GAP_SHARE * 3_700 + 1


def test_an_hour_that_marks_cut_into_short_runs_still_calibrates_for_long_enough():
    runs = [run(start, 540) for start in range(0, 7 * 900, 900)]
    split = split_runs(runs, TrainConfig())
    assert sum(map(len, split.calibration)) >= 1080
    assert sum(map(len, split.held_out)) >= 300
    assert sum(map(len, split.training)) >= 900


def test_the_gap_is_counted_in_ticks():
    split = split_runs([run(0, 18_000, step_ns=10 * STEP_NS)], TrainConfig())
    assert gap_ticks(split.training, split.held_out, 10 * STEP_NS) > GAP_TICKS


def test_whole_recordings_that_follow_each_other_closely_lose_their_beginning():
    split = split_runs([run(1_000 * i, 1_000) for i in range(8)], TrainConfig())
    assert all(len(r) == 1_000 for r in split.training)
    assert len(split.held_out[0]) == len(split.calibration[0]) == 1_000 - GAP_TICKS
    assert gap_ticks(split.training, split.held_out) > GAP_TICKS


def test_recordings_far_apart_are_kept_whole():
    split = split_runs([run(5_000 * i, 1_000) for i in range(8)], TrainConfig())
    assert {len(r) for r in (*split.training, *split.held_out, *split.calibration)} == {1_000}


def test_kinds_are_split_each_by_themselves():
    tags = [run(0, 20_000)]
    media = [run(30_000 + 2_000 * i, 900, media=True) for i in range(6)]
    split = split_runs([*tags, *media], TrainConfig())
    for part in (split.training, split.held_out, split.calibration):
        assert {bool(r.media) for r in part} == {True, False}


def test_a_kind_too_short_to_cut_trains():
    split = split_runs([run(0, 20_000), run(30_000, 900, media=True)], TrainConfig())
    assert [len(r) for r in split.training if r.media] == [900]
    assert not [r for r in (*split.held_out, *split.calibration) if r.media]


def test_the_least_that_is_cut_and_one_tick_less():
    least = 900 + 300 + 180 + 900 + 2 * GAP_TICKS
    assert split_runs([run(0, least)], TrainConfig()).whole
    with pytest.raises(ConfigError, match=r"0\.97 h in fewer than 5 recordings"):
        split_runs([run(0, least - 1)], TrainConfig())


def test_no_normal_recording_is_said():
    with pytest.raises(ConfigError, match="all that were given hold faults"):
        split_runs([], TrainConfig())
