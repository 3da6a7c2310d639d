import pytest
import torch

from models.training.average import SOONEST, Average


def trained(keep, steps, module=None):
    module = module or torch.nn.Linear(2, 2)
    average, seen = Average(module, keep), []
    for step in range(1, steps + 1):
        with torch.no_grad():
            module.weight.fill_(float(step))
        average.follow(step)
        seen.append(float(average.state()["weight"][0, 0]))
    return module, average, seen


def test_the_average_follows_the_weights_with_a_window_that_grows():
    _, _, seen = trained(keep=0.5, steps=30)
    for step in range(2, 31):
        keep = min(0.5, (1 + step) / (SOONEST + step))
        assert seen[step - 1] == pytest.approx(keep * seen[step - 2] + (1 - keep) * step, rel=1e-5)
    assert 27.5 < seen[-1] < 30


def test_nothing_kept_is_the_weights_themselves():
    module, average, seen = trained(keep=0.0, steps=5)
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert torch.equal(average.state()["bias"], module.bias)


def test_in_place_the_module_is_the_average_and_afterwards_itself_again():
    module, average, seen = trained(keep=0.9, steps=7)
    with average.in_place():
        assert float(module.weight[0, 0].detach()) == seen[-1]
    assert float(module.weight[0, 0].detach()) == 7.0
    assert float(average.state()["weight"][0, 0]) == seen[-1]


def test_what_was_kept_goes_on_exactly():
    _, average, _ = trained(keep=0.9, steps=7)
    again = Average(torch.nn.Linear(2, 2), 0.9)
    again.load(average.state())
    assert all(torch.equal(value, again.state()[name]) for name, value in average.state().items())
    with pytest.raises(RuntimeError, match="2 expected"):
        again.load({"weight": torch.zeros(2, 2)})
