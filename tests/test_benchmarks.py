"""The benchmark commands on small sets of the same layout, made here, and on the public ones where they are there.

The folder of the public sets is named by FUSION_BENCHMARKS, or lies beside the repository.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusion.recordings.recording import Recording
from tests.benchmarks import batadal, bench_faults, ett, skab, smap_msl, tep
from tests.benchmarks.tables import command, unpacked

DATA = Path(os.environ.get("FUSION_BENCHMARKS", Path(__file__).resolve().parents[2] / "shared" / "data"))
KEYS = {
    "skab": "events_found events_total median_delay_s false_raises_per_hour auc_pr vus_pr f1 far mar",
    "smap_msl": "vus_pr per_series",
}


def walk(rows, columns, seed):
    """Columns that follow one slow drive, with noise."""
    random = np.random.default_rng(seed)
    drive = np.convolve(random.standard_normal(rows + 30), np.ones(30) / 5.5, "valid")[:rows]
    return drive[:, None] * np.linspace(1, 2, columns) + 0.05 * random.standard_normal((rows, columns))


def report(monkeypatch, bench, folder, out):
    arguments = ["bench", "--data", str(folder), "--json", str(out), "--seeds", "1", "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    command(None, bench)
    return json.loads(out.read_text())


def test_skab_finds_a_sensor_that_leaves_the_others(tmp_path, monkeypatch):
    start = pl.datetime(2020, 3, 9, 10)
    for number in range(7):
        values, label = walk(620, 4, number), np.zeros(620)
        label[520:] = 1.0
        values[520:, 1] += 4.0
        table = pl.DataFrame(values, schema=[f"C{i}" for i in range(4)]).with_row_index("row")
        table = table.select(
            (start + pl.duration(seconds=pl.col("row"))).dt.strftime("%Y-%m-%d %H:%M:%S").alias("datetime"),
            pl.all().exclude("row"),
            pl.Series("anomaly", label),
            pl.Series("changepoint", label),
        )
        (tmp_path / "valve1").mkdir(exist_ok=True)
        table.write_csv(tmp_path / "valve1" / f"{number}.csv", separator=";")
    made = report(monkeypatch, skab.bench, tmp_path, tmp_path / "out.json")
    for part in ("full", "classical", "latent"):
        assert set(made[part]) == set(KEYS["skab"].split())
    assert made["full"]["events_total"] == 7
    assert made["full"]["events_found"] >= 5  # of two raises an hour one may stand already
    assert made["full"]["auc_pr"] > 0.8 > made["floors"]["random"]["auc_pr"]
    assert [seed["seed"] for seed in made["seeds"]] == [0]


def test_smap_scores_every_series_and_columns_that_never_move_do_no_harm(tmp_path, monkeypatch):
    (tmp_path / "test").mkdir()
    values = np.concatenate([walk(1600, 3, 1), np.zeros((1600, 2))], 1)
    values[1530:1590, 0] -= 3.0
    np.save(tmp_path / "test" / "A-1.npy", values)
    (tmp_path / "cut.csv").write_text('channel,spacecraft,n,train,anomalies\nA-1,SMAP,1600,800,"[[1530, 1589]]"\n')
    made = report(monkeypatch, smap_msl.bench, tmp_path, tmp_path / "out.json")
    assert set(made["full"]) >= set(KEYS["smap_msl"].split())
    assert made["full"]["per_series"]["A-1"] > 0.5 > made["floors"]["random"]["vus_pr"]


def test_a_folder_without_the_set_says_what_was_expected(tmp_path):
    with pytest.raises(SystemExit, match="expected files such as valve1/0.csv"):
        skab.bench(tmp_path, 0, 1.0)
    with pytest.raises(SystemExit, match="cut.csv is missing"):
        smap_msl.bench(tmp_path, 0, 1.0)


def there(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name}: the public set is not there")
    return DATA / name


def test_tep_stores_one_file_the_other_way_round():
    with unpacked(there("tep"), "d00.dat") as folder:
        normal, faults = tep.files(folder)
    assert [rows.shape for rows in normal] == [(500, 52), (960, 52)]
    floors = tep.floors(normal, {1: faults[1]})
    assert floors["T2"]["fdr_1"] == pytest.approx(99.3, abs=1.0)  # as published


def test_batadal_floors_are_those_published():
    names, normal, flag, _ = batadal.read(batadal.found(there("batadal"), "dataset03"))
    assert len(names) == 43
    assert not flag.any()
    _, values, label, _ = batadal.read(batadal.found(there("batadal"), "dataset04"))
    assert batadal.floors(normal, values, label, 0)["always"]["s"] == pytest.approx(0.75)


def test_ett_rhythm_beats_no_change():
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


def test_the_rival_is_fitted_and_limited_on_the_recordings_of_the_model(recordings, slipping):
    pca, limits = bench_faults.rival(recordings[:6], 0.4, 1.0)
    played = bench_faults.play_rival(pca, limits, Recording(slipping).plant, slipping)
    assert limits.hours > 0.2
    assert [event.name for event in played.faults] == ["belt_slip"]
