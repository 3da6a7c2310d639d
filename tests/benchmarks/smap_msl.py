"""SMAP and MSL telemetry as cut in TSB-AD-M: the first rows of each channel train, VUS-PR of all rows is scored.

Run: python -m tests.benchmarks.smap_msl --data DIR --json OUT
DIR holds `test/CHANNEL.npy` [T, C] and `cut.csv` with the columns channel, train (rows) and anomalies (inclusive
intervals, JSON). Column 0 is telemetry, the others are commands. One model for each channel, from its own first rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.benchmarks.metrics import auc_pr, period, vus_pr
from tests.benchmarks.tables import (
    PARTS,
    Bools,
    Cut,
    Floats,
    System,
    command,
    farthest,
    plant_of,
    principal,
    run_of,
    unpacked,
)

STEP_S = 60.0


@dataclass(frozen=True, slots=True)
class Series:
    """One channel: values [T, C], which rows are anomalous [T], and how many rows train."""

    name: str
    values: Floats
    label: Bools
    train: int


def read(folder: Path) -> list[Series]:
    """All channels that ``cut.csv`` names and that are there."""
    if not (folder / "cut.csv").is_file():
        raise SystemExit(f"{folder}: cut.csv is missing; expected cut.csv and test/CHANNEL.npy")
    made = []
    for row in pl.read_csv(folder / "cut.csv").iter_rows(named=True):
        file = folder / "test" / f"{row['channel']}.npy"
        if not file.is_file():
            continue
        values = np.load(file, allow_pickle=False).astype(np.float64)
        label = np.zeros(len(values), bool)
        for first, last in json.loads(row["anomalies"]):
            label[first : last + 1] = True
        made.append(Series(row["channel"], values, label, int(row["train"])))
    if not made:
        raise SystemExit(f"{folder / 'test'}: none of the channels of cut.csv is there")
    return made


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    with unpacked(folder, "cut.csv") as place:
        series = read(place)
    scored = {one.name: judged(one, seed, seconds) for one in series}
    parts = next(iter(scored.values()))
    report = {part: _summed({name: scores[part] for name, scores in scored.items()}) for part in parts}
    return {part: report[part] for part in PARTS} | {"floors": {p: r for p, r in report.items() if p not in PARTS}}


def judged(series: Series, seed: int, seconds: float) -> dict[str, dict[str, float]]:
    """Scores of one channel by each part and each floor."""
    moved = np.ptp(series.values[: series.train], axis=0) > 0
    columns = [f"channel {i}" for i in range(series.values.shape[1])]
    plant = plant_of(series.name, columns, STEP_S)
    run = run_of(plant, series.values)
    system = System.fit(plant, [run], [Cut.of(series.train)], seed=seed, seconds=seconds)
    made = {part: system.alarms(run, part, system.energies[0]).score for part in PARTS}
    train, kept = series.values[: series.train, moved], series.values[:, moved]
    made["pca"] = np.maximum(*(score / np.quantile(score[: series.train], 0.99) for score in _parts(train, kept)))
    made["tag_limits"] = farthest(train, kept)
    made["random"] = np.random.default_rng(seed).random(len(series.values))
    window = period(series.values[:, 0])
    return {
        name: {"vus_pr": vus_pr(score, series.label, window), "auc_pr": auc_pr(score, series.label)}
        for name, score in made.items()
    }


def _parts(train: Floats, values: Floats) -> list[Floats]:
    return [score + 1e-9 for score in principal(train, values).values()]


def _summed(scores: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "vus_pr": round(float(np.mean([s["vus_pr"] for s in scores.values()])), 4),
        "auc_pr": round(float(np.mean([s["auc_pr"] for s in scores.values()])), 4),
        "per_series": {name: round(s["vus_pr"], 4) for name, s in scores.items()},
    }


if __name__ == "__main__":
    command(__doc__, bench)
