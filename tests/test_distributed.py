"""Several processes train what one does; started by torchrun, as a user does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fusion.checkpoint import load_checkpoint
from fusion.errors import ConfigError
from fusion.plant import Gain, Plant, Role, Signal
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Quality
from models import distributed
from models.plant_model import PlantModel
from tests.distributed_fit import STEPS, fit, fitter, read
from tests.models_plant import steps

START_NS = 1_767_225_600 * NS_PER_S
TICKS = 800


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    fit(out, "ddp")
    return out


@pytest.fixture(scope="module")
def two(alone, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    done = torchrun("tests.distributed_fit", out, alone / "state.safetensors")
    assert done.returncode == 0, done.stderr
    return out


def curve(folder):
    return json.loads((folder / "curve.json").read_text())


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_and_the_decisions_of_one(alone, two, parallel):
    expected, made = curve(alone), curve(two / parallel)
    assert len(made) == STEPS
    assert any("partial" in losses for _, losses, _ in made)
    for (step, losses, score), (other_step, other, other_score) in zip(expected, made, strict=True):
        assert step == other_step
        assert other == pytest.approx(losses, abs=1e-4)
        assert other_score == (None if score is None else pytest.approx(score, abs=1e-4))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("what", ["gradients", "networks"])
def test_two_processes_have_the_gradients_and_networks_of_one(alone, two, parallel, what):
    expected, made = (load_file(folder / f"{what}.safetensors") for folder in (alone, two / parallel))
    assert made.keys() == expected.keys()
    assert what != "gradients" or "perception.encoders.1.first.weight" in made
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, atol=1e-3, rtol=1e-3, msg=name)


def test_the_state_of_one_process_goes_on_in_two(alone, two):
    for (_, losses, _), (_, other, _) in zip(curve(alone)[-2:], curve(two / "resumed"), strict=True):
        assert other == pytest.approx(losses, abs=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_state_of_two_processes_goes_on_in_one(alone, two, parallel):
    made = fitter("ddp")
    read(made, two / parallel / "state.safetensors")
    losses = []
    made.run(lambda step, total, terms, gauges: losses.append(terms["total"]))
    assert losses == pytest.approx([terms["total"] for _, terms, _ in curve(alone)[-2:]], abs=1e-4)


def test_alone_nothing_is_shared():
    x = torch.arange(6.0).reshape(3, 2)
    assert distributed.count() == 1
    assert distributed.is_first()
    with distributed.together():
        assert torch.equal(distributed.share(x), x)
        assert torch.equal(distributed.total(x), x)
        assert torch.equal(distributed.mean(x), x.mean(0))
    assert distributed.led(lambda: (1, 2)) == (1, 2)


def test_what_the_first_process_cannot_do_ends_the_others_without_a_word(two):
    said = [json.loads((two / f"error-{rank}.json").read_text()) for rank in range(2)]
    assert said == [["ConfigError", "too few"], ["SystemExit", "2"]]


def test_a_batch_that_cannot_be_shared_out_is_refused(two):
    message = "train.batch: 9 is not accepted; expected a multiple of the 2 processes"
    assert json.loads((two / "refused.json").read_text()) == message


@pytest.mark.parametrize(("rank", "error"), [("0", ConfigError), ("1", SystemExit)])
def test_the_first_process_speaks_for_all(monkeypatch, rank, error):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(error), distributed.one_voice():
        raise ConfigError("wrong")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_a_gpu_that_is_not_there_is_refused():
    assert distributed.device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="0 GPUs"):
        distributed.device("cuda")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A plant of four tags: small enough for the command line."""
    plant = Plant(
        name="small",
        signals=(
            Signal(name="TT1", unit="Cel", role=Role.CONTROLLED, period_s=1.0),
            Signal(name="FT1", unit="kg/s", period_s=1.0),
            Signal(name="FT1.SP", role=Role.MANIPULATED, low=0.0, high=10.0, max_rate=1.0, period_s=1.0),
        ),
        gains=(Gain(manipulated="FT1.SP", controlled="TT1", sign=1),),
    )
    folder = tmp_path_factory.mktemp("recordings")
    return [_record(folder / f"run-{seed}", plant, seed) for seed in range(6)]


def _record(path, plant, seed):
    rng = np.random.default_rng(seed)
    setpoint = steps(rng, 0, 10, TICKS)[:TICKS]
    flow, temperature = np.zeros((2, TICKS))
    for t in range(1, TICKS):
        flow[t] = flow[t - 1] + (setpoint[t] - flow[t - 1]) / 4 + rng.normal(0, 0.05)
        temperature[t] = temperature[t - 1] + (flow[t] - temperature[t - 1]) / 20 + rng.normal(0, 0.05)
    names = ("TT1", "FT1", "FT1.SP")
    stamp = START_NS + seed * 3600 * NS_PER_S + np.repeat(np.arange(TICKS), 3) * NS_PER_S
    values = np.stack([40 + temperature, flow, setpoint], 1).flatten()
    good = np.full(len(values), Quality.GOOD, np.uint8)
    index = np.tile(np.arange(3, dtype=np.int32), TICKS)
    with RecordingWriter(path, plant) as writer:
        writer.process(Columns(signals=names, index=index, t_ns=stamp, received_ns=stamp, value=values, quality=good))
    return path


def test_the_command_line_trains_with_two_processes(recordings, tmp_path):
    out = tmp_path / "model"
    settings = ("steps=6", "batch=4", "calibration_share=0.5", "threads=1")
    done = torchrun("fusion.training", "--recording", *recordings, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("model small-") == 1
    checkpoint = load_checkpoint(out)
    assert checkpoint.meta["train"]["fit"]["steps"] == 6
    assert PlantModel.from_checkpoint(checkpoint).tags == ("TT1", "FT1")
    assert (out / "report.html").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
