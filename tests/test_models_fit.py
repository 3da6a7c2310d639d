import dataclasses

import numpy as np
import pytest
import torch

from fusion.errors import ConfigError
from models.training.fitter import Fitter
from models.training.settings import FitConfig
from tests.models_plant import held_out_runs, make_core, make_model, make_plant, training_runs


class Clock:
    """A second for every look at it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def make_fitter(seed=0, clock=None, head=24, **changes):
    values = {"steps": 12, "batch": 8, "validate_every": 4, "validation_clips": 32, "gate_clips": 64, "seed": seed}
    model = make_model(seed, dropout=0.1 if head == 24 else 0.0, input_noise=0.05, head=head)
    config = FitConfig(**values | changes)
    runs = training_runs(), held_out_runs()
    return Fitter(model, make_core(), make_plant(), *runs, config, **({"clock": clock} if clock else {}))


def trained(fitter, stop_after=None):
    curve = []

    def note(step, total, losses, gauges):
        curve.append((step, losses["total"], None if gauges is None else gauges.score))
        if step == stop_after:
            raise KeyboardInterrupt

    fitter.run(note)
    return curve


def test_training_is_deterministic_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, two, other = trained(make_fitter()), trained(make_fitter()), trained(make_fitter(seed=1))
    assert one == two
    assert one != other
    assert torch.equal(before, torch.get_rng_state())


def test_a_killed_training_goes_on_with_the_identical_loss_curve():
    whole_fitter = make_fitter()
    whole = trained(whole_fitter)
    killed = make_fitter()
    with pytest.raises(KeyboardInterrupt):
        trained(killed, stop_after=6)
    state = killed.state_dict()
    resumed = make_fitter()
    resumed.load_state_dict(state)
    assert trained(resumed) == whole[6:]
    for name, value in whole_fitter.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_averaged_weights_are_judged_and_kept_with_statistics_of_their_own():
    fitter = make_fitter(steps=8, alone_share=0.0, average_keep=0.9)
    gauges = []
    fitter.run(lambda step, total, losses, judged: gauges.append(judged))
    average = fitter._average.state()
    served = fitter.model.state_dict()
    assert fitter._best_score == gauges[7].score
    assert all(torch.equal(served[name], value) for name, value in average.items())
    raw = make_fitter(steps=8, alone_share=0.0, average_keep=0.0)
    raw.run()
    assert not torch.equal(
        raw.model.state_dict()["perception.mixer.out.weight"], average["perception.mixer.out.weight"]
    )
    mean = served["perception.standardise.mean_L"].clone()
    fitter.model.eval()
    fitter.model.perception.settle(fitter._typical)
    assert torch.equal(fitter.model.perception.standardise.mean_L, mean)


def test_state_of_another_model_is_refused():
    fitter = make_fitter()
    state = fitter.state_dict()
    state["arrays"].popitem()
    with pytest.raises(ConfigError, match="another model"):
        fitter.load_state_dict(state)


def test_steps_without_any_are_the_linear_core():
    fitter = make_fitter(steps=0)
    gauges = fitter.run()
    assert fitter.step == 0
    assert gauges.gates_open == 0
    np.testing.assert_allclose(gauges.gains, make_core().gains(), atol=1e-3)


def test_time_budget_ends_training_and_sets_the_total():
    fitter = make_fitter(steps=1000, seconds=10.0, clock=Clock(), validate_every=100)
    totals = []
    fitter.run(lambda step, total, losses, gauges: totals.append((step, total)))
    assert fitter.progress == 1.0
    assert 3 < fitter.step < 11
    assert totals[-1][1] <= totals[0][1]
    assert totals[-1] == (fitter.step, fitter.step)


def test_the_short_cut_learns_alone_first_and_then_with_the_rest():
    fitter = make_fitter(steps=10, alone_share=0.5)
    start = {name: value.clone() for name, value in fitter.model.named_parameters()}
    losses = [fitter.train_step() for _ in range(5)]
    assert all(set(terms) == {"total", "short_cut"} for terms in losses)
    moved = {n for n, value in fitter.model.named_parameters() if not torch.equal(value, start[n])}
    assert moved
    assert all(name.startswith("heads.short_cut.") for name in moved)
    assert "latent" in fitter.train_step()


def test_patience_ends_training():
    fitter = make_fitter(steps=50, validate_every=1, patience=2, learning_rate=0.0, alone_share=0.0)
    fitter.run()
    assert fitter.step <= 4


def test_a_collapse_of_a_sound_latent_ends_training_and_is_not_kept(monkeypatch):
    import models.training.fitter

    sound = {"epps_pulley": 1.0, "std_min": 1.0, "participation": 5.0}
    honest = models.training.fitter.judge

    def judge(model, found, step, gates):
        values = sound if step < 4 else sound | {"epps_pulley": 0.4 * 32}
        return dataclasses.replace(honest(model, found, step, gates), score=1.0 / (1 + step), **values)

    monkeypatch.setattr("models.training.fitter.judge", judge)
    fitter = make_fitter(steps=50, validate_every=1, collapse_patience=3, alone_share=0.0)
    fitter.run()
    assert fitter.step == 6
    assert "collapsed in 3 validations" in fitter.ending
    assert fitter._best_score == pytest.approx(1.0 / 4)
    again = make_fitter(steps=50, validate_every=1, collapse_patience=3, alone_share=0.0)
    again.load_state_dict(fitter.state_dict())
    assert again.ending == fitter.ending


def test_a_latent_that_was_never_sound_is_given_its_time(monkeypatch):
    import models.training.fitter

    honest = models.training.fitter.judge

    def judge(*arguments):
        return dataclasses.replace(honest(*arguments), epps_pulley=0.4 * 32)

    monkeypatch.setattr("models.training.fitter.judge", judge)
    fitter = make_fitter(steps=6, validate_every=1, collapse_patience=2, alone_share=0.0)
    fitter.run()
    assert fitter.ending == "the budget is used"
    assert fitter._best


def test_networks_learn_what_a_linear_model_cannot():
    budget = {"steps": 200, "batch": 4, "short_cut_ticks": 256, "validate_every": 66}
    checks = {"validation_clips": 128, "gate_clips": 300}
    fitter = make_fitter(head=64, learning_rate=1e-2, weight_decay=0.1, **budget, **checks)
    gauges = fitter.run()
    assert gauges.gates_open > 0.05
    assert np.nanmax(gauges.skill_over_linear) > 0.1
    assert np.nanmin(gauges.skill_over_linear) >= 0.0


def test_batches_mix_runs_with_and_without_media():
    fitter = make_fitter(media_share=0.5)
    clips = fitter.draw(torch.Generator().manual_seed(0))
    with_media = (clips.run_B < 2).sum()
    assert with_media == 4
    assert 0 < len(clips.view.media["camera"].rows) < len(clips.view)


def test_refusals():
    with pytest.raises(ConfigError, match="batch"):
        FitConfig(batch=1)
    with pytest.raises(ConfigError, match="seconds"):
        FitConfig(seconds=0.0)
    with pytest.raises(ConfigError, match="at least one run"):
        Fitter(make_model(), make_core(), make_plant(), training_runs(), [], FitConfig())
