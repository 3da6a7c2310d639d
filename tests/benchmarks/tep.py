"""Tennessee Eastman, the files of the Braatz group: detection of 21 faults, and the tag at their root.

Run: python -m tests.benchmarks.tep --data DIR --json OUT
DIR holds `d00.dat`, `d00_te.dat` and any of `d01_te.dat` to `d21_te.dat`; a fault begins at row 160 of its file.
As published the limit comes from `d00_te`, here from its second half; its first half decides on the networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.tables import (
    PARTS,
    Alarms,
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

STEP_S = 180.0
ONSET = 160
HIDDEN = (3, 9, 15)  # faults that no published method finds
COLUMNS = (*(f"XMEAS({i})" for i in range(1, 42)), *(f"XMV({i})" for i in range(1, 12)))
BLAMED_ROWS = 10
ROOTS: dict[int, tuple[str, ...]] = {  # what a disturbance acts on first, by its published description
    4: ("XMEAS(9)", "XMEAS(21)", "XMV(10)"),
    5: ("XMEAS(22)", "XMV(11)"),
    6: ("XMEAS(1)", "XMV(3)"),
    7: ("XMEAS(4)", "XMV(4)"),
    10: ("XMEAS(18)", "XMEAS(19)", "XMV(9)"),
    11: ("XMEAS(9)", "XMEAS(21)", "XMV(10)"),
    12: ("XMEAS(22)", "XMEAS(11)", "XMV(11)"),
    14: ("XMEAS(9)", "XMEAS(21)", "XMV(10)"),
    21: ("XMEAS(4)", "XMV(4)"),
}


def read(file: Path) -> Floats:
    """Rows [T, 52] of a file; `d00.dat` is stored the other way round."""
    table = np.loadtxt(file)
    return table.T if table.shape[0] == len(COLUMNS) else table


def files(folder: Path) -> tuple[list[Floats], dict[int, Floats]]:
    """The two normal files, and the faulty ones by number."""
    names = ("d00.dat", "d00_te.dat")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise SystemExit(
            f"{folder}: {missing[0]} is missing; expected d00.dat, d00_te.dat and d01_te.dat to d21_te.dat"
        )
    faults = {n: read(file) for n in range(1, 22) if (file := folder / f"d{n:02d}_te.dat").is_file()}
    return [read(folder / name) for name in names], faults


def bench(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Every part of the system and the floors, for one seed."""
    with unpacked(folder, "d00.dat") as place:
        normal, faults = files(place)
    plant = plant_of("tep", COLUMNS, STEP_S)
    half, end = len(normal[1]) // 2, len(normal[1])
    cuts = [Cut(*[len(normal[0])] * 3), Cut(0, half, end)]
    system = System.fit(plant, [run_of(plant, x) for x in normal], cuts, seed=seed, seconds=seconds)
    runs = {n: run_of(plant, values) for n, values in faults.items()}
    energies = {n: system.model.judge(run, begins_well=True) for n, run in runs.items()}
    report: dict[str, Any] = {}
    for part in PARTS:
        alarms = {n: system.alarms(run, part, energies[n]) for n, run in runs.items()}
        windows = {n: window for n in runs if n in ROOTS and (window := _window(alarms[n]))}
        blamed = {n: system.blamed(runs[n], part, windows[n]) if n in windows else () for n in runs if n in ROOTS}
        report[part] = scores({n: a.standing for n, a in alarms.items()}, {n: a.judged for n, a in alarms.items()})
        report[part] |= roots(blamed)
    return report | {"floors": floors(normal, faults)}


def _window(alarms: Alarms) -> slice | None:
    """The first rows of the first alarm after the onset."""
    standing = np.flatnonzero(alarms.standing[ONSET:])
    return slice(ONSET + int(standing[0]), ONSET + int(standing[0]) + BLAMED_ROWS) if len(standing) else None


def scores(alarm: Mapping[int, Bools], judged: Mapping[int, Bools]) -> dict[str, float]:
    """Detection and false alarm rates [%] by row; rows before the onset that were not judged do not count."""
    found = {n: 100.0 * float(a[ONSET:].mean()) for n, a in alarm.items()}
    early = np.concatenate([a[:ONSET][judged[n][:ONSET]] for n, a in alarm.items()])
    return {
        "fdr_mean_18": round(float(np.mean([rate for n, rate in found.items() if n not in HIDDEN])), 2),
        "fdr_mean_21": round(float(np.mean(list(found.values()))), 2),
        "far": round(100.0 * float(early.mean()), 3),
        "far_rows": len(early),
        "faults": len(found),
        **{f"fdr_{n}": round(rate, 1) for n, rate in found.items()},
    }


def roots(blamed: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """Shares [%] of faults whose first, or one of whose first three, blamed tags is where the disturbance acts."""
    rank = {n: next((i for i, tag in enumerate(tags) if tag in ROOTS[n]), len(COLUMNS)) for n, tags in blamed.items()}
    return {
        "root_top1": round(100.0 * float(np.mean([r < 1 for r in rank.values()])), 1),
        "root_top3": round(100.0 * float(np.mean([r < 3 for r in rank.values()])), 1),
        "root_rank": {str(n): r + 1 for n, r in rank.items()},
    }


def floors(normal: Sequence[Floats], faults: Mapping[int, Floats]) -> dict[str, Any]:
    """PCA and limits by tag, each with its 99 % limit on `d00_te`."""

    def rates(name: str, values: Mapping[str, Floats], limits: Mapping[str, Floats]) -> tuple[str, dict[str, float]]:
        limit = np.quantile(limits[name], 0.99)
        alarm = {int(n): v > limit for n, v in values.items()}
        return name, scores(alarm, {n: np.ones(len(a), bool) for n, a in alarm.items()})

    made = []
    for name in ("T2", "SPE"):
        values = {str(n): principal(normal[0], x)[name] for n, x in faults.items()}
        made.append(rates(name, values, principal(normal[0], normal[1])))
    values = {str(n): farthest(normal[0], x) for n, x in faults.items()}
    made.append(rates("tag_limits", values, {"tag_limits": farthest(normal[0], normal[1])}))
    return dict(made)


if __name__ == "__main__":
    command(__doc__, bench)
