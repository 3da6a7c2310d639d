"""ETTh1, an electricity transformer: 96 hours ahead from 336, the usual split of 12, 4 and 4 months.

Run: python -m tests.benchmarks.ett --data DIR --json OUT
DIR holds `ETTh1.csv`. Errors are in standard deviations of the training months, over every start in the test months.
The first 12 months train, the next 4 decide on the networks. Forecasts by the whole (`full`), by the linear core alone
(`classical`), and by what the networks add, ungated, to "no change" (`latent`): they learn what the core leaves.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusion.records import NS_PER_S
from models.linear.rhythm import WINDOW, Rhythm
from models.training.calibration import paths
from tests.benchmarks.tables import Cut, Floats, System, command, plant_of, run_of

STEP_S = 3600.0
MONTH = 30 * 24
TRAIN, DECIDE, TEST = 12 * MONTH, 16 * MONTH, 20 * MONTH
AHEAD = 96


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    file = folder / "ETTh1.csv"
    if not file.is_file():
        raise SystemExit(f"{folder}: ETTh1.csv is missing")
    table = pl.read_csv(file)
    names = table.columns[1:]
    values = table.select(names).to_numpy().astype(np.float64)[:TEST]
    plant = plant_of("ett", names, STEP_S)
    start_ns = int(datetime.fromisoformat(f"{table[table.columns[0]][0]}+00:00").timestamp()) * NS_PER_S
    run = run_of(plant, values, start_ns)
    system = System.fit(plant, [run[:DECIDE]], [Cut(TRAIN, DECIDE, DECIDE)], seed=seed, seconds=seconds, limits=False)
    starts = np.arange(DECIDE - 1, TEST - AHEAD)
    world, scale = system.model.world_model, values[:TRAIN].std(0)
    true = np.stack([values[starts + k] for k in range(1, AHEAD + 1)], 1)

    def errors(forecast: Floats) -> dict[str, float]:
        error = (forecast - true) / scale
        return {"mse": round(float((error**2).mean()), 5), "mae": round(float(np.abs(error).mean()), 5)}

    report: dict[str, Any] = {"full": errors(paths(world, run, starts, AHEAD))}
    with system.part("classical"):
        linear = paths(world, run, starts, AHEAD)
    with system.part("latent"):
        learned = paths(world, run, starts, AHEAD) - linear
    report |= {"classical": errors(linear), "latent": errors(values[starts][:, None] + learned)}
    report["full"]["gates_open"] = round(float((world.gates > 0).mean()), 3)
    return report | {"floors": floors(values, starts, errors)}


def floors(values: Floats, starts: Any, errors: Any) -> dict[str, Any]:
    """No change, the same hours of the day before, and ridge from windows to what follows."""
    now = values[starts][:, None]
    day = np.stack([values[starts + 1 + k % 24 - 24] for k in range(AHEAD)], 1)
    standard = (values - values[:TRAIN].mean(0)) / values[:TRAIN].std(0)
    ridge = Rhythm.fit([standard[:TRAIN]], STEP_S)
    made = ridge.ahead(standard, standard[:0], range(AHEAD))[starts] * values[:TRAIN].std(0) if ridge else 0.0
    return {
        "persistence": errors(np.repeat(now, AHEAD, 1)),
        "day_before": errors(day),
        f"ridge_{WINDOW}": errors(now + made),
    }


if __name__ == "__main__":
    command(__doc__, bench)
