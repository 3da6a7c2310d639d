"""The benchmark commands on small sets of the same layout, made here: what they write, what they find."""

import json
import sys

import numpy as np
import polars as pl
import pytest

from tests.benchmarks import skab, smap_msl
from tests.benchmarks.tables import command

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
    assert made["full"]["events_found"] >= 6
    assert made["full"]["auc_pr"] > 0.8 > made["floors"]["random"]["auc_pr"]
    assert [seed["seed"] for seed in made["seeds"]] == [0]


def test_smap_scores_every_series_and_columns_that_never_move_do_no_harm(tmp_path, monkeypatch):
    (tmp_path / "test").mkdir()
    values = np.concatenate([walk(1600, 3, 1), np.zeros((1600, 2))], 1)
    values[1530:1590, 0] -= 3.0
    np.save(tmp_path / "test" / "A-1.npy", values)
    (tmp_path / "cut.csv").write_text('channel,spacecraft,n,train,anomalies\nA-1,SMAP,1600,800,"[[1530, 1589]]"\n')
    made = report(monkeypatch, smap_msl.bench, tmp_path, tmp_path / "out.json")
    assert set(made["full"]) == set(KEYS["smap_msl"].split())
    assert made["full"]["per_series"]["A-1"] > 0.5 > made["floors"]["random"]["vus_pr"]


def test_a_folder_without_the_set_says_what_was_expected(tmp_path):
    with pytest.raises(SystemExit, match="expected files such as valve1/0.csv"):
        skab.bench(tmp_path, 0, 1.0)
    with pytest.raises(SystemExit, match="expected cut.csv"):
        smap_msl.bench(tmp_path, 0, 1.0)
