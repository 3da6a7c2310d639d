"""Every encoder keeps the same promises."""

import dataclasses

import numpy as np
import pytest
import torch

from models.networks.clips import run_view
from models.networks.jepa import Perception, media_shapes
from models.networks.view import Medium
from tests.models_plant import make_core, make_plant, make_run, replaced, small, training_runs

NAMES = ("process", "camera", "microphone", "silo_lidar")


@pytest.fixture(scope="module")
def perception():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Perception(make_plant(), media_shapes(training_runs()), small()).eval()


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def index(request):
    return request.param


def view_of(run):
    return run_view(run, make_core().scaling)


def masked_run(ticks=12):
    run = make_run(5, ticks, media=True)
    observed = np.random.default_rng(0).random(run.tags.shape) > 0.4
    return replaced(run, observed=observed)


def garbage(run):
    """The same run with nonsense wherever nothing is observed."""
    tags = np.where(run.observed, run.tags, np.nan)
    age = np.where(run.observed, run.age_s, np.inf)
    quality = np.where(run.observed, run.quality, 0).astype(np.uint8)
    patches = {n: np.where(run.present[n].reshape(-1, 1, 1, 1), p, np.float16(777)) for n, p in run.patches.items()}
    media = {n: np.where(run.present[n][:, None], m, np.nan) for n, m in run.media.items()}
    return replaced(run, tags=tags, age_s=age, quality=quality, patches=patches, media=media)


def test_masked_value_changes_nothing_bit_for_bit(perception, index):
    run = masked_run()
    one, two = (perception.encoders[index](view_of(r)) for r in (run, garbage(run)))
    assert torch.equal(one.rows, two.rows)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.valid, two.valid)


def test_masked_value_in_tensors_changes_nothing_bit_for_bit(perception):
    view = view_of(masked_run())
    spoiled = dataclasses.replace(
        view,
        tags_NS=torch.where(view.observed_NS, view.tags_NS, torch.nan),
        age_s_NS=torch.where(view.observed_NS, view.age_s_NS, torch.inf),
        quality_NS=torch.where(view.observed_NS, view.quality_NS, 2),
    )
    assert torch.equal(perception(view), perception(spoiled))


def test_empty_modality_contributes_no_token(perception, index):
    run = make_run(5, 6, media=False)
    view = view_of(replaced(run, observed=np.zeros_like(run.observed)))
    tokens = perception.encoders[index](view)
    assert not tokens.valid.any()
    if index:
        assert not len(tokens.rows)
        nothing = Medium(torch.zeros(0, dtype=torch.long), torch.zeros(0, 5), torch.zeros(0, 1, 4, 4))
        there = dataclasses.replace(view, media={NAMES[index]: nothing})
        assert torch.equal(perception(there), perception(view))


def test_absent_medium_is_as_if_it_did_not_exist(perception, index):
    view = view_of(make_run(5, 6, media=True))
    gone = view.without({NAMES[index]}, process=index == 0)
    others = [e(gone) for i, e in enumerate(perception.encoders) if i != index]
    expected = perception.standardise(perception.mixer.read_any(others, len(view)))
    torch.testing.assert_close(perception(gone), expected, atol=1e-5, rtol=1e-4)


def test_batch_of_one_agrees_with_the_batch(perception, index):
    view = view_of(make_run(5, 8, media=True))
    whole = perception.encoders[index](view)
    for tick in range(len(view)):
        alone = perception.encoders[index](view.at(torch.tensor([tick])))
        torch.testing.assert_close(alone.x, whole.x[whole.rows == tick], atol=1e-5, rtol=1e-4)


def test_finite_when_all_is_masked_and_when_values_are_absurd(perception, index):
    run = make_run(5, 4, media=True)
    blind = view_of(replaced(run, observed=np.zeros_like(run.observed)))
    absurd = view_of(replaced(run, tags=run.tags * 1e12, age_s=run.age_s + 1e12))
    for view in (blind, absurd):
        assert perception.encoders[index](view).x.isfinite().all()
    nothing = blind.without(set(NAMES), process=True)
    assert nothing.empty().all()
    assert perception(nothing).isfinite().all()


def test_tokens_pass_gradients(perception, index):
    view = view_of(make_run(5, 8, media=True))
    encoder = perception.encoders[index]
    encoder.zero_grad()
    encoder(view).x.square().sum().backward()
    grads = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert grads
    assert all(g.isfinite().all() for g in grads)
    encoder.zero_grad()
