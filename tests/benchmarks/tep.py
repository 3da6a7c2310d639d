"""Tennessee Eastman process, closed loop: trained on `d00`, judged on the faults of `dNN_te`, which begin at row 160.

Run: python -m tests.benchmarks.tep --data DIR --json OUT
DIR holds `d00.dat` (52 x 500), `d00_te.dat` and `dNN_te.dat`, or an archive `*.tar.xz` with them. Limits are the
product's, from `d00_te` as is the custom for this set. Every test file is played after `d00`, as to a monitor that has
run for a while: slow averages need a past. Rates are of rows above the limit, from row 160 on; `far` is of rows 100 to
160, since forecasts across the join of two files are wrong. A root tag is one that the disturbance acts on directly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from control.evidence import Contributions, EvidenceConfig, blame_signals
from control.surprise import Calibration
from fusion.plant_model import PlantModel
from models.batch import Ticks
from models.monitors import Energies
from tests.benchmarks.tables import PARTS, Floats, System, command, farthest, plant_of, principal, run_of, unpacked

STEP_S = 180.0
JOINED, ONSET, FITTED = 100, 160, 400
QUANTILE = 0.99  # of the floors on `d00_te`, as is the custom
HIDDEN = (3, 9, 15)  # faults that no method sees
NAMES = (*(f"XMEAS{i}" for i in range(1, 42)), *(f"XMV{i}" for i in range(1, 12)))
ROOTS = {
    4: {"XMV10", "XMEAS9", "XMEAS21"},
    5: {"XMV11", "XMEAS11", "XMEAS22"},
    6: {"XMV3", "XMEAS1"},
    7: {"XMV4", "XMEAS4"},
    10: {"XMEAS18", "XMEAS19", "XMV9"},
    11: {"XMV10", "XMEAS9", "XMEAS21"},
    12: {"XMV11", "XMEAS11", "XMEAS22"},
    14: {"XMV10", "XMEAS9", "XMEAS21"},
    21: {"XMV4", "XMEAS4"},
}
ROWS_OF_BLAME = 10


def read(folder: Path) -> dict[str, Floats]:
    """Rows [T, 52] by file name without its ending."""
    with unpacked(folder, "d00_te.dat") as place:
        files = {file.stem: np.loadtxt(file) for file in sorted(place.glob("d*.dat"))}
    if not {"d00", "d00_te"} <= set(files):
        raise SystemExit(f"{folder}: expected d00.dat and d00_te.dat")
    return {name: rows.T if rows.shape[0] == len(NAMES) else rows for name, rows in files.items()}


def faulty(files: dict[str, Floats]) -> dict[int, Floats]:
    """The test files by number of their fault."""
    return {int(name[1:3]): rows for name, rows in files.items() if name[3:] == "_te" and name != "d00_te"}


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    files = read(folder)
    plant = plant_of("tep", NAMES, STEP_S)
    train = run_of(plant, files["d00"])
    past = len(train)

    def played(rows: Floats) -> Ticks:
        return run_of(plant, np.concatenate([files["d00"], rows]))

    later = played(files["d00_te"])

    def normal(model: PlantModel) -> list[Floats]:
        return [model.energies(later)[past:]]

    parts = [[train[:FITTED]], [train], [later]]
    system = System.fit(plant, *parts, normal, seed=seed, seconds=seconds)
    faults = {number: played(rows) for number, rows in faulty(files).items()}
    energies = {number: system.model.energies(run)[past:] for number, run in faults.items()}
    report: dict[str, Any] = {}
    for part in PARTS:
        limits = system.limits[part]
        alarms = {number: np.nan_to_num(limits.peaks(rows)) > limits.threshold for number, rows in energies.items()}
        known = [n for n in alarms if n in ROOTS]
        roots = [rank(system.model, limits, faults[n], n, alarms[n], energies[n]) for n in known]
        report[part] = rates(alarms) | {"root_top1": share(roots, 1), "root_top3": share(roots, 3)}
    return report | {"floors": floors(files)}


def rates(alarms: dict[int, np.ndarray]) -> dict[str, Any]:
    """Detection by fault [%] from the onset on, their means, and alarms [%] before it."""
    by_fault = {str(n): round(100.0 * float(alarm[ONSET:].mean()), 2) for n, alarm in alarms.items()}
    seen = [value for n, value in by_fault.items() if int(n) not in HIDDEN]
    return {
        "fdr_mean_18": round(float(np.mean(seen)), 2),
        "fdr_mean_21": round(float(np.mean(list(by_fault.values()))), 2),
        "far": round(100.0 * float(np.mean([alarm[JOINED:ONSET].mean() for alarm in alarms.values()])), 2),
        "fdr": by_fault,
    }


def rank(
    model: PlantModel, limits: Calibration, run: Ticks, number: int, alarm: np.ndarray, energies: Floats
) -> int | None:
    """Rank of the best root tag, from 1, in the blame of the first rows after the alarm; None without an alarm."""
    found = np.flatnonzero(alarm[ONSET:])
    if not len(found):
        return None
    first = ONSET + int(found[0])
    judged, _ = model.monitors.step(run, explain=True)
    past = len(run) - len(energies)
    rows = range(first, min(first + ROWS_OF_BLAME, len(energies)))
    blame = sum(_blame(model, limits, judged, past + row, energies[row]) for row in rows)
    order = [model.signals[i] for i in np.argsort(-np.asarray(blame))]
    return 1 + min(order.index(tag) for tag in ROOTS[number])


def _blame(model: PlantModel, limits: Calibration, judged: Energies, tick: int, row: Floats) -> Floats:
    assert judged.shares is not None
    assert judged.residual is not None
    count = judged.shares.shape[1]
    shares = Contributions(signals=model.signals, shares=judged.shares[tick], residual=judged.residual[tick])
    return blame_signals(limits.score(row).factor[:count], shares, EvidenceConfig())


def share(found: list[int | None], most: int) -> float | None:
    """Share [%] of the faults whose root tag is among the first ``most``."""
    return round(100.0 * sum(r is not None and r <= most for r in found) / len(found), 1) if found else None


def floors(files: dict[str, Floats]) -> dict[str, Any]:
    """Principal components and limits by tag, fitted on `d00`, limited at a quantile on `d00_te`."""
    train, quiet = files["d00"], files["d00_te"]
    faults = faulty(files)
    report = {}
    for name in ("T2", "SPE", "tag_limits"):

        def score(rows: Floats, name: str = name) -> Floats:
            return farthest(train, rows) if name == "tag_limits" else principal(train, rows)[name]

        limit = np.quantile(score(quiet), QUANTILE)
        report[name] = rates({number: score(rows) > limit for number, rows in faults.items()})
    return report


if __name__ == "__main__":
    command(__doc__, bench)
