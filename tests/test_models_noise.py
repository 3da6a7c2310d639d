"""Tags that have become noisy: found whatever they do otherwise, left alone where they shake while normal."""

import numpy as np
import pytest

from models.monitors.noise import Noise, NoiseCarry
from tests.benchmarks.tables import plant_of, run_of
from tests.test_models_novelty import LIMIT, drifting

PLANT = plant_of("p", ("a", "b", "c"), 1.0)


def seen(noise, values, observed=None, pieces=1):
    """What is over the limits [T, S] of a stream that comes in so many pieces."""
    carry, made = NoiseCarry.begin(values.shape[1]), []
    for part in np.array_split(np.arange(len(values)), pieces):
        ticks = run_of(PLANT, values[part], observed=None if observed is None else observed[part])
        over, carry = noise.step(ticks, carry)
        made.append(over)
    return np.concatenate(made)


@pytest.fixture(scope="module")
def fitted():
    return Noise.fit([run_of(PLANT, drifting(2500, 0)), run_of(PLANT, drifting(900, 1))])


def test_normal_tags_are_judged_and_quiet(fitted):
    assert np.isfinite(fitted.limit).all()
    assert not seen(fitted, drifting(5000, 2)).any()


@pytest.mark.parametrize("times", [2.5, 8.0])
def test_noise_is_found_in_the_tag_that_has_it_and_ends_with_it(fitted, times):
    values = drifting(2000, 3)
    values[800:1400, 1] += np.sqrt(times**2 - 1) * 0.1 * np.random.default_rng(4).normal(size=600)
    over = seen(fitted, values)
    assert not over[:800].any()
    assert (over[1000:1400, 1] > 0).mean() > 0.9
    assert (over[1000:1400, 1] > LIMIT).any()
    assert not over[:, [0, 2]].any()
    assert not over[1600:].any()


def test_steps_of_the_plant_are_no_noise_however_large(fitted):
    values = drifting(2000, 5)
    values += 40.0 * (np.arange(2000) // 90 % 2)[:, None]
    assert not seen(fitted, values).any()


def test_in_pieces_as_at_once_and_over_gaps(fitted):
    values, observed = drifting(1500, 6), np.ones((1500, 3), bool)
    values[700:, 2] += 1.5 * np.random.default_rng(7).normal(size=800)
    assert np.allclose(seen(fitted, values), seen(fitted, values, pieces=37))
    observed[900:1000, 2] = False
    over = seen(fitted, values, observed)
    assert not over[900:1000, 2].any()
    assert (over[1000:, 2] > LIMIT).mean() > 0.9
    assert np.allclose(over, seen(fitted, values, observed, pieces=11))


def test_what_shakes_from_the_first_tick_on_does_so_today(fitted):
    values = drifting(2000, 8)
    values[:, 0] += 0.4 * np.random.default_rng(9).normal(size=2000)
    assert not (seen(fitted, values) > LIMIT).any()


def test_what_shakes_now_and_then_while_normal_may_do_so_again():
    def shaking(seed):
        values = drifting(3000, seed)
        values[1000:2000, 0] += np.random.default_rng(seed).normal(size=1000)
        return values

    noise = Noise.fit([run_of(PLANT, shaking(10))])
    assert np.isfinite(noise.limit[1:]).all()
    assert not (seen(noise, shaking(11)) > LIMIT).any()


def test_a_tag_that_never_moves_has_no_noise_to_judge():
    values = drifting(1000, 12)
    values[:, 1] = 7.0
    noise = Noise.fit([run_of(PLANT, values)])
    assert np.isnan(noise.limit[1])
    assert not seen(noise, values).any()
