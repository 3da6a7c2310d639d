"""One small training of the networks, alone or as one of the processes of torchrun: losses, gradients and state.

Usage: python -m tests.distributed_fit OUT PARALLEL STEPS [STATE]; without torchrun it is the reference.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models import ranks
from models.fit import FitConfig, Fitter
from models.parallel import Parallel, full
from models.size import AntiCollapse
from tests.models_plant import held_out_runs, make_core, make_model, make_plant, training_runs

FIT = {"batch": 8, "validate_every": 4, "validation_clips": 32, "gate_clips": 64, "alone_share": 0.25}


def fitter(parallel, steps, **changes):
    model = make_model(0, dropout=0.1, input_noise=0.05, anti_collapse=AntiCollapse.SIGREG)
    config = FitConfig(steps=steps, parallel=Parallel(parallel), **FIT | changes)
    return Fitter(model, make_core(), make_plant(), training_runs(), held_out_runs(), config)


def write(made, file):
    state = made.state_dict()
    if ranks.is_first():
        save_file(state["arrays"], file, metadata={"meta": json.dumps(state["meta"])})


def read(made, file):
    with safe_open(file, "pt") as opened:
        meta = json.loads(opened.metadata()["meta"])
    made.load_state_dict({"arrays": load_file(file), "meta": meta})


def gradients(made):
    """Of the step just taken, before it was clipped to the same length."""
    return {n: full(p.grad) for n, p in made.model.named_parameters() if p.grad is not None}


def main(out, parallel, steps, state=None):
    """Writes `curve.json`, `gradients.safetensors` of the last step and `state.safetensors` into ``out``."""
    torch.set_num_threads(1)
    out = Path(out)
    curve = []
    with ranks.joined(torch.device("cpu"), timeout_s=60):
        made = fitter(parallel, int(steps))
        if state:
            read(made, state)

        def follow(step, total, losses, gauges):
            curve.append([step, losses, None if gauges is None else gauges.score])
            if step == made.config.steps - 2:
                write(made, out / "state.safetensors")

        made.run(follow)
        found = gradients(made)
        networks = made.networks().state_dict()
        if ranks.is_first():
            (out / "curve.json").write_text(json.dumps(curve))
            save_file(found, out / "gradients.safetensors")
            save_file(networks, out / "networks.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
