"""NASA SMAP and MSL telemetry as cut by TSB-AD-M: each series trains on its own first rows and is scored on all of it.

Run: python -m tests.benchmarks.smap_msl --data DIR --json OUT
DIR holds `cut.csv` (channel, train, anomalies as inclusive rows) and `test/CHANNEL.npy` [T, C], or an archive of both.
VUS-PR as TSB-AD computes it: tolerances up to the period of the first column, scores of all rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusion.plant_model import PlantModel
from tests.benchmarks.metrics import period, vus_pr
from tests.benchmarks.tables import PARTS, Floats, System, command, farthest, plant_of, principal, run_of, unpacked

STEP_S = 60.0
FITTED, DECIDED = 0.6, 0.75  # of the training rows


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Mean over the series, and every series, by part and floor."""
    found: dict[str, dict[str, float]] = {name: {} for name in (*PARTS, "T2", "SPE", "tag_limits", "random")}
    with unpacked(folder, "cut.csv") as place:
        if not (place / "cut.csv").exists():
            raise SystemExit(f"{folder}: expected cut.csv and test/CHANNEL.npy")
        for row in pl.read_csv(place / "cut.csv").iter_rows(named=True):
            values = np.load(place / "test" / f"{row['channel']}.npy").astype(np.float64)
            label = np.zeros(len(values), bool)
            for start, end in json.loads(row["anomalies"]):
                label[start : end + 1] = True
            scores = of_series(values, int(row["train"]), seed, seconds)
            window = period(values[:, 0])
            for name, score in scores.items():
                found[name][row["channel"]] = round(vus_pr(score, label, window), 4)
    report = {
        name: {"vus_pr": round(float(np.mean(list(by.values()))), 4), "per_series": by} for name, by in found.items()
    }
    floors = {name: report.pop(name) for name in list(report) if name not in PARTS}
    return report | {"floors": floors}


def of_series(values: Floats, train: int, seed: int, seconds: float) -> dict[str, Floats]:
    """Scores [T] of every part and floor; columns that never move in training say nothing to the model."""
    moving = np.flatnonzero(values[:train].std(0) > 0)
    plant = plant_of("series", [f"C{i}" for i in moving], STEP_S)
    run = run_of(plant, values[:, moving])
    cuts = [round(train * share) for share in (FITTED, DECIDED)]
    energies: list[Floats] = []

    def normal(model: PlantModel) -> list[Floats]:
        energies.append(model.energies(run))
        return [energies[0][:train]]

    later = [run[cuts[1] : train]]
    system = System.fit(plant, [run[: cuts[0]]], [run[: cuts[1]]], later, normal, seed=seed, seconds=seconds)
    scores = {part: filled(system.limits[part].peaks(energies[0])) for part in PARTS}
    components = principal(values[:train], values)
    rivals = components | {"tag_limits": farthest(values[:train], values)}
    return scores | rivals | {"random": np.random.default_rng(seed).random(len(values))}


def filled(score: Floats) -> Floats:
    """The first rows, before the model has warmed up, are as calm as any."""
    return np.where(np.isfinite(score), score, np.nanmin(score))


if __name__ == "__main__":
    command(__doc__, bench)
