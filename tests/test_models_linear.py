import json

import numpy as np
import pytest
import torch

from fusion.errors import ConfigError
from fusion.plant import Plant, Role, Signal
from fusion.records import ACTION_STEPS
from fusion.state import dump_state, load_state
from models.actions import HORIZONS, path_summary, path_weights, recorded_summary, step_summary
from models.linear.core import LinearConfig, LinearCore
from models.linear.fit import fit_core
from models.linear.past import feature_names, past
from models.linear.regression import Moments, ridge
from models.linear.saturation import _limits
from models.networks.linear_head import LinearHead
from models.ticks import Ticks
from tests.grid_runs import from_process_grid

TICKS = 1100
GAINS = {"SP1": 2.0, "SP2": -0.5}


def make_plant():
    return Plant(
        name="synthetic",
        signals=(
            Signal(name="T", unit="Cel", role=Role.CONTROLLED),
            Signal(name="F"),
            Signal(name="N"),
            Signal(name="SP1", role=Role.MANIPULATED, low=0.0, high=10.0, max_rate=1.0),
            Signal(name="SP2", role=Role.MANIPULATED, low=-4.0, high=4.0, max_rate=1.0),
        ),
    )


def steps(rng, low, high, ticks):
    """Random steps about every 80 ticks."""
    at = np.cumsum(rng.random(ticks) < 1 / 80)
    return rng.uniform(low, high, ticks + 1)[at]


def run(seed, ticks=TICKS, paths=None):
    """T follows both actions with lags of 40 and 15 s, F follows T's rate; N is noise no one can predict."""
    rng = np.random.default_rng(seed)
    u1, u2 = paths or (steps(rng, 2, 8, ticks), steps(rng, -3, 3, ticks))
    slow = fast = 0.0
    values = {n: np.zeros(ticks) for n in "TFN"}
    a1, a2 = u1[0], u2[0]
    slow, fast = 2.0 * a1, -0.5 * a2
    drift = rng.normal(0, 3)
    for t in range(ticks):
        before = slow + fast
        slow += (2.0 * u1[t] - slow) / 40.0
        fast += (-0.5 * u2[t] - fast) / 15.0
        values["T"][t] = 50 + drift + slow + fast + rng.normal(0, 0.02)
        values["F"][t] = 3 + 4 * (slow + fast - before) + rng.normal(0, 0.02)
        values["N"][t] = rng.normal(0, 1)
    return from_process_grid(make_plant(), np.arange(1, ticks + 1) * 10**9, {**values, "SP1": u1, "SP2": u2})


@pytest.fixture(scope="module")
def core():
    return fit_core([run(s) for s in range(10)], make_plant(), LinearConfig(ranks=(4, 8, 16)))


def test_recorded_and_planned_summaries_agree():
    rng = np.random.default_rng(0)
    path = rng.normal(size=(1, ACTION_STEPS, 2))
    ticks = np.concatenate([[[0.3, -0.2]], np.repeat(path[0], 10, 0)])
    planned = path_summary(path, ticks[0], path_weights(dead=(0, 0)))
    for row, horizon in enumerate(HORIZONS):
        np.testing.assert_allclose(recorded_summary(ticks, horizon)[0], planned[0, row], atol=1e-9)
    stepped = path_summary(np.ones((1, ACTION_STEPS, 1)), np.zeros(1), path_weights())
    np.testing.assert_allclose(stepped[0, -1], step_summary(600), atol=1e-9)


def test_what_is_on_its_way_comes_before_what_is_planned():
    rng = np.random.default_rng(0)
    dead, late = (7, 0), 7
    path, before = rng.normal(size=(1, ACTION_STEPS, 2)), rng.normal(size=(late + 1, 2))
    asked = np.concatenate([before, np.repeat(path[0], 10, 0)])
    arrived = np.stack([asked[late - d : len(asked) - d, a] for a, d in enumerate(dead)], 1)
    whole = np.concatenate([before[None, 1:], path], 1)
    planned = path_summary(whole, arrived[0], path_weights(dead=dead))
    for row, horizon in enumerate(HORIZONS):
        np.testing.assert_allclose(recorded_summary(arrived, horizon)[0], planned[0, row], atol=1e-9)


def test_ridge_from_added_moments_is_least_squares_and_knows_its_error():
    rng = np.random.default_rng(1)
    x, w = rng.normal(3, 2, (500, 4)), rng.normal(size=(4, 2))
    y = x @ w + 5 + rng.normal(0, 0.1, (500, 2))
    moments = Moments.total([Moments.of(x[:200], y[:200]), Moments.of(x[200:], y[200:])])
    weights = ridge(moments, (1e-9,))[0]
    np.testing.assert_allclose(weights[:-1], w, atol=0.02)
    true = ((y - np.c_[x, np.ones(500)] @ weights) ** 2).mean(0)
    np.testing.assert_allclose(moments.error(weights), true, rtol=1e-6)
    assert np.isfinite(ridge(Moments.of(np.zeros((0, 4)), np.zeros((0, 2))), (1e-3,))[0]).all()


def test_forecasts_beat_persistence_on_unseen_runs_where_there_is_something_to_know(core):
    skill = core.skills([run(100), run(101)])
    for horizon in (32, 64, 128):
        assert skill[HORIZONS.index(horizon), 0] > 0.95
    assert skill[HORIZONS.index(8), 0] > 0.8
    assert 0.3 < skill[HORIZONS.index(8), 2] < 0.6  # of noise only the mean is known: a skill of one half


def test_steady_state_gains(core):
    gains = core.gains(256)
    np.testing.assert_allclose(gains[0], list(GAINS.values()), rtol=0.1)
    assert np.abs(gains[1:]).max() < 0.1


def test_planned_step_reaches_what_the_plant_does(core):
    ticks = 400
    u1, u2 = np.full(1100, 4.0), np.full(1100, 1.0)
    u1[ticks:] = 6.0
    true = run(7, paths=(u1, u2))
    now, _ = core.encode(true[:ticks])
    paths = np.stack([np.tile([6.0, 1.0], (ACTION_STEPS, 1)), np.tile([4.0, 1.0], (ACTION_STEPS, 1))])
    made = core.forecast(now, paths)
    for horizon in (32, 64, 256):
        row = HORIZONS.index(horizon)
        assert made[0, row, 0] == pytest.approx(true.tags[ticks - 1 + horizon, 0], abs=0.3)
        assert made[1, row, 0] == pytest.approx(true.tags[ticks - 1, 0], abs=0.3)
    np.testing.assert_allclose(core.forecast(now), made[1:], atol=1e-9)


def test_tensor_head_agrees_with_numpy(core):
    now, _ = core.encode(run(8)[:300])
    paths = np.random.default_rng(0).uniform([2, -3], [8, 3], (5, ACTION_STEPS, 2))
    head = LinearHead(core, torch.float64)
    last = now[-1:]
    summary = head.summary(torch.tensor(paths), torch.tensor(last.action[0]), torch.tensor(last.waiting[0]))
    made = head(torch.tensor(last.past), torch.tensor(last.tags), summary)
    np.testing.assert_allclose(made.numpy(), core.forecast(now, paths), atol=1e-9)


def test_one_tick_at_a_time_equals_bulk(core):
    ticks = run(9)[:200]
    bulk, _ = core.encode(ticks)
    carry, parts = None, []
    for t in range(len(ticks)):
        made, carry = core.encode(ticks[t : t + 1], carry)
        parts.append(made.z)
    np.testing.assert_allclose(np.concatenate(parts), bulk.z, atol=1e-9)


def test_a_tag_that_was_never_observed_does_not_change_the_latent_bit_for_bit(core):
    """What was observed once is held by the timeline; see there for values that are BAD."""
    ticks = run(9)[:300]
    observed = ticks.observed.copy()
    observed[:, 1] = False
    arrays = ticks.arrays() | {"observed": observed}

    def with_garbage(garbage):
        tags = np.where(observed, ticks.tags, garbage)
        return Ticks(**(arrays | {"tags": tags}), media={}, present={}, patches={})

    first, _ = core.encode(with_garbage(0.0))
    second, _ = core.encode(with_garbage(np.nan))
    assert (first.z == second.z).all()
    assert np.isfinite(core.forecast(second)).all()


def test_conformal_bands_cover(core):
    calibrated = core.calibrate([run(s) for s in range(200, 204)])
    checked = [calibrated.encode(run(s))[0] for s in range(300, 303)]
    for horizon in (1, 32, 128):
        row = HORIZONS.index(horizon)
        error = np.concatenate([np.abs(np.subtract(*calibrated.hindcast(e, horizon))) for e in checked])
        inside = (error <= calibrated.half_width[row]).mean(0)
        assert (inside > 0.8).all()
        assert inside[2] < 0.97
    assert calibrated.band().shape == (len(HORIZONS), 3)


def test_state_round_trip(core):
    arrays, tree = dump_state(core)
    again = load_state(LinearCore, arrays, json.loads(json.dumps(tree)))
    now, _ = core.encode(run(8)[:100])
    there, _ = again.encode(run(8)[:100])
    np.testing.assert_array_equal(core.forecast(now), again.forecast(there))


def test_short_runs_are_refused_and_one_run_is_enough():
    with pytest.raises(ConfigError, match="at least"):
        fit_core([run(0)[:100]], make_plant())
    core = fit_core([run(0)[:600]], make_plant(), LinearConfig(ranks=(8,)))
    assert np.isfinite(core.past_weights).all()
    assert (core.choice[HORIZONS.index(600)] == 0).all()  # neither part is long enough: persistence


def test_names_match_the_past(core):
    names = feature_names(("T", "F", "N"), ("SP1", "SP2"))
    made, _ = past(run(1)[:10], core.scaling)
    assert len(names) == made.features.shape[1]
    with pytest.raises(ConfigError, match=r"linear\.ranks"):
        LinearConfig(ranks=())


def delayed_run(seed, dead, ticks=700):
    """T follows SP1 ``dead`` ticks late, with a lag of 5 s; SP2 does nothing."""
    rng = np.random.default_rng(seed)
    u1, u2 = steps(rng, 2, 8, ticks), steps(rng, -3, 3, ticks)
    arrived = np.concatenate([np.repeat(u1[:1], dead), u1[: ticks - dead]])
    level, level_T = float(u1[0]), np.zeros(ticks)
    for t in range(ticks):
        level += (arrived[t] - level) / 5.0
        level_T[t] = 50 + 2 * level
    values = {"T": level_T + rng.normal(0, 0.02, ticks), "F": rng.normal(0, 1, ticks), "N": rng.normal(0, 1, ticks)}
    return from_process_grid(
        make_plant(), np.arange(1, ticks + 1) * 10**9, {**values, "SP1": u1[:ticks], "SP2": u2[:ticks]}
    )


@pytest.fixture(scope="module")
def delayed():
    return fit_core([delayed_run(s, 25) for s in range(10)], make_plant(), LinearConfig(ranks=(4, 8)))


def test_a_dead_time_is_found_and_what_is_on_its_way_is_foretold(core, delayed):
    assert core.dead == (0, 0)
    assert delayed.dead[0] == pytest.approx(25, abs=1)
    assert delayed.dead[1] == 0
    held_out = [delayed_run(s, 25) for s in (100, 101)]
    near = [row for row, horizon in enumerate(HORIZONS) if 4 <= horizon <= 16]
    assert (delayed.skills(held_out)[near, 0] > 0.95).all()


def test_a_delayed_core_streams_and_its_head_agrees(delayed):
    run_ = delayed_run(100, 25)
    whole, _ = delayed.encode(run_)
    first, carry = delayed.encode(run_[:333])
    second, _ = delayed.encode(run_[333:], carry)
    np.testing.assert_allclose(np.concatenate([first.past, second.past]), whole.past, atol=1e-9)
    np.testing.assert_array_equal(np.concatenate([first.waiting, second.waiting]), whole.waiting)
    rng = np.random.default_rng(1)
    paths = rng.uniform(2, 5, (3, ACTION_STEPS, 2))
    head, last = LinearHead(delayed, torch.float64), whole[-1:]
    now = [torch.tensor(x[0]) for x in (last.past, last.tags, last.action, last.waiting)]
    made = head(now[0][None], now[1][None], head.summary(torch.tensor(paths), now[2], now[3]))
    np.testing.assert_allclose(made.numpy(), delayed.forecast(whole, paths), atol=1e-9)
    still = np.repeat(run_.action[-1:][None], ACTION_STEPS, 1)
    np.testing.assert_allclose(delayed.forecast(whole), delayed.forecast(whole, still), atol=1e-9)
    course = head.course(now[0], now[1], torch.tensor(paths), now[2], now[3])
    assert course.shape == (3, ACTION_STEPS, 3)
    np.testing.assert_allclose(course[:, 59], made[:, HORIZONS.index(600)], atol=1e-9)


def test_a_course_tells_what_happens_between_the_horizons(core):
    """At 300 s, of a move that comes at 280 s and of which no horizon before 600 s knows."""
    run_ = run(100)
    encoding, _ = core.encode(run_)
    last = encoding[-1:]
    now = [torch.tensor(x[0]) for x in (last.past, last.tags, last.action, last.waiting)]
    still = torch.tensor(run_.action[-1]).expand(1, ACTION_STEPS, -1)
    moved = still.clone()
    moved[:, 28:, 0] += 1.0
    head = LinearHead(core, torch.float64)
    effect = (head.course(*now[:2], moved, *now[2:]) - head.course(*now[:2], still, *now[2:]))[0, :, 0]
    assert effect[:28].abs().max() < 1e-9
    assert effect[31].item() == pytest.approx(2 * (1 - np.exp(-40 / 40)), abs=0.25)
    assert effect[-1].item() == pytest.approx(2.0, abs=0.25)


def saturating_run(seed, ticks=900, low=0.0):
    """T follows SP1 through a valve F that answers at once and stands shut for a part of the time."""
    rng = np.random.default_rng(seed)
    u1 = steps(rng, 4, 6, ticks)[:ticks]
    load = np.repeat(rng.uniform(-4.0, 6.0, ticks // 90 + 1), 90)[:ticks]
    valve = np.maximum(u1 - 5 + load, low)
    level, level_T = 2 * float(valve[0]), np.zeros(ticks)
    for t in range(ticks):
        level += (2 * valve[t] - level) / 8.0
        level_T[t] = 50 + level
    values = {"T": level_T + rng.normal(0, 0.02, ticks), "F": valve, "N": load + rng.normal(0, 0.02, ticks)}
    return from_process_grid(
        make_plant(), np.arange(1, ticks + 1) * 10**9, {**values, "SP1": u1, "SP2": np.zeros(ticks)}
    )


def test_a_planned_move_does_what_it_does_where_its_valve_is_free():
    shut = fit_core([saturating_run(s) for s in range(12)], make_plant(), LinearConfig(ranks=(4, 8)))
    never = fit_core([saturating_run(s, low=-99.0) for s in range(12)], make_plant(), LinearConfig(ranks=(4, 8)))
    row = HORIZONS.index(32)
    step = np.concatenate([step_summary(32), np.zeros(5)])
    scale = shut.scaling.tags.scale[0] / shut.scaling.action.scale[0]
    over_all = float(step @ shut.action_weights[row][:, 0]) * scale
    assert over_all < 1.7
    assert abs(float(shut.gains(32)[0, 0]) - 2.0) < 0.6 * abs(over_all - 2.0)
    np.testing.assert_array_equal(never.planned_weights, never.action_weights)


def test_runs_shorter_than_the_longest_horizon_are_no_obstacle():
    core = fit_core([saturating_run(s, ticks=400) for s in range(6)], make_plant(), LinearConfig(ranks=(4, 8)))
    assert np.isfinite(core.planned_weights).all()
    assert not core.gains(HORIZONS[-1]).any()


def slow_level(seed, ticks=1500):
    """T is a level that a valve F brings to SP1, at most as fast as the valve open by half or shut allows."""
    rng = np.random.default_rng(seed)
    u1 = steps(rng, 4, 6, ticks)[:ticks]
    level, valve, level_T = float(u1[0]), np.zeros(ticks), np.zeros(ticks)
    for t in range(ticks):
        valve[t] = np.clip(0.1 * (u1[t] - level), -0.02, 0.02)
        level += valve[t]
        level_T[t] = level
    noise = rng.normal(0, 0.01, (2, ticks))
    values = {"T": level_T + noise[0], "F": valve, "N": noise[1], "SP1": u1, "SP2": np.zeros(ticks)}
    return from_process_grid(make_plant(), np.arange(1, ticks + 1) * 10**9, values)


def test_the_part_of_a_move_made_at_a_limit_is_not_put_down_to_the_rest():
    core = fit_core([slow_level(s) for s in range(12)], make_plant(), LinearConfig(ranks=(4, 8)))
    assert [core.gains(k)[0, 0] for k in (64, 128)] == pytest.approx([1.0, 1.0], abs=0.1)


def test_limits_are_those_declared_or_where_values_pile_up():
    rng = np.random.default_rng(0)
    free, shut = rng.uniform(0, 1, 1000), np.maximum(rng.uniform(-0.5, 1, 1000), 0.0)
    assert _limits(free, None, None) == (-np.inf, np.inf)
    assert _limits(shut, None, None) == (0.0, np.inf)
    assert _limits(shut + rng.normal(0, 0.001, 1000), -0.002, 1.998) == (pytest.approx(0.018), np.inf)
    assert _limits(np.zeros(1000), 0.0, 1.0) == (-np.inf, np.inf)  # it never acts
