"""Remaining life of simulated turbofan engines (C-MAPSS FD001), learned from the ends of other engines' lives.

Run: python -m tests.benchmarks.cmapss --data DIR --json OUT
DIR holds `train_FD001.txt.xz` (100 engines run to failure, 21 sensors, one row a flight). The true lives of the
official test engines are not in it; so half of the engines train, the other half are cut off with 7 to 145 flights
left, as many as the official ones have. Published errors, on the official test with all 100 engines to train on, are no
equals of these. Lives longer than 125 flights count as 125. Errors: root mean square, and the score of the PHM
challenge of 2008 for 100 engines, which punishes what is told too late. `index` is that of the product
(`models/progression/life.py`) and knows only where lives end; `ridge` and `network` are given the true remaining life
of every training flight.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.averages import ewma
from models.progression.life import fit_life, smoothed

CAP, SHORTEST, LEAST_LEFT, MOST_LEFT = 125, 31, 7, 145
WINDOW, WIDTH, STEPS, BATCH = 30, 32, 1500, 256
ALPHAS = (0.3, 0.1, 0.03)
PENALTIES = (10.0, 100.0, 1000.0)
Floats = np.ndarray
Tells = Callable[[Floats], float]


def engines(folder: Path) -> list[Floats]:
    """Sensors [N, 21] of each engine until its failure."""
    file = folder / "train_FD001.txt.xz"
    if not file.is_file():
        raise SystemExit(f"{folder}: train_FD001.txt.xz is missing")
    with lzma.open(file, "rt") as stream:
        rows = np.array([[float(value) for value in line.split()] for line in stream if line.strip()])
    return [rows[rows[:, 0] == unit][:, 5:] for unit in np.unique(rows[:, 0])]


def left(life: Floats) -> Floats:
    """Flights that are left after each, as far as anyone can tell."""
    return np.minimum(len(life) - 1 - np.arange(len(life)), CAP).astype(np.float64)


def moments(life: Floats, centre: Floats, scale: Floats) -> Floats:
    """Averages at three speeds of standardised sensors, and the second of them less the first twenty flights."""
    z = (life - centre) / scale
    age = 1.0 + np.arange(len(z))[:, None]
    made = [ewma(z, alpha, np.zeros(z.shape[1]))[0] / (1.0 - (1.0 - alpha) ** age) for alpha in ALPHAS]
    first = np.cumsum(z, 0) / age
    first[20:] = first[min(19, len(z) - 1)]
    return np.concatenate([*made, made[1] - first], 1)


def ridge(lives: Sequence[Floats]) -> Tells:
    """Ridge of the true remaining life on the moments; the penalty errs least on a fifth of the lives."""
    centre, scale = np.concatenate(lives).mean(0), np.concatenate(lives).std(0) + 1e-6
    made = [moments(life, centre, scale) for life in lives]
    some = len(lives) - len(lives) // 5

    def fitted(count: int, penalty: float) -> Callable[[Floats], Floats]:
        x, y = np.concatenate(made[:count]), np.concatenate([left(life) for life in lives[:count]])
        middle, spread = x.mean(0), x.std(0) + 1e-9
        z = (x - middle) / spread
        weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
        return lambda rows: np.clip((rows - middle) / spread @ weights + y.mean(), 0.0, CAP)

    def error(penalty: float) -> float:
        told = fitted(some, penalty)
        return float(
            np.mean([((told(x) - left(life)) ** 2).mean() for x, life in zip(made[some:], lives[some:], strict=True)])
        )

    best = fitted(len(lives), min(PENALTIES, key=error))
    return lambda life: float(best(moments(life, centre, scale))[-1])


def network(lives: Sequence[Floats], seed: int) -> Tells:
    """Two convolutions over the last thirty flights; the step that errs least on a fifth of the lives."""
    torch.manual_seed(seed)
    centre, scale = np.concatenate(lives).mean(0), np.concatenate(lives).std(0) + 1e-6

    def windows(life: Floats) -> Floats:
        z = (life - centre) / scale * (scale > 1e-5)
        whole = np.concatenate([np.repeat(z[:1], WINDOW - 1, 0), z])
        return np.lib.stride_tricks.sliding_window_view(whole, WINDOW, axis=0)

    some = len(lives) - len(lives) // 5
    x, y = (torch.tensor(np.concatenate(part), dtype=torch.float32) for part in _pairs(lives[:some], windows))
    held_x, held_y = (torch.tensor(np.concatenate(part), dtype=torch.float32) for part in _pairs(lives[some:], windows))
    net = torch.nn.Sequential(
        torch.nn.Conv1d(x.shape[1], WIDTH, 5), torch.nn.ReLU(), torch.nn.Conv1d(WIDTH, WIDTH, 5), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(4), torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(4 * WIDTH, 1),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    best, kept = float("inf"), dict[str, torch.Tensor]()
    for step in range(STEPS):
        rows = torch.randint(len(x), (BATCH,))
        loss = torch.nn.functional.mse_loss(net(x[rows])[:, 0], y[rows] / CAP)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            net.eval()
            with torch.no_grad():
                error = float(((net(held_x)[:, 0] * CAP - held_y) ** 2).mean())
            net.train()
            if error < best:
                best, kept = error, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(kept)
    net.eval()

    def tells(life: Floats) -> float:
        with torch.no_grad():
            made = net(torch.tensor(windows(life)[-1:].copy(), dtype=torch.float32))
        return float(np.clip(float(made) * CAP, 0.0, CAP))

    return tells


def _pairs(lives: Sequence[Floats], windows: Callable[[Floats], Floats]) -> tuple[list[Floats], list[Floats]]:
    return [windows(life) for life in lives], [left(life) for life in lives]


def errors(told: Floats, true: Floats) -> dict[str, float]:
    """Root mean square, and the asymmetric score of 100 engines."""
    late = told - true
    score = np.where(late < 0, np.exp(-late / 13) - 1, np.exp(late / 10) - 1)
    return {"rmse": round(float(np.sqrt((late**2).mean())), 2), "score_100": round(float(100 * score.mean()), 1)}


def bench(lives: Sequence[Floats], seed: int, *, networks: bool) -> dict[str, Any]:
    """One half against the other."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lives))
    training, judged = ([lives[i] for i in half] for half in np.array_split(order, 2))
    cut = [(life, int(rng.integers(LEAST_LEFT, min(MOST_LEFT, len(life) - SHORTEST) + 1))) for life in judged]
    true = np.minimum([rest for _, rest in cut], CAP).astype(np.float64)
    seen = [life[: len(life) - rest] for life, rest in cut]
    index = fit_life(training, [f"s{i + 1}" for i in range(21)], 1.0, CAP)
    made = [index.remaining(smoothed(index.index(life))) for life in seen]
    known = np.array([one is not None for one in made])
    told = np.array([CAP / 2 if one is None else one.middle for one in made])
    inside = [one.low <= rest <= one.high for one, rest in zip(made, true, strict=True) if one is not None]
    wide = [one.high - one.low for one in made if one is not None]
    report: dict[str, Any] = {"seed": seed, "index": errors(told, true)}
    report["index"] |= {
        "silent": int((~known).sum()),
        "inside_90": round(float(np.mean(inside)), 2),
        "width": round(float(np.mean(wide)), 1),
        "window": index.window,
    }
    arms = {"ridge": ridge(training)} | ({"network": network(training, seed)} if networks else {})
    report |= {name: errors(np.array([tells(life) for life in seen]), true) for name, tells in arms.items()}
    average = np.mean([left(life).mean() for life in training])
    return report | {"average_life": errors(np.full(len(true), average), true)}


def main() -> None:
    """Print a row for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--no-networks", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lives, rows = engines(arguments.data), []
    for seed in arguments.seeds:
        rows.append(bench(lives, seed, networks=not arguments.no_networks))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
