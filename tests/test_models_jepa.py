import copy

import numpy as np
import pytest
import torch

from models.actions import HORIZONS, recorded_summary
from models.networks.clips import Pool
from models.networks.jepa import dropped_view
from models.networks.predictor import Predictor
from models.networks.readout import Errors
from models.networks.size import AntiCollapse
from tests.models_plant import (
    held_out_runs,
    make_core,
    make_model,
    make_plant,
    small,
    training_runs,
)

LAST = torch.tensor([100, 450, 900, 1300])


@pytest.fixture(scope="module")
def pool():
    return Pool(training_runs(), make_core(), make_plant())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_clips_hold_what_the_runs_say(pool):
    core, runs = make_core(), training_runs()
    clips = pool.clips(torch.tensor([400 + 90]), 4, (3,))
    encoding, _ = core.encode(runs[1])
    for row, k in enumerate(HORIZONS):
        assert bool(clips.known_BTHS[0, -1, row].all()) == (90 + k < 400)
        if 90 + k < 400:
            made, true = core.hindcast(encoding, k)
            np.testing.assert_allclose(clips.change_BTHS[0, -1, row], true[90], atol=1e-5)
            summary = recorded_summary(encoding.action, k)[90]
            np.testing.assert_allclose(clips.summary_BTHQ[0, -1, row], summary, atol=1e-5)
            linear = make_model().predict(clips).linear_BTHS[0, -1, row]
            np.testing.assert_allclose(linear, made[90], atol=1e-4)
    assert len(clips.view) == 4 + 1
    np.testing.assert_allclose(clips.view.tags_NS[-1], encoding.tags[98], atol=1e-6)


def test_anchors_stay_inside_runs(pool):
    anchors = pool.anchors(4)
    into = anchors - pool.start_N[anchors]
    assert into.min() >= 60
    assert (anchors + 1 < pool.end_N[anchors]).all()
    assert pool.has_media_N[:800].any()
    assert not pool.has_media_N[800:].any()


def test_untrained_networks_add_nothing(pool):
    model = make_model()
    made = model.predict(pool.clips(LAST, 4, (3, 5)))
    assert (made.residual_BTHS == 0).all()
    assert (model.readout.gate_HS == 0).all()


def test_predictor_is_causal():
    config = small(dropout=0.0, input_noise=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = Predictor(5, 2, config).eval()
        for layer in predictor.layers:
            torch.nn.init.normal_(layer.modulate[1].weight)
    x, u = torch.randn(1, 4, 5, generator=generator()), torch.randn(1, 4, 2, generator=generator())
    changed_x, changed_u = x.clone(), u.clone()
    changed_x[:, 3] += 1
    changed_u[:, 3] += 1
    one, two = predictor(x, u), predictor(changed_x, changed_u)
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.equal(one[:, 3], two[:, 3])
    torch.testing.assert_close(predictor(x[:, :2], u[:, :2]), one[:, :2])


@pytest.mark.parametrize("kind", list(AntiCollapse))
def test_every_loss_is_finite_and_reaches_the_encoders(pool, kind):
    model = make_model(anti_collapse=kind, inverse=0.1, detach_target=kind is AntiCollapse.VICREG)
    clips = pool.clips(LAST, 4, (3, 5))
    losses = model.losses(clips, generator())
    assert all(loss.isfinite() for loss in losses.values())
    losses["total"].backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    assert model.perception.encoders[1].first.weight.grad.abs().sum() > 0
    assert (model.teacher is not None) == (kind is AntiCollapse.EMA)


def test_teacher_follows_slowly():
    model = make_model(anti_collapse=AntiCollapse.EMA)
    before = copy.deepcopy(model.teacher.state_dict())
    with torch.no_grad():
        for parameter in model.perception.parameters():
            parameter += 1
    model.follow()
    after = model.teacher.state_dict()
    torch.testing.assert_close(after["mixer.states"], before["mixer.states"] + 0.01)


def test_losses_do_not_depend_on_unknown_futures(pool):
    model = make_model(dropout=0.0, input_noise=0.0)
    clips = pool.clips(torch.tensor([390, 395, 799]), 4, (5, 9))
    first = model.losses(clips, generator())
    clips.change_BTHS[~clips.known_BTHS] = 1e6
    second = model.losses(clips, generator())
    assert first["total"] == second["total"]


def test_partial_views_never_lose_everything(pool):
    view = pool.views(torch.arange(60, 360))
    config = small(drop_modality=0.9, drop_tag=0.0)
    part = dropped_view(view, config, generator())
    assert not part.empty().any()
    assert (part.observed_NS.sum(1) == 0).any()
    assert len(part.media["camera"].rows) < len(view.media["camera"].rows)


def test_gates_open_only_where_the_networks_pay():
    rng = np.random.default_rng(0)
    errors = Errors.zero(1, 4)
    true = torch.tensor(rng.normal(size=(400, 1, 4)))
    net = torch.zeros_like(true)
    net[..., 0] = 2.0 * true[..., 0]  # twice too much
    net[..., 1] = torch.tensor(rng.normal(size=(400, 1)))  # noise
    net[..., 2] = -true[..., 2]  # harm
    net[:200, ..., 3] = true[:200, ..., 3]  # good in one fold, harm in the other
    net[200:, ..., 3] = -0.2 * true[200:, ..., 3]
    fold = (torch.arange(400) >= 200).long()
    errors.add(fold, torch.zeros_like(true), net, true, torch.ones_like(true, dtype=torch.bool))
    gates = errors.gates()
    np.testing.assert_allclose(gates, [[0.5, 0.0, 0.0, 0.0]], atol=0.02)
    np.testing.assert_allclose(errors.skill(gates), [[1.0, 0.0, 0.0, 0.0]], atol=0.01)


def test_gates_stay_shut_without_evidence():
    errors = Errors.zero(2, 3)
    assert (errors.gates() == 0).all()
    assert np.isnan(errors.skill(errors.gates())).all()


def test_held_out_runs_are_others():
    assert not np.array_equal(held_out_runs()[0].tags, training_runs()[0].tags)
