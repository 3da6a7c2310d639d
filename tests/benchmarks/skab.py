"""SKAB, a water loop with valves: the first 400 rows of every run are normal and train, the rest is judged.

Run: python -m tests.benchmarks.skab --data DIR --json OUT
DIR holds folders of runs (`valve1/0.csv`), as published. One model and one limit for all runs, from their first rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusion.plant import Plant
from models.ticks import Ticks
from tests.benchmarks.metrics import auc_pr, rates, spans, vus_pr
from tests.benchmarks.tables import PARTS, Cut, Floats, System, command, farthest, plant_of, principal, run_of

TRAINED = 400  # rows at the start of each run that are normal
GRACE_ROWS = 60
WINDOW = 100
PER_DAY = 48.0  # false raises that the published comparisons allow: two an hour


@dataclass(frozen=True, slots=True)
class Run:
    """One file: values [T, S] and labels by row, and the tick of each row on the grid of seconds."""

    name: str
    values: Floats
    label: NDArray[np.bool_]
    tick: NDArray[np.int64]


def read(folder: Path) -> tuple[Plant, list[Run]]:
    """All labelled runs below a folder."""
    runs, names = [], []
    for file in sorted(folder.rglob("*.csv")):
        table = pl.read_csv(file, separator=";", try_parse_dates=True)
        if "anomaly" not in table.columns:
            continue
        names = [c for c in table.columns if c not in ("datetime", "anomaly", "changepoint")]
        second = table["datetime"].dt.epoch("s").to_numpy()
        runs.append(
            Run(
                name=str(file.relative_to(folder)),
                values=table.select(names).to_numpy().astype(np.float64),
                label=table["anomaly"].to_numpy() > 0,
                tick=np.maximum.accumulate(second - second[0]),
            )
        )
    if not runs:
        raise SystemExit(f"{folder}: no run with a column `anomaly`; expected files such as valve1/0.csv")
    return plant_of("skab", names, 1.0), runs


def ticks(plant: Plant, run: Run) -> Ticks:
    """The run on the grid of seconds; a second without a row is not observed."""
    values = np.full((int(run.tick[-1]) + 1, run.values.shape[1]), np.nan)
    values[run.tick] = run.values
    return run_of(plant, values)


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    plant, runs = read(folder)
    whole = [ticks(plant, run) for run in runs]
    shares = Cut.of(TRAINED)
    cuts = [Cut(*(int(run.tick[row]) for row in (shares.fitted, shares.decided, shares.limited))) for run in runs]
    system = System.fit(plant, whole, cuts, seed=seed, seconds=seconds, per_day=PER_DAY)
    report: dict[str, Any] = {}
    for part in PARTS:
        rows = []
        for i, run in enumerate(runs):
            found = system.alarms(whole[i], part, system.energies[i])
            rows.append(judged(run, found.score[run.tick], found.standing[run.tick], rows_of(found.raises, run)))
        report[part] = summed(rows)
    return report | {"floors": floors(runs, seed)}


def rows_of(raises: NDArray[np.int64], run: Run) -> NDArray[np.int64]:
    """Rows of the file at which alarms were raised."""
    return np.asarray(np.searchsorted(run.tick, raises), np.int64)


def judged(run: Run, score: Floats, alarm: NDArray[np.bool_], raises: NDArray[np.int64]) -> dict[str, Any]:
    """What is right and wrong after the training rows of one run."""
    label = run.label[TRAINED:]
    delays, events = [], [(a + TRAINED, b + TRAINED) for a, b in spans(label)]
    raised = [int(r) for r in raises if r >= TRAINED]
    for start, end in events:
        first = next((r for r in raised if start <= r <= end + GRACE_ROWS and not alarm[start - 1]), None)
        delays.append(None if first is None else int(run.tick[first] - run.tick[start]))
    inside = [r for r in raised if any(start <= r <= end + GRACE_ROWS for start, end in events)]
    return {
        "delays": delays,
        "false": len(raised) - len(inside),
        "normal_s": int((~label).sum()),
        "auc_pr": auc_pr(score[TRAINED:], label),
        "vus_pr": vus_pr(score[TRAINED:], label, WINDOW),
        "alarm": alarm[TRAINED:],
        "label": label,
    }


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One report from the runs."""
    delays = [delay for row in rows for delay in row["delays"]]
    found = [delay for delay in delays if delay is not None]
    f1, far, mar = rates(*(np.concatenate([row[name] for row in rows]) for name in ("alarm", "label")))
    return {
        "events_found": len(found),
        "events_total": len(delays),
        "median_delay_s": float(np.median(found)) if found else None,
        "false_raises_per_hour": round(3600.0 * sum(r["false"] for r in rows) / sum(r["normal_s"] for r in rows), 3),
        "auc_pr": round(float(np.mean([row["auc_pr"] for row in rows])), 4),
        "vus_pr": round(float(np.mean([row["vus_pr"] for row in rows])), 4),
        "f1": round(f1, 4),
        "far": round(far, 2),
        "mar": round(mar, 2),
    }


def floors(runs: list[Run], seed: int) -> dict[str, Mapping[str, Any]]:
    """Simple rivals on each run by itself: what any method must beat."""
    random = np.random.default_rng(seed)

    def scores(run: Run) -> dict[str, Floats]:
        train = run.values[:TRAINED]
        parts = principal(train, run.values)
        limits = {name: np.quantile(value[:TRAINED], 0.99) for name, value in parts.items()}
        return {
            "pca": np.maximum(parts["T2"] / limits["T2"], parts["SPE"] / limits["SPE"]),
            "tag_limits": farthest(train, run.values),
            "random": random.random(len(run.values)),
            "always": np.ones(len(run.values)),
        }

    made = [scores(run) for run in runs]
    report = {}
    for name in made[0]:
        rows = []
        for run, by_name in zip(runs, made, strict=True):
            score = by_name[name]
            alarm = score > np.quantile(score[:TRAINED], 0.99) if name != "always" else np.ones(len(score), bool)
            raises = np.flatnonzero(np.diff(alarm.astype(np.int8), prepend=0) == 1)
            rows.append(judged(run, score, alarm, raises))
        report[name] = summed(rows)
    return report


if __name__ == "__main__":
    command(__doc__, bench)
