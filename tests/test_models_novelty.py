"""Tags that say nothing new: replays and coarse steps are found, what is rounded or switches is left alone."""

import numpy as np
import pytest

from models.monitors.novelty import MEMORY_TICKS, REPLAYED, TURNS, WINDOW_TICKS, Novelty, NoveltyCarry
from tests.benchmarks.tables import plant_of, run_of

LIMIT = 1.0 - 0.75  # what is over the quiet share of a limit


def drifting(rows: int, seed: int, tags: int = 3):
    """Slow waves with the noise of a measurement [T, S]."""
    random = np.random.default_rng(seed)
    waves = np.sin(np.arange(rows)[:, None] / (40.0 + 10.0 * np.arange(tags)))
    return 50.0 + 5.0 * waves + 0.1 * random.normal(size=(rows, tags))


def run(values):
    return run_of(plant_of("p", tuple("abcdefgh"[: values.shape[1]]), 1.0), values)


def seen(novelty, values, observed=None):
    """Repetition and coarseness [T, S] of a stream seen at once."""
    ticks = run_of(plant_of("p", tuple("abcdefgh"[: values.shape[1]]), 1.0), values, observed=observed)
    return novelty.step(ticks, NoveltyCarry.begin(values.shape[1]))


@pytest.fixture(scope="module")
def fitted():
    return Novelty.fit([run(drifting(2500, 0)), run(drifting(900, 1))])


def test_normal_tags_are_judged_and_quiet(fitted):
    assert fitted.unique.all()
    assert np.isfinite(fitted.fewest).all()
    assert all(not part.any() for part in seen(fitted, drifting(3000, 2)))


def test_a_replay_is_found_of_all_tags_or_of_one_and_ends_with_it(fitted):
    values = drifting(1500, 3)
    values[800:1200] = np.tile(values[680:800], (4, 1))[:400]  # two minutes again and again
    repeated, coarse = seen(fitted, values)
    begun = np.argmax(repeated > LIMIT, axis=0)
    assert (begun > 800).all()
    assert (begun <= 800 + REPLAYED + 2 * TURNS).all()
    assert not repeated[:800].any()
    assert not repeated[1300:].any()
    assert not coarse.any()
    values = drifting(1500, 4)
    values[1000:1400, 1] = values[300:700, 1]
    repeated, _ = seen(fitted, values)
    assert repeated[1390, 1] > LIMIT
    assert not repeated[:, [0, 2]].any()


def test_a_replay_that_begins_again_stands_throughout(fitted):
    values = drifting(1500, 3)
    values[800:1400] = np.tile(values[680:800], (5, 1))
    repeated, _ = seen(fitted, values)
    assert (repeated[800 + REPLAYED + 2 * TURNS : 1400] > LIMIT).all()


def test_a_replay_with_values_slipped_into_the_next_tick_is_found(fitted):
    values = drifting(1600, 5)
    values[900:1500] = values[200:800]
    slipped = np.random.default_rng(6).choice(np.arange(900, 1500), 60, replace=False)
    values[slipped] = values[slipped - 1]
    repeated, _ = seen(fitted, values)
    assert (repeated[1490] > LIMIT).all()


def test_what_lies_further_back_than_the_memory_is_not_known(fitted):
    values = drifting(MEMORY_TICKS + 900, 7)
    values[MEMORY_TICKS + 400 :] = values[:500]
    assert not seen(fitted, values)[0].any()


def test_coarse_steps_are_found_also_where_noise_toggles_between_two(fitted):
    values = drifting(1500, 8)
    values[700:, 0] = np.round(values[700:, 0] / 2.0) * 2.0
    values[700:, 1] = 50.0 + 0.5 * np.sign(np.random.default_rng(9).normal(size=800))
    repeated, coarse = seen(fitted, values)
    assert not coarse[:700].any()
    assert (coarse[700 + WINDOW_TICKS + TURNS :, :2] > LIMIT).all()
    assert not coarse[:, 2].any()
    assert not repeated[:, 2].any()


def test_a_stream_that_begins_coarse_is_recorded_so_today(fitted):
    values = np.round(drifting(2000, 10) / 1.0)
    assert not seen(fitted, values)[1].any()


def test_tags_that_are_rounded_or_switch_while_normal_are_not_judged():
    values = drifting(2500, 11)
    values[:, 0] = np.round(values[:, 0])
    values[:, 1] = np.repeat(np.arange(25) % 2, 100)
    novelty = Novelty.fit([run(values)])
    assert np.isnan(novelty.fewest[:2]).all()
    assert not novelty.unique[0]
    assert novelty.unique[2]
    odd = drifting(1500, 12)
    odd[:, 0] = 7.0
    repeated, coarse = seen(novelty, odd)
    assert not coarse[:, 0].any()
    assert not repeated[:, 0].any()


def test_one_tick_at_a_time_gives_what_all_at_once_gives_and_gaps_say_nothing(fitted):
    values = drifting(2300, 13)
    values[1700:2100] = values[900:1300]
    observed = np.ones(values.shape, bool)
    observed[1750:1760] = False
    values[1750:1760] = np.nan
    values[~observed] = 0.0
    ticks = run_of(plant_of("p", ("a", "b", "c"), 1.0), values, observed=observed)
    whole = fitted.step(ticks, NoveltyCarry.begin(3))
    carry = NoveltyCarry.begin(3)
    parts = [fitted.step(ticks[row : row + 1], carry) for row in range(len(ticks))]
    for one, all_at_once in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(one), all_at_once)
    assert not whole[0][1750:1760].any()
    assert (whole[0][2090] > LIMIT).all()
