import json

import numpy as np
import pytest
import torch

from fusion.records import ACTION_STEPS
from models.actions import HORIZONS
from models.training.calibration import calibrate, fit_energies
from models.training.fitter import Fitter
from models.training.settings import FitConfig
from models.world_model import WorldModel
from tests.models_plant import held_out_runs, make_core, make_model, make_plant, make_run, replaced, training_runs

ENERGIES = ["innovation.1", "innovation.8", "innovation.32", "shell"]
ENERGIES += [f"disagreement.{s}" for s in ("process", "camera", "microphone", "silo_lidar")] + ["masked"]


def paths(count=5, seed=0):
    return np.random.default_rng(seed).uniform([0, 0], [10, 1], (count, ACTION_STEPS, 2))


@pytest.fixture(scope="module")
def world():
    """A little trained, with some gates forced open so that the networks show."""
    model = make_model(dropout=0.0, input_noise=0.0)
    config = FitConfig(steps=30, batch=8, validate_every=30, validation_clips=32, gate_clips=64)
    fitter = Fitter(model, make_core(), make_plant(), training_runs(), held_out_runs(), config)
    fitter.run()
    model.load_state_dict(
        {k.removeprefix("model/"): v for k, v in fitter.state_dict()["arrays"].items() if k.startswith("model/")}
    )
    model.readout.gate_HS.fill_(0.7)
    return fit_energies(WorldModel(make_plant(), make_core(), model), held_out_runs())


def observed(world, run, **more):
    return world.observe(run, world.core.encode(run)[0], **more)[0]


def in_pieces(world, run, sizes):
    past, trail, made, start = None, None, [], 0
    for size in sizes:
        ticks = run[start : start + size]
        encoding, past = world.core.encode(ticks, past)
        part, trail = world.observe(ticks, encoding, trail)
        made.append(part)
        start += size
    return made


def test_before_training_the_model_is_the_linear_core_exactly():
    world, core = WorldModel(make_plant(), make_core(), make_model()), make_core()
    run = make_run(50, 200, media=True)
    made = observed(world, run)
    encoding, _ = core.encode(run)
    np.testing.assert_allclose(
        world.forecast(made.state, torch.tensor(paths())), core.forecast(encoding, paths()), rtol=1e-12
    )
    np.testing.assert_allclose(world.forecast(made.state), core.forecast(encoding), rtol=1e-12)
    np.testing.assert_array_equal(world.bands(), core.band())
    assert world.horizon_s == tuple(float(k) for k in HORIZONS)


def test_open_gates_change_the_forecast(world):
    run = make_run(50, 200, media=True)
    made = observed(world, run)
    encoding, _ = make_core().encode(run)
    gap = world.forecast(made.state, torch.tensor(paths())) - torch.tensor(make_core().forecast(encoding, paths()))
    assert gap.abs().max() > 1e-3


@pytest.mark.parametrize("sizes", [[1] * 60, [3, 40, 1, 16], [59, 1]])
def test_pieces_equal_bulk(world, sizes):
    run = make_run(51, 60, media=True)
    seen = run.observed.copy()
    seen[10:12] = seen[30] = False
    present = {n: p & seen.any(1) for n, p in run.present.items()}
    run = replaced(run, observed=seen, present=present)
    whole = observed(world, run)
    parts = in_pieces(world, run, sizes)
    torch.testing.assert_close(torch.cat([p.z_TZ for p in parts]), whole.z_TZ, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([p.energies_TE for p in parts]), whole.energies_TE, atol=1e-5, rtol=1e-4)
    given = torch.tensor(paths())
    torch.testing.assert_close(
        world.forecast(parts[-1].state, given), world.forecast(whole.state, given), atol=1e-5, rtol=1e-6
    )


def test_a_tick_without_data_keeps_the_predicted_latent(world):
    run = make_run(52, 40)
    seen = run.observed.copy()
    seen[35] = False
    made = observed(world, replaced(run, observed=seen))
    rank = make_core().rank
    assert made.energies_TE[35, 0] == pytest.approx(centred_zero(world), rel=1e-3)  # no innovation at all
    whole = observed(world, run)
    torch.testing.assert_close(made.z_TZ[:35], whole.z_TZ[:35])
    assert not torch.allclose(made.z_TZ[35, rank:], whole.z_TZ[35, rank:], atol=1e-3)


def centred_zero(world):
    cloud = world._ellipsoids
    return float((cloud.whiten_ELL[0] @ -cloud.centre_EL[0]).square().mean())


def test_a_tag_that_was_never_observed_does_not_change_the_latent_bit_for_bit(world):
    run = make_run(53, 40, media=True)
    seen = run.observed.copy()
    seen[:, 1] = False
    first = observed(world, replaced(run, observed=seen))
    second = observed(world, replaced(run, observed=seen, tags=np.where(seen, run.tags, np.nan)))
    assert torch.equal(first.z_TZ, second.z_TZ)


def test_energies_are_named_and_about_one_on_normal_runs(world):
    assert [e.name for e in world.energies] == [f"net.{n}" for n in ENERGIES]
    assert [e.source for e in world.energies][-3:] == ["microphone", "silo_lidar", "process"]
    values = observed(world, held_out_runs()[0]).energies_TE
    assert np.isnan(values[0, :3]).all()
    assert np.isfinite(values[32:, :4]).all()
    assert 0.3 < np.nanmedian(values[60:]) < 3
    plain = observed(world, make_run(54, 50)).energies_TE
    assert np.isnan(plain[:, 4:-1]).all()


def test_forecast_is_differentiable_in_the_paths(world):
    made = observed(world, make_run(55, 50))
    given = torch.tensor(paths(2), requires_grad=True)
    world.forecast(made.state, given)[:, 5, 0].sum().backward()
    assert given.grad.abs().sum() > 0


def test_bands_cover_later_normal_runs(world):
    calibrated = calibrate(world, [make_run(s) for s in range(200, 205)], clips=400)
    fresh = [make_run(s) for s in range(300, 304)]
    row = HORIZONS.index(16)
    inside = []
    for run in fresh:
        for now in range(80, 360, 20):
            made = observed(calibrated, run[:now], energies=False)
            future = replaced(run, action=run.action)
            path = future.action[now : now + 16 : 10]
            given = np.concatenate([path, np.repeat(path[-1:], ACTION_STEPS - len(path), 0)])[None]
            mean = calibrated.forecast(made.state, torch.tensor(given))[0, row].numpy()
            inside.append(np.abs(mean - run.tags[now + 15]) <= 1.15 * calibrated.bands()[row])
    assert np.mean(inside, 0)[2] > 0.8
    assert calibrated.bands().shape == (len(HORIZONS), 3)
    assert (calibrated.bands()[HORIZONS.index(600)] == world.bands()[HORIZONS.index(600)]).all()


def test_state_round_trip(world):
    meta = json.loads(json.dumps(world.meta()))
    again = WorldModel.from_state(make_plant(), world.core, world.state(), meta)
    run = make_run(56, 50, media=True)
    here, there = observed(world, run), observed(again, run)
    assert torch.equal(here.z_TZ, there.z_TZ)
    np.testing.assert_array_equal(here.energies_TE, there.energies_TE)
    assert torch.equal(world.forecast(here.state), again.forecast(there.state))
    assert all(isinstance(v, np.ndarray) for v in world.state().values())
