"""Rows a second of an import against a plain polars scan-and-group of the same files, and the memory of each.

Every stage runs in a process of its own, in rounds, and the quickest round of each counts: a neighbour on the machine
slows one round, not the ratio.
Run: python -m tests.benchmarks.bench_import [--rows 2000000] [--tags 200] [--form csv|wide|parquet] [--rounds 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fusion.importing.importer import RECORDINGS, ImportConfig, import_files
from fusion.recordings.recording import Recording
from fusion.training.ticks import ticks

ROWS_A_FILE = 2_000_000
START_S = 1_715_580_000
PATTERN = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a stage took; the peak is of its process alone."""

    wall_s: float
    cpu_s: float
    peak_gib: float


def write_history(folder: Path, rows: int, tags: int, form: str) -> list[Path]:
    """Files of ``rows`` values in all: every tag once a second, in order of time."""
    random = np.random.default_rng(0)
    names = [f"AREA1.T{i:03}.PV" for i in range(tags)]
    files, level, done = [], 50.0 + np.arange(tags, dtype=float), 0
    while done < rows // tags:
        seconds = min(ROWS_A_FILE, rows) // tags
        walk = level + np.cumsum(random.normal(0.0, 0.05, (seconds, tags)), axis=0)
        file = folder / f"{len(files):04}.{'parquet' if form == 'parquet' else 'csv'}"
        _write(file, names, START_S + done + np.arange(seconds), walk.round(3), form)
        files.append(file)
        level, done = walk[-1], done + seconds
    return files


def _write(file: Path, names: list[str], seconds: np.ndarray, value: np.ndarray, form: str) -> None:
    stamps = pl.from_epoch(pl.Series("timestamp", seconds), "s").dt.replace_time_zone("UTC")
    if form == "wide":
        columns = {name: value[:, i] for i, name in enumerate(names)}
        pl.DataFrame({"timestamp": stamps, **columns}).write_csv(file, datetime_format=PATTERN)
        return
    row = np.repeat(np.arange(len(seconds)), len(names))
    tag = pl.Series(names * len(seconds))
    long = pl.DataFrame({"tag": tag, "timestamp": stamps.gather(row), "value": value.ravel()})
    if form == "parquet":
        long.write_parquet(file)
    else:
        long.write_csv(file, datetime_format=PATTERN)


def scan(files: list[Path], form: str) -> None:
    """What polars takes for the same: read, stamps parsed, mean of every tag in every minute."""
    if form == "parquet":
        rows = pl.scan_parquet(files)
    else:
        rows = pl.scan_csv(files).with_columns(pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%S%#z"))
    if form == "wide":
        rows = rows.unpivot(index="timestamp", variable_name="tag", value_name="value")
    minute = pl.col("timestamp").dt.truncate("1m")
    rows.group_by("tag", minute).agg(pl.len(), pl.col("value").mean()).collect(engine="streaming")


def bring(files: list[Path], site: Path) -> None:
    """The import itself."""
    import_files([str(file) for file in files], site, ImportConfig(name="bench"))


def windows(site: Path) -> None:
    """Every recording as model input."""
    for path in sorted((site / "imports" / "bench" / RECORDINGS).iterdir()):
        ticks(Recording(path))


def measure(stage: Callable[..., None], *arguments: object) -> Cost:
    """A stage in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, stage, arguments))
    process.start()
    theirs.close()
    try:
        return Cost(**ours.recv())
    finally:
        process.join()


def _run(answer, stage: Callable[..., None], arguments: tuple[object, ...]) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    stage(*arguments)
    answer.send(
        {
            "wall_s": time.perf_counter() - begun,
            "cpu_s": time.process_time() - cpu,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
    )


def one_round(files: list[Path], form: str, site: Path) -> dict[str, Cost]:
    """Each stage once."""
    costs = {
        "plain scan-and-group": measure(scan, files, form),
        "import": measure(bring, files, site),
        "windows": measure(windows, site),
    }
    shutil.rmtree(site)
    return costs


def main() -> None:
    """Measure every stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--tags", type=int, default=200)
    parser.add_argument("--form", choices=("csv", "wide", "parquet"), default="csv")
    parser.add_argument("--folder", type=Path, help="where the files go; needs about 150 bytes a row")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.folder:
        asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-import-", dir=asked.folder) as name:
        folder = Path(name)
        files = write_history(folder, asked.rows, asked.tags, asked.form)
        size = sum(file.stat().st_size for file in files) / 1e9
        print(f"{asked.rows:,} rows of {asked.tags} tags, {asked.form}, {len(files)} files, {size:.2f} GB")
        rounds = [one_round(files, asked.form, folder / f"site{i}") for i in range(asked.rounds)]
    best = {stage: min((costs[stage] for costs in rounds), key=lambda cost: cost.cpu_s) for stage in rounds[0]}
    plain = best["plain scan-and-group"]
    print(f"{'':22}{'rows/s':>12}{'of plain':>10}{'of its CPU':>12}{'peak GiB':>10}")
    for stage, cost in best.items():
        share, work = plain.wall_s / cost.wall_s, plain.cpu_s / cost.cpu_s
        print(f"{stage:22}{asked.rows / cost.wall_s:12,.0f}{share:10.2f}{work:12.2f}{cost.peak_gib:10.2f}")


if __name__ == "__main__":
    main()
