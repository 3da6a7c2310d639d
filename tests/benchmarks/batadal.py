"""BATADAL, a water network attacked over its SCADA system, hourly: trained on a normal year, judged on later months.

Run: python -m tests.benchmarks.batadal --data DIR --json OUT
DIR holds `dataset03.csv` (normal) and, to be judged, `test_dataset.csv` where it is labelled, else `dataset04.csv`. Of
the normal year the first 54 % train, the next 13 % decide on the networks and the last third sets the limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusion.plant_model import PlantModel
from tests.benchmarks.metrics import batadal_score, rates, spans
from tests.benchmarks.tables import PARTS, Floats, System, command, farthest, plant_of, principal, run_of

STEP_S = 3600.0
FITTED, DECIDED = 0.54, 0.67
LABEL = "ATT_FLAG"


def read(file: Path) -> tuple[list[str], Floats, NDArray[np.bool_] | None]:
    """Names, rows [T, S] and labels of a file; None where nothing is labelled."""
    table = pl.read_csv(file, infer_schema_length=None)
    table = table.rename({name: name.strip() for name in table.columns})
    names = [name for name in table.columns if name not in ("DATETIME", LABEL)]
    label = table[LABEL].to_numpy() > 0 if LABEL in table.columns else None
    return names, table.select(names).to_numpy().astype(np.float64), label


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    names, normal_rows, _ = read(folder / "dataset03.csv")
    later = folder / "test_dataset.csv"
    if not later.exists() or read(later)[2] is None:
        later = folder / "dataset04.csv"
    _, rows, label = read(later)
    if label is None or not label.any():
        raise SystemExit(f"{later}: no attack is labelled; expected 1 in {LABEL} during attacks")
    plant = plant_of("batadal", names, STEP_S)
    fitted, decided = (round(len(normal_rows) * share) for share in (FITTED, DECIDED))
    whole, test = run_of(plant, normal_rows), run_of(plant, np.concatenate([normal_rows[decided:], rows]))
    past = len(normal_rows) - decided

    def normal(model: PlantModel) -> list[Floats]:
        return [model.energies(whole)[decided:]]

    system = System.fit(
        plant, [whole[:fitted]], [whole[fitted:decided]], [whole[decided:]], normal, seed=seed, seconds=seconds
    )
    energies = system.model.energies(test)
    report: dict[str, Any] = {}
    for part in PARTS:
        found = system.alarms(test, part, energies)
        report[part] = judged(found.standing[past:], label)
    return report | {"floors": floors(normal_rows[:decided], normal_rows[decided:], rows, label)}


def judged(alarm: NDArray[np.bool_], label: NDArray[np.bool_]) -> dict[str, Any]:
    """The contest's score, F1 by row, and alarms a day that begin outside of attacks."""
    begun = [start for start, _ in spans(alarm) if not label[start]]
    return {
        "s": round(batadal_score(alarm, label), 4),
        "f1": round(rates(alarm, label)[0], 4),
        "false_alarms_per_day": round(len(begun) / ((~label).sum() * STEP_S / 86400.0), 3),
        "attacks_found": sum(bool(alarm[start : end + 1].any()) for start, end in spans(label)),
        "attacks": len(spans(label)),
    }


def floors(train: Floats, quiet: Floats, rows: Floats, label: NDArray[np.bool_]) -> dict[str, Any]:
    """Principal components and limits by tag at the 99.5 % quantile of later normal rows; always and never."""
    report = {"always": judged(np.ones(len(label), bool), label), "never": judged(np.zeros(len(label), bool), label)}
    for name in ("T2", "SPE", "tag_limits"):

        def score(values: Floats, name: str = name) -> Floats:
            return farthest(train, values) if name == "tag_limits" else principal(train, values)[name]

        report[name] = judged(score(rows) > np.quantile(score(quiet), 0.995), label)
    return report


if __name__ == "__main__":
    command(__doc__, bench)
