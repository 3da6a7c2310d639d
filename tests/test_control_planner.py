import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from control_worlds import HORIZON_S, LinearWorld, small_plant

from control.advice.constraints import ConstraintConfig, MoveBox, SignalLimits, binding_moves, blocks, clamp_move
from control.advice.objective import Objective, ObjectiveConfig, time_weights
from control.advice.planner import Planner, PlannerConfig
from fusion.errors import ConfigError, ModelError
from fusion.records import action_step_s
from fusion.targets import Target
from models.actions import course_ticks, path_summary, path_weights

WIDE = ConstraintConfig(largest_step=1.0)


def planner(world, plant=None, **settings):
    return Planner(PlannerConfig(**settings), plant or small_plant(), world)


def test_reaches_an_attainable_setpoint():
    world = LinearWorld()
    plan = planner(world).plan(world)
    assert float(plan.target[0]) == pytest.approx(85.0, abs=0.4)
    assert float(plan.expected[-1, 0]) == pytest.approx(85.0, abs=0.4)
    assert float(plan.target[1]) == pytest.approx(0.6)
    assert plan.cost < plan.baseline_cost
    assert plan.gain_low > 0
    assert plan.gain_low < plan.gain < plan.gain_high


def test_more_knots_track_no_worse_than_one():
    world = LinearWorld(lag_s=250.0)
    config = {"constraints": WIDE, "iterations": 8, "samples": 256}
    one = planner(world, knots=1, **config).plan(world)
    six = planner(world, knots=6, **config).plan(world)
    assert six.cost <= one.cost * 1.02


def test_with_dead_time_a_plan_of_many_moves_does_not_put_off_the_first():
    """Asked anew each step and judged at few horizons only, it would find every time that later is soon enough."""
    world = LinearWorld(lag_s=1.0, dead_s=200.0, action=(80.0, 0.6))
    moves = [planner(world, knots=knots, constraints=WIDE).plan(world).action[0, 0] - 80.0 for knots in (1, 5)]
    assert moves == pytest.approx([0.5, 0.5], abs=0.02)


def test_the_gradient_improves_on_samples():
    world = LinearWorld(state=(83.0, 0.6, 0.5), action=(83.0, 0.6), lag_s=250.0)
    few = {"knots": 5, "constraints": WIDE, "samples": 32, "elites": 4, "iterations": 2}
    few["objective"] = ObjectiveConfig(effort=1e-4)
    sampled, refined = (planner(world, refinements=n, **few).plan(world).cost for n in (0, 12))
    assert refined < 0.98 * sampled
    with pytest.raises(ConfigError, match="refinements"):
        PlannerConfig(refinements=-1)


def test_only_what_feedback_cannot_correct_is_kept_from_a_limit():
    targets = (Target(signal="T", setpoint=96.0, scale=2.0, weight=1.0, high=86.0, backoff=0.5),)
    world, ends = LinearWorld(band=2.0), []
    for knots in (1, 5):
        config = ConstraintConfig(largest_step=1.0, band_share=1.0)
        plan = planner(world, small_plant(targets), knots=knots, constraints=config).plan(world)
        ends.append(float(plan.expected[-1, 0]))
    assert ends[0] == pytest.approx(83.5, abs=0.1)
    assert ends[0] + 0.5 < ends[1] < 85.5


def test_every_path_keeps_ranges_and_rates():
    box = MoveBox(small_plant(), ("T.SP", "L.SP"), WIDE)
    now = torch.tensor([80.0, 0.6])
    wild = torch.randn(64, 6, 2) * torch.tensor([50.0, 5.0]) + now
    low, high = box.reach(now, torch.tensor([True, True]))
    paths = box.paths(wild.clamp(low, high), now)
    assert paths.shape == (64, 60, 2)
    assert (paths >= box.low - 1e-5).all()
    assert (paths <= box.high + 1e-5).all()
    steps = torch.diff(torch.cat([now.expand(64, 1, 2), paths], dim=1), dim=1).abs()
    assert (steps <= torch.tensor([0.5, 0.02]) + 1e-5).all()


def test_where_a_tick_is_a_minute_a_step_of_the_grid_is_one_and_a_rate_is_still_of_seconds():
    slow = replace(small_plant(), step_s=60.0)
    now, far = torch.tensor([80.0, 0.6]), torch.tensor([[[90.0, 0.6]]])
    assert MoveBox(slow, ("T.SP", "L.SP"), WIDE).paths(far, now)[0, :3, 0].tolist() == [83.0, 86.0, 89.0]
    assert [action_step_s(s) for s in (0.5, 1.0, 3.0, 10.0, 60.0)] == [10.0, 10.0, 9.0, 10.0, 60.0]
    assert course_ticks(60.0) == tuple(range(1, 61))
    late = planner(LinearWorld(), slow, latency_s=120.0).plan(LinearWorld()).action
    assert torch.equal(late[:2], LinearWorld().current_action.expand(2, -1))
    assert not torch.equal(late[2], late[1])
    path = np.repeat([[[1.0]]], 60, 1)
    last, mean, *lagged = path_summary(path, np.zeros(1), path_weights(60.0))[0, -1]
    assert (last, mean) == pytest.approx((1.0, 1.0))
    fast = path_summary(path, np.zeros(1), path_weights(10.0))[0, -1]
    assert lagged == pytest.approx(fast[2:])


def test_one_advice_moves_at_most_its_step():
    world = LinearWorld(state=(72.0, 0.6, 0.5), action=(72.0, 0.6))
    plan = planner(world).plan(world)
    assert float(plan.target[0]) == pytest.approx(77.0, abs=0.05)
    assert "T.SP step" in plan.binding


def test_limits_are_kept_with_back_off_where_the_setpoint_lies_beyond():
    targets = (Target(signal="T", setpoint=96.0, scale=2.0, weight=1.0, high=86.0, backoff=1.5),)
    world = LinearWorld()
    plan = planner(world, small_plant(targets)).plan(world)
    assert float(plan.expected[:, 0].max()) <= 84.5 + 1e-3
    assert float(plan.expected[-1, 0]) > 83.5
    assert plan.violation == pytest.approx(0.0, abs=1e-5)
    assert "T high" in plan.binding


def test_a_violated_limit_is_left_first_whatever_it_costs():
    targets = (Target(signal="T", setpoint=90.0, scale=2.0, weight=1.0, high=84.0, backoff=1.0),)
    world = LinearWorld(state=(86.0, 0.6, 0.5), action=(86.0, 0.6))
    plan = planner(world, small_plant(targets)).plan(world)
    assert float(plan.expected[-1, 0]) <= 83.0 + 0.2
    assert plan.baseline_violation > plan.violation


def test_signals_that_are_not_free_stay():
    world = LinearWorld()
    plan = planner(world).plan(world, free=("L.SP",))
    assert float(plan.target[0]) == 80.0
    assert planner(world).plan(world, free=()).gain == 0.0


def test_moves_that_bring_nothing_are_left_out():
    world = LinearWorld(state=(85.0, 0.6, 0.5), action=(85.0, 0.6))
    plan = planner(world).plan(world)
    assert torch.equal(plan.target, world.current_action)
    assert plan.gain == pytest.approx(0.0)


def test_prices_are_weighed_against_tracking():
    targets = (
        Target(signal="T", setpoint=80.0, scale=2.0, weight=1.0),
        Target(signal="F", price=100.0),
    )
    world = LinearWorld()
    plan = planner(world, small_plant(targets), objective=ObjectiveConfig(effort=0.0)).plan(world)
    assert float(plan.expected[-1, 0]) == pytest.approx(76.0, abs=0.7)


def test_the_search_is_repeatable():
    world = LinearWorld()
    assert torch.equal(planner(world, seed=3).plan(world).action, planner(world, seed=3).plan(world).action)


def test_a_warm_start_needs_no_more_cost():
    world = LinearWorld()
    warm = planner(world, samples=32, elites=4, iterations=2, knots=6)
    first = warm.plan(world)
    assert warm.plan(world, elapsed_s=100.0).cost <= first.cost * 1.1


class FailingWorld(LinearWorld):
    """NaN wherever the action moves, or everywhere."""

    everywhere = False

    def foretold(self, action_NKA, at_s):
        made = super().foretold(action_NKA, at_s)
        moved = (action_NKA != self.current_action).flatten(1).any(1)
        made[moved | self.everywhere] = float("nan")
        return made


def test_forecasts_that_are_not_finite_are_never_planned_on():
    world = FailingWorld()
    plan = planner(world).plan(world)
    assert torch.equal(plan.target, world.current_action)
    world.everywhere = True
    with pytest.raises(ModelError, match="finite"):
        planner(world).plan(world)


def test_a_wrong_shape_and_a_late_model_are_model_errors():
    world = LinearWorld()
    made = planner(world)
    world.foretold = lambda action_NKA, at_s: torch.zeros(len(action_NKA), 3, 3)
    with pytest.raises(ModelError, match="shape"):
        made.plan(world)
    seconds = iter(range(100))
    late = Planner(PlannerConfig(deadline_s=2.5), small_plant(), LinearWorld(), clock=lambda: float(next(seconds)))
    with pytest.raises(ModelError, match=r"2\.5 s"):
        late.plan(LinearWorld())


def test_candidates_outside_the_trained_region_lose():
    class Edge(LinearWorld):
        def support(self, action_NKA):
            return (action_NKA - self.current_action).abs().amax((1, 2)) / 2.0

    world = Edge()
    plan = planner(world).plan(world)
    assert plan.support <= 1 + 1e-5
    assert float(plan.target[0]) == pytest.approx(82.0, abs=0.1)


def test_coloured_noise_has_unit_variance_and_leans_to_low_frequencies():
    made = planner(LinearWorld(), knots=6).noise(4000)
    assert made.shape == (4000, 6, 2)
    assert float(made.std()) == pytest.approx(1.0, abs=0.05)
    neighbours = (made[:, 1:] * made[:, :-1]).mean()
    assert float(neighbours) > 0.3


def test_gain_interval_widens_with_the_band_but_not_for_what_hits_both_alike():
    plant = small_plant((Target(signal="F", price=10.0),))
    objective = Objective(plant, ("T", "L", "F"), ("T.SP", "L.SP"), HORIZON_S, ObjectiveConfig(gain_error=0.0))
    base, plan = torch.full((10, 3), 1.0), torch.full((10, 3), 0.9)
    assert objective.gain(plan, base, torch.full((10, 3), 5.0), 0.0) == pytest.approx((1.0, 1.0, 1.0), rel=1e-5)
    tracking = Objective(small_plant(), ("T", "L", "F"), ("T.SP", "L.SP"), HORIZON_S)
    narrow = tracking.gain(plan, base, torch.full((10, 3), 0.1), 0.0)
    wide = tracking.gain(plan, base, torch.full((10, 3), 1.0), 0.0)
    assert wide[1] < narrow[1] < narrow[0] < narrow[2] < wide[2]


def test_time_weights_average_a_curve():
    weights = time_weights(HORIZON_S)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float((weights * torch.tensor(HORIZON_S)).sum()) == pytest.approx(300.0, rel=0.01)


def test_the_last_clamp_holds_whatever_comes():
    signal = small_plant().by_name["T.SP"]
    assert clamp_move(signal, 80.0, 1000.0) == 85.0
    assert clamp_move(signal, 88.0, 1000.0) == 90.0
    assert clamp_move(signal, 80.0, float("nan")) == 80.0
    with pytest.raises(ConfigError, match="refill"):
        clamp_move(small_plant().by_name["refill"], 0.0, 1.0)


def test_binding_names_walls_and_steps():
    box = MoveBox(small_plant(), ("T.SP", "L.SP"))
    now, free = torch.tensor([88.0, 0.6]), torch.tensor([True, True])
    assert binding_moves(box, torch.tensor([90.0, 0.6]), now, free) == ("T.SP high",)
    assert binding_moves(box, torch.tensor([83.0, 0.6]), now, free) == ("T.SP step",)
    limits = SignalLimits(small_plant(), ("T", "L", "F"), HORIZON_S)
    forecast = torch.tensor([80.0, 0.22, 1.0]).expand(10, 3)
    assert limits.binding(forecast, torch.zeros(10, 3)) == ("L low",)


def test_configurations_and_targets_are_checked_by_name():
    with pytest.raises(ConfigError, match="knots"):
        PlannerConfig(knots=0)
    with pytest.raises(ConfigError, match="refill"):
        MoveBox(small_plant(), ("refill",))
    with pytest.raises(ConfigError, match="camera"):
        planner(LinearWorld(), small_plant((Target(signal="camera", weight=1.0),)))


def test_planning_takes_milliseconds():
    world = LinearWorld()
    made = planner(world)
    made.plan(world)
    began = time.process_time()
    made.plan(world)
    assert time.process_time() - began < 1.0


def test_knots_hold_for_longer_and_longer_and_fill_the_path():
    assert blocks(1) == (60,)
    assert blocks(4) == (1, 2, 4, 53)
    box = MoveBox(small_plant(), ("T.SP", "L.SP"))
    knots = torch.tensor([[[80.4, 0.6], [80.8, 0.6], [80.0, 0.6]]])
    path = box.paths(knots, torch.tensor([80.0, 0.6]))[0, :, 0]
    assert path.shape == (60,)
    assert path[:5].tolist() == pytest.approx([80.4, 80.8, 80.8, 80.3, 80.0])


def test_what_comes_late_is_planned_to_come_late():
    world = LinearWorld()
    plan = planner(world, latency_s=60.0).plan(world)
    assert (plan.action[:6] == world.current_action).all()
    assert plan.action[-1, 0] > 84
    coming = torch.tensor([[81.0, 0.6], [82.0, 0.6]])
    told = planner(world).plan(world, coming_DA=coming)
    assert torch.equal(told.action[:2], coming)
    assert abs(float(told.action[2, 0]) - 82.0) <= 0.5 + 1e-5
    with pytest.raises(ConfigError, match=r"planner\.latency_s"):
        PlannerConfig(latency_s=999)
