"""The public sets through the system, on a slice of each that takes seconds; skipped where the sets are not there.

The folder of the sets is named by FUSION_BENCHMARKS, or lies beside the repository.
"""

import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import batadal, ett, skab, smap_msl, tables, tep

DATA = Path(os.environ.get("FUSION_BENCHMARKS", Path(__file__).resolve().parents[2] / "shared" / "data"))


def there(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name}: the public set is not there")
    return DATA / name


def test_skab_reads_runs_and_writes_the_report(tmp_path, monkeypatch):
    source = there("skab") / "valve1"
    for name in (f"{i}.csv" for i in range(1, 8)):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    report = tmp_path / "report.json"
    arguments = ["skab", "--data", str(tmp_path), "--json", str(report), "--seeds", "1", "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    tables.command(skab.__doc__, skab.bench)
    made = json.loads(report.read_text())
    assert set(made) >= {"full", "classical", "latent", "floors", "seeds"}
    keys = {"events_found", "events_total", "median_delay_s", "false_raises_per_hour", "auc_pr", "vus_pr"}
    assert set(made["full"]) >= keys | {"f1", "far", "mar"}
    assert made["full"]["events_total"] == 7
    assert made["full"]["auc_pr"] > made["floors"]["random"]["auc_pr"]
    assert made["floors"]["always"]["f1"] == pytest.approx(0.7, abs=0.02)


def test_tep_stores_one_file_the_other_way_round(tmp_path):
    archive = next(there("tep").glob("*.tar.xz"), None)
    if archive is not None:
        with tarfile.open(archive) as opened:
            opened.extractall(tmp_path, filter="data")
    folder = tmp_path if archive is not None else there("tep")
    assert tep.read(folder / "d00.dat").shape == (500, 52)
    assert tep.read(folder / "d00_te.dat").shape == (960, 52)
    floors = tep.floors([tep.read(folder / "d00.dat"), tep.read(folder / "d00_te.dat")], {1: _fault(folder)})
    assert floors["T2"]["fdr_1"] == pytest.approx(99.3, abs=1.0)  # as published


def _fault(folder: Path):
    return tep.read(folder / "d01_te.dat")


def test_batadal_floors_are_those_published():
    names, normal, flag, _ = batadal.read(batadal.found(there("batadal"), "dataset03"))
    assert len(names) == 43
    assert not flag.any()
    _, values, label, _ = batadal.read(batadal.found(there("batadal"), "dataset04"))
    assert batadal.floors(normal, values, label, 0)["always"]["s"] == pytest.approx(0.75)


def test_ett_rhythm_beats_no_change():
    import polars as pl

    file = there("ett") / "ETTh1.csv"
    values = pl.read_csv(file).select("HUFL", "OT").to_numpy().astype(np.float64)[: ett.TEST]
    starts = np.arange(ett.DECIDE, ett.TEST - ett.AHEAD, 24)
    true = np.stack([values[starts + k] for k in range(1, ett.AHEAD + 1)], 1)
    scale = values[: ett.TRAIN].std(0)
    floors = ett.floors(values, starts, lambda made: float((((made - true) / scale) ** 2).mean()))
    assert floors["ridge_336"] < 0.5 * floors["persistence"]


def test_smap_names_what_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="cut.csv"):
        smap_msl.read(tmp_path)
    (tmp_path / "test").mkdir()
    np.save(tmp_path / "test" / "X-1.npy", np.zeros((50, 3)))
    (tmp_path / "cut.csv").write_text('channel,train,anomalies\nX-1,20,"[[30, 32]]"\nX-2,20,"[[30, 32]]"\n')
    (series,) = smap_msl.read(tmp_path)
    assert series.label.sum() == 3
    assert series.train == 20
