import dataclasses

import pytest
import torch

from fusion.errors import ConfigError
from fusion.plant import Plant, Signal
from models.networks.clips import run_view
from models.networks.mixer import Standardise
from models.networks.process import ProcessEncoder, descriptor, tag_edges
from models.networks.regularizer import AntiCollapseLoss, directions, epps_pulley, subspaces, variance_covariance
from models.networks.size import AntiCollapse, ModelConfig, preset
from models.networks.view import View
from tests.models_plant import make_core, make_model, make_plant, make_run


def process_view(tags):
    shape = tags.shape
    return View(
        tags_NS=tags,
        observed_NS=torch.ones(shape, dtype=torch.bool),
        age_s_NS=torch.zeros(shape),
        quality_NS=torch.full(shape, 2),
        media={},
    )


def test_tag_tokens_follow_the_descriptor_and_not_the_column():
    signals = tuple(Signal(name=n, unit=u) for n, u in (("TT1", "Cel"), ("FT1", "kg/s"), ("LT1", "1")))
    edges = (("FT1", "LT1"),)
    plants = [Plant(name="p", signals=s, edges=edges) for s in (signals, signals[::-1])]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, two = (ProcessEncoder(p, 16, 2, 1) for p in plants)
    two.load_state_dict(one.state_dict())
    tags = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    here, there = one(process_view(tags)).x, two(process_view(tags.flip(1))).x
    torch.testing.assert_close(here, there.flip(1))


def test_descriptors_are_distinct_and_repeatable():
    one, two = Signal(name="TT101", unit="Cel"), Signal(name="TT102", unit="Cel")
    other = Signal(name="FT101", unit="kg/s")
    assert torch.equal(descriptor(one), descriptor(one))
    assert not torch.equal(descriptor(one), descriptor(two))
    assert descriptor(one) @ descriptor(two) > descriptor(one) @ descriptor(other)


def test_graph_uses_tag_edges_only():
    assert tag_edges(make_plant()).T.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    assert tag_edges(Plant(name="p", signals=(Signal(name="a"),))).shape == (2, 0)


def test_view_of_chosen_ticks_keeps_media_in_place():
    view = run_view(make_run(3, 20, media=True), make_core().scaling)
    ticks = torch.tensor([19, 3, 3, 7])
    part = view.at(ticks)
    medium, whole = part.media["camera"], view.media["camera"]
    for row, patch in zip(medium.rows.tolist(), medium.patches, strict=True):
        assert torch.equal(patch, whole.patches[whole.rows == ticks[row]][0])
    gone = part.dropped(torch.zeros(4, 3, dtype=torch.bool), {"camera": torch.tensor([True, False, True, True])})
    assert 1 not in gone.media["camera"].rows
    assert not gone.observed_NS.any()


def test_standardised_latents_have_unit_scale_and_borrow_statistics():
    standard = Standardise(4)
    x = 3 + 2 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    z = standard(x)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    assert torch.equal(standard(x[:5], x), z[:5])
    standard.settle(x)
    torch.testing.assert_close(standard.eval()(x), z)


def test_epps_pulley_is_one_for_gaussians_of_any_size_and_large_when_collapsed():
    generator = torch.Generator().manual_seed(0)
    drawn = directions(32, 512, generator)
    for n in (32, 256, 1024):
        assert epps_pulley(torch.randn(n, 32, generator=generator), drawn) == pytest.approx(1.06, abs=0.25)
    assert epps_pulley(torch.zeros(256, 32), drawn) == pytest.approx(0.4 * 256, rel=0.15)
    low_rank = torch.randn(512, 2, generator=generator) @ torch.randn(2, 32, generator=generator)
    assert epps_pulley(low_rank / low_rank.std(), drawn) > 10


@pytest.mark.parametrize("kind", [AntiCollapse.SIGREG, AntiCollapse.SUB, AntiCollapse.VICREG])
def test_anti_collapse_prefers_spread_latents(kind):
    loss = AntiCollapseLoss(kind, 16)
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(256, 16, generator=generator)
    flat = (0.05 * spread).requires_grad_()
    value = loss(flat, torch.Generator().manual_seed(1))
    assert value > 3 * loss(spread, torch.Generator().manual_seed(1))
    value.backward()
    assert (flat.grad * flat.detach()).sum() < 0  # descending makes it wider


def test_subspaces_are_orthonormal_and_vicreg_knows_correlation():
    basis = subspaces(10, 4).transpose(0, 1).flatten(1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8), atol=1e-5, rtol=0)
    x = torch.randn(512, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 4)
    assert variance_covariance(x) > 10


def test_mixer_reads_rich_and_plain_ticks_together():
    model = make_model().eval()
    plain, rich = (run_view(make_run(3, 6, media=m), make_core().scaling) for m in (False, True))
    mixed = run_view(make_run(3, 12, media=True), make_core().scaling)
    part = dataclasses.replace(mixed, media={n: m.only(torch.arange(12) < 6) for n, m in mixed.media.items()})
    z = model.perception(part)
    torch.testing.assert_close(z[6:], model.perception(part.at(torch.arange(6, 12))), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(z[:6], model.perception(mixed.at(torch.arange(6))), atol=1e-5, rtol=1e-4)
    assert len(plain) == len(rich)


def test_presets_and_refusals():
    assert preset("plant").latent > preset("demo").latent
    assert ModelConfig.from_dict(preset("demo").to_dict()) == preset("demo")
    with pytest.raises(ConfigError, match="demo or plant"):
        preset("huge")
    with pytest.raises(ConfigError, match="multiple"):
        ModelConfig(width=10, heads=4)
    with pytest.raises(ConfigError, match="unknown key"):
        ModelConfig.from_dict({"depth": 3})
