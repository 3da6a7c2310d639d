"""BATADAL, a water network under attack: a normal year trains, attacks of another time are to be found.

Run: python -m tests.benchmarks.batadal --data DIR --json OUT
DIR holds `dataset03.csv` (normal) and `test_dataset.csv` or else `dataset04.csv`, with or without `BATADAL_` before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusion.records import NS_PER_S
from tests.benchmarks.metrics import auc_pr, batadal_score, rates, spans
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
)

STEP_S = 3600.0
FLAG = "ATT_FLAG"
HOURS_A_DAY = 24.0


def read(file: Path) -> tuple[list[str], Floats, Bools, int]:
    """Names of the columns, values [T, S], which rows are under attack [T], and the time of the first row [ns]."""
    table = pl.read_csv(file, infer_schema_length=None)
    table = table.rename({name: name.strip() for name in table.columns})
    names = [name for name in table.columns if name not in ("DATETIME", FLAG)]
    flag = table[FLAG].to_numpy() > 0 if FLAG in table.columns else np.zeros(len(table), bool)
    first = pl.Series([str(table["DATETIME"][0]) + ":00"]).str.to_datetime("%d/%m/%y %H:%M")
    start_ns = int(first.dt.epoch("s")[0]) * NS_PER_S
    return names, table.select(names).to_numpy().astype(np.float64), np.asarray(flag), start_ns


def found(folder: Path, *names: str) -> Path:
    """The first of the files that is there."""
    files = (folder / f"{prefix}{name}.csv" for name in names for prefix in ("", "BATADAL_"))
    for file in files:
        if file.is_file():
            return file
    raise SystemExit(f"{folder}: none of {', '.join(names)} is there as .csv")


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    names, normal, _, start_ns = read(found(folder, "dataset03"))
    _, values, label, test_ns = read(found(folder, "test_dataset", "dataset04"))
    plant = plant_of("batadal", names, STEP_S)
    system = System.fit(plant, [run_of(plant, normal, start_ns)], [Cut.of(len(normal))], seed=seed, seconds=seconds)
    run = run_of(plant, values, test_ns)
    energies = system.model.judge(run, begins_well=True)
    report: dict[str, Any] = {}
    for part in PARTS:
        alarms = system.alarms(run, part, energies)
        report[part] = scores(alarms.standing, alarms.score, label)
    return report | {"floors": floors(normal, values, label, seed)}


def scores(alarm: Bools, score: Floats, label: Bools) -> dict[str, Any]:
    """The contest's score, F1 by row, and how often an alarm begins outside attacks."""
    begun = np.diff(alarm.astype(np.int8), prepend=0) == 1
    events = spans(label)
    f1, far, mar = rates(alarm, label)
    return {
        "s": round(batadal_score(alarm, label), 4),
        "f1": round(f1, 4),
        "false_alarms_per_day": round(HOURS_A_DAY * int((begun & ~label).sum()) / int((~label).sum()), 4),
        "far": round(far, 2),
        "mar": round(mar, 2),
        "auc_pr": round(auc_pr(score, label), 4),
        "events_found": sum(bool(alarm[a : b + 1].any()) for a, b in events),
        "events_total": len(events),
    }


def floors(normal: Floats, values: Floats, label: Bools, seed: int) -> dict[str, Any]:
    """Simple rivals: limits at the 99.5 % quantile of the last part of the normal year."""
    cut = Cut.of(len(normal))
    train, later = normal[: cut.decided], normal[cut.decided :]
    made = {name: (principal(train, later)[name], principal(train, values)[name]) for name in ("T2", "SPE")}
    made["tag_limits"] = (farthest(train, later), farthest(train, values))
    random = np.random.default_rng(seed).random(len(values))
    made["random"] = (random, random)
    report = {name: scores(test > np.quantile(quiet, 0.995), test, label) for name, (quiet, test) in made.items()}
    return report | {"always": scores(np.ones(len(label), bool), np.ones(len(label)), label)}


if __name__ == "__main__":
    command(__doc__, bench)
