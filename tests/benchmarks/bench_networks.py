"""What the networks cost: a training step against the matrix rate measured in the same run, and a tick of many plants.

Run: python -m tests.benchmarks.bench_networks [--size plant] [--device cuda] [--batch 32] [--half] [--compile]
On synthetic runs with a camera, a microphone and a LiDAR. The share is that of the floating-point operations of the
matrices and convolutions of a step, over the time of the step, in the rate of large square matrices of the same type.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.networks.clips import Pool
from models.networks.jepa import Jepa
from models.networks.size import preset
from models.training.fitter import Fitter, build
from models.training.settings import FitConfig
from tests.models_plant import held_out_runs, make_core, make_plant, training_runs

PLANTS = (1, 16, 256)
WARM_UP, REPEATS = 3, 20


def timed(device: torch.device, work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median seconds of some work, after a warm-up."""
    taken = []
    for i in range(WARM_UP + repeats):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken += [time.perf_counter() - begun] if i >= WARM_UP else []
    return statistics.median(taken)


def matrix_rate(device: torch.device, kind: torch.dtype) -> float:
    """Floating-point operations a second in large square matrices."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2.0 * side**3 / timed(device, lambda: a @ b)


def training(fitter: Fitter, device: torch.device) -> tuple[float, float]:
    """Seconds and floating-point operations of one step of everything."""
    with FlopCounterMode(display=False) as counter:
        fitter.train_step()
    return timed(device, fitter.train_step), float(counter.get_total_flops())


class Fleet:
    """The present tick of many plants of one kind, and the window behind each: what one answer to all of them needs."""

    def __init__(self, model: Jepa, pool: Pool, plants: int) -> None:
        anchors = pool.anchors(model.config.window_ticks)
        at = anchors[torch.linspace(0, len(anchors) - 1, plants).long()]
        clips = pool.clips(at, model.config.window_ticks).to(model.device)
        self.model, self.clips, self.view = model, clips, pool.views(at).to(model.device)
        self.z_BTL = torch.randn(plants, model.config.window_ticks, model.config.latent, device=model.device)

    @torch.no_grad()
    def tick(self) -> torch.Tensor:
        """Encode every plant's sensors and forecast all horizons under its recorded actions."""
        model, clips = self.model, self.clips
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.half_precision):
            self.z_BTL[:, -1] = model.perception(self.view)
            inputs = model.inputs(clips.linear_BTR, self.z_BTL, clips.past_BTP)
            context = model.predictor(inputs, clips.action_BTA)[:, -1]
            residual, _ = model.heads(context, self.z_BTL[:, -1], clips.summary_BTHQ[:, -1])
            return model.readout(residual + model.heads.direct(clips.past_BTP[:, -1], clips.summary_BTHQ[:, -1]))


def peak_gib(device: torch.device) -> float:
    """Largest memory so far: the device's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="plant", choices=("demo", "plant"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--half", action="store_true", help="bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile, as in training")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    plant, core = make_plant(), make_core()
    model = build(plant, core, training_runs(), preset(asked.size)).to(device)
    config = FitConfig(batch=asked.batch, alone_share=0.0, half_precision=asked.half, compile=asked.compile)
    fitter = Fitter(model, core, plant, training_runs(), held_out_runs(), config)
    step_s, work = training(fitter, device)
    rate = matrix_rate(device, torch.bfloat16 if asked.half else torch.float32)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{asked.size}: {size:.1f} M parameters, {device}, batch {asked.batch}, torch {torch.__version__}")
    print(f"step {1e3 * step_s:.1f} ms, {work / 1e9:.1f} GFLOP: {work / step_s / 1e12:.3f} TFLOP/s", end="")
    print(f", {work / step_s / rate:.1%} of {rate / 1e12:.2f} TFLOP/s in matrices; peak {peak_gib(device):.2f} GiB")
    model.eval()
    pool = Pool(held_out_runs(), core, plant)
    for plants in PLANTS:
        seconds = timed(device, Fleet(model, pool, plants).tick)
        print(f"tick of {plants:3} plants: {1e3 * seconds:8.2f} ms, {1e3 * seconds / plants:7.3f} ms a plant")


if __name__ == "__main__":
    main()
