import dataclasses
import json

import numpy as np
import pytest
import torch

from fusion.plain import plain
from models.actions import HORIZONS
from models.networks.clips import Pool
from models.training.gauges import Gauges, between_runs, gaussian, passed, spectrum
from models.training.validation import examine, judge, scaled_gains, spread
from tests.models_plant import held_out_runs, make_core, make_model, make_plant

H = len(HORIZONS)


def healthy(**changes):
    gauges = Gauges(
        step=10,
        ticks=256,
        latent=8,
        epps_pulley=2.0,
        std_min=0.7,
        std_mean=1.0,
        rank_me=6.0,
        participation=5.0,
        between_runs=0.2,
        latent_skill=(0.5, 0.4),
        action_gap=(0.2,) * H,
        skill=np.full((H, 3), 0.5),
        skill_over_linear=np.full((H, 3), 0.05),
        gates_open=0.5,
        score=0.3,
        gains=np.array([[2.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
    )
    return dataclasses.replace(gauges, **changes)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_healthy_latent_passes():
    assert passed(healthy(), make_plant()) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epps_pulley": 100.0}, "collapsed"),
        ({"std_min": 0.01}, "dead dimension"),
        ({"participation": 1.03}, "rank"),
        ({"between_runs": 0.97}, "memorises runs"),
        ({"action_gap": (0.0,) * H}, "actions are not used"),
        ({"skill_over_linear": np.full((H, 3), -0.1)}, "worse than the linear core"),
        ({"score": float("nan")}, "not finite"),
        ({"gains": -np.ones((3, 2))}, r"gain FT1\.SP->TT1 is -1, declared positive"),
    ],
)
def test_each_failure_is_named(change, reason):
    (only,) = passed(healthy(**change), make_plant())
    assert only == pytest.approx(only)
    import re

    assert re.search(reason, only)


def test_collapse_is_seen_by_scale_and_rank():
    gauss = randn(512, 8)
    assert gaussian(gauss) < 1.6
    assert gaussian(0.01 * gauss) > 0.3 * 512
    rank, participation = spectrum(gauss)
    assert rank > 7
    assert participation > 7
    rank, participation = spectrum(randn(512, 1) @ randn(1, 8, seed=1) + 1e-3 * gauss)
    assert participation < 1.1


def test_variance_between_runs():
    run = torch.arange(400) // 100
    z = randn(400, 4)
    assert between_runs(z, run) < 0.05
    assert between_runs(z + 10 * run[:, None], run) > 0.9


def test_gauges_of_an_untrained_model_are_those_of_the_linear_core():
    model, core = make_model(), make_core()
    pool = Pool(held_out_runs(), core, make_plant())
    model.perception.settle(pool.views(spread(pool, 1, 200)))
    found = examine(model, pool, spread(pool, 4, 300))
    gauges = judge(model, found, 0, found.errors.gates())
    assert gauges.gates_open == 0
    assert np.nanmax(np.abs(gauges.skill_over_linear)) == 0
    assert gauges.skill[HORIZONS.index(32), 0] > 0.3
    assert gauges.action_gap[HORIZONS.index(32)] > 0.1
    assert 0.5 < gauges.std_mean < 1.5
    assert not model.training or model.training
    text = json.dumps(plain(gauges), allow_nan=False)
    assert json.loads(text)["skill"][-1][0] is None  # no run is long enough for the longest horizon


def test_gains_are_the_linear_ones_while_gates_are_shut():
    model, core = make_model(), make_core()
    pool = Pool(held_out_runs(), core, make_plant())
    made = scaled_gains(model, pool, spread(pool, 4, 16))
    made = made * core.scaling.tags.scale[:, None] / core.scaling.action.scale
    np.testing.assert_allclose(made, core.gains(), atol=1e-4)
