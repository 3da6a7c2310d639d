import math
import re

import numpy as np

from fusion.importing.importer import ImportConfig, import_files
from fusion.importing.report import treatment
from fusion.importing.tag_quality import TagQuality
from fusion.plant_file import load_plant
from fusion.records import Quality
from tests import historian_files as files

NS = 1_000_000_000


def followed(name, t_s, value):
    tag = TagQuality(name)
    good = np.full(len(t_s), Quality.GOOD, np.uint8)
    tag.add((np.asarray(t_s) * NS).astype(np.int64), np.asarray(value, float), good)
    return tag


def test_a_swinging_door_archive_is_told_from_even_and_from_interpolated_rows():
    t_s = np.arange(1.0, 3601.0)
    value = np.sin(t_s / 300.0) + 0.1 * np.random.default_rng(0).standard_normal(len(t_s))
    assert not followed("A", t_s, value).compressed
    corners = np.unique(np.random.default_rng(1).integers(0, len(t_s), 150))
    assert followed("A", t_s[corners], value[corners]).compressed
    straight = followed("A", t_s, np.interp(t_s, t_s[corners], value[corners]))
    assert straight.interpolated
    assert not straight.compressed
    assert straight.effective_s > 5.0
    rounded = followed("A", t_s, np.interp(t_s, t_s[corners], 100.0 * value[corners]).round(3))
    assert rounded.interpolated
    assert not followed("A", t_s, (100.0 * value).round(3)).interpolated


def test_a_rest_that_spans_stretches_is_one():
    t_s = np.arange(1.0, 301.0)
    value = np.where((t_s > 50) & (t_s <= 250), 7.0, np.sin(t_s))
    tag = TagQuality("A")
    for part in np.split(np.arange(300), 3):
        good = np.full(len(part), Quality.GOOD, np.uint8)
        tag.add((t_s[part] * NS).astype(np.int64), value[part], good)
    assert tag.longest_frozen_s == followed("A", t_s, value).longest_frozen_s == 199.0
    assert tag.frozen_s == 199.0


def test_a_change_of_unit_is_suspected_where_the_level_steps_by_a_known_factor():
    noise = 0.01 * np.random.default_rng(0).standard_normal(400)
    celsius = 80.0 * (1 + noise)
    t_s = np.arange(1.0, 401.0)
    kelvin = np.where(t_s > 200, celsius + 273.15, celsius)
    at_ns, name = followed("T", t_s, kelvin).unit_change()
    assert name == "Celsius, kelvin"
    assert abs(at_ns / NS - 200) < 15
    assert followed("T", t_s, np.where(t_s > 200, celsius * 1000, celsius)).unit_change()[1] == "1000"
    assert followed("T", t_s, np.where(t_s > 200, celsius * 1.4, celsius)).unit_change() is None


def test_the_report_says_what_is_wrong_with_each_tag_and_what_training_makes_of_it(tmp_path):
    lines = ["tag,timestamp,value"]
    for tag, i, t, v in files.rows():
        if tag == "FT101" and 100 <= i < 160:
            continue
        value = "Bad Input" if tag == "LT101" and i % 3 == 0 else 5.0 if tag == "TT101" and i > 200 else v
        lines.append(f"{tag},{t.isoformat()},{value}")
    (tmp_path / "export.csv").write_text("\n".join([*lines, "LT101,no time,1"]) + "\n")
    place = import_files([str(tmp_path / "export.csv")], tmp_path / "site", ImportConfig())
    report = (place / "report.html").read_text()
    rows = {re.sub("<[^>]*>", "", row.split("</td>")[0]): row for row in report.split("<tr>")}
    assert re.search(r"class=\"bad\">1</td>", rows["FT101"])
    assert "then the tag is masked" in rows["FT101"]
    assert "120 bad values are masked" in rows["LT101"]
    assert "120 x instrument" in rows["LT101"]
    assert "long rests are learned as normal" in rows["TT101"]
    assert report.count("<svg") == 3
    assert "1 x " in rows[str(tmp_path / "export.csv")]
    assert "<script" not in report
    assert "http" not in report


def test_what_is_left_out_or_never_moves_is_said(tmp_path):
    place = import_files([_written(tmp_path)], tmp_path / "site", ImportConfig())
    plant = load_plant(place / "plant.yaml")
    t_s = np.arange(1.0, 100.0)
    assert treatment(followed("OTHER", t_s, t_s), plant) == ["left out: not a signal of the plant"]
    assert any("never moves" in said for said in treatment(followed("TT101", t_s, np.full(99, 7.0)), plant))
    assert treatment(followed("TT101", t_s, [math.sin(t * t) for t in t_s]), plant) == ["used as it is"]


def test_setpoints_and_states_rest_by_nature_and_outliers_are_said(tmp_path):
    plant = load_plant(import_files([_written(tmp_path)], tmp_path / "site", ImportConfig()) / "plant.yaml")
    t_s = np.arange(1.0, 400.0)
    steps = treatment(followed("TT101", t_s, (t_s > 200) * 5.0), plant)
    assert not any("long rests" in said for said in steps)
    rests = treatment(followed("TT101", t_s, np.where(t_s > 200, 5.5, np.sin(t_s))), plant)
    assert any("long rests" in said for said in rests)
    wild = treatment(followed("TT101", t_s, np.where(t_s % 50 == 1, 1e4, np.sin(t_s * t_s))), plant)
    assert any("outliers stay in" in said for said in wild)


def _written(tmp_path):
    (tmp_path / "export.csv").write_text(files.pi_csv())
    return str(tmp_path / "export.csv")
