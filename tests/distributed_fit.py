"""One small training of the networks, alone or by the processes of torchrun: losses, gradients and state.

`torchrun -m tests.distributed_fit OUT STATE` shares the networks in either way, and goes on from a state.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fusion.errors import ConfigError
from models import distributed
from models.training.fitter import Fitter
from models.training.parallel import Parallel, full
from models.training.settings import FitConfig
from tests.models_plant import held_out_runs, make_core, make_model, make_plant, training_runs

STEPS = 12
MEDIA_SHARE = 0.125  # one clip of the batch: the other process has no pictures


def fitter(parallel):
    model = make_model(0, dropout=0.1, input_noise=0.05)
    config = FitConfig(
        steps=STEPS,
        batch=8,
        media_share=MEDIA_SHARE,
        validate_every=4,
        validation_clips=32,
        gate_clips=64,
        alone_share=0.25,
        parallel=Parallel(parallel),
    )
    return Fitter(model, make_core(), make_plant(), training_runs(), held_out_runs(), config)


def write(made, file):
    state = made.state_dict()
    if distributed.is_first():
        save_file(state["arrays"], file, metadata={"meta": json.dumps(state["meta"])})


def read(made, file):
    with safe_open(file, "pt") as opened:
        meta = json.loads(opened.metadata()["meta"])
    made.load_state_dict({"arrays": load_file(file), "meta": meta})


def fit(out, parallel, state=None):
    """Writes the curve, the gradients of the last step, the state two steps before it, and the networks."""
    out.mkdir(exist_ok=True)
    made = fitter(parallel)
    if state is not None:
        read(made, state)
    curve, gradients = [], {}

    def follow(step, total, losses, gauges):
        curve.append([step, losses, None if gauges is None else gauges.score])
        if step == STEPS - 2:
            write(made, out / "state.safetensors")
        if step == STEPS:
            gradients.update({n: full(p.grad) for n, p in made.model.named_parameters() if p.grad is not None})

    made.run(follow)
    networks = made.networks().state_dict()
    if distributed.is_first():
        (out / "curve.json").write_text(json.dumps(curve))
        save_file(gradients, out / "gradients.safetensors")
        save_file(networks, out / "networks.safetensors")


def errors(out):
    """What each process sees of an error of the first, and of a batch that is not for two."""

    def fail():
        raise ConfigError("too few")

    try:
        distributed.led(fail)
    except (ConfigError, SystemExit) as error:
        (out / f"error-{distributed.rank()}.json").write_text(json.dumps([type(error).__name__, str(error)]))
    try:
        distributed.per_rank(9)
    except ConfigError as error:
        (out / "refused.json").write_text(json.dumps(str(error)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, found = map(Path, sys.argv[1:])
    with distributed.joined(torch.device("cpu"), timeout_s=60):
        fit(folder / "ddp", "ddp")
        fit(folder / "fsdp", "fsdp")
        fit(folder / "resumed", "fsdp", found)
        errors(folder)
