import json
from datetime import datetime

import polars as pl
import pytest

from fusion.cli import main
from fusion.plant_file import load_plant
from tests.historian_exports import EXPORTS
from tests.test_importing import NS, summary, table_of

QUALITY = {"G": 2, "U": 1, "B": 0}


def nanoseconds(text):
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * NS + int(fraction.ljust(9, "0") or 0)


def wanted(rows):
    """Rows of an ``Export`` by tag and time."""
    cells = [line.split() for line in rows.splitlines()]
    return {
        (tag.replace("_", " ") if "," in tag else tag, nanoseconds(time)): (
            None if value == "-" else float(value),
            QUALITY[quality],
        )
        for tag, time, value, quality in cells
    }


def brought(place):
    """What the recordings of an import hold, in the same shape."""
    table = table_of(place).with_columns(pl.col("value").fill_nan(None))
    return {(tag, t): (v, q) for t, tag, v, q in table.select("t_ns", "signal", "value", "quality").iter_rows()}


def command(*arguments):
    """The verb as it is typed; its exit code."""
    return main(["import", *map(str, arguments)])


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_an_export_from_the_field(tmp_path, capsys, export):
    file, site = tmp_path / export.file, tmp_path / "site"
    text = export.text
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = [*(("--tz", export.tz) if export.tz else ()), *(("--dates", export.dates) if export.dates else ())]
    code = command(file, "--site", site, *said)
    assert code == (3 if export.rejected else 0), capsys.readouterr().err
    place = next((site / "imports").iterdir())
    assert brought(place) == wanted(export.rows)
    assert sum(summary(place)["files"][0]["rejected"].values()) == export.rejected
    plant = load_plant(place / "plant.yaml")
    assert {tag: plant.by_name[tag].unit for tag, _ in map(_unit, export.units.split())} == dict(
        map(_unit, export.units.split())
    )


def _unit(text):
    tag, _, unit = text.partition("=")
    return tag, unit


# --- PI Web API


def _item(second, value, **flags):
    return {"Timestamp": f"2024-05-13T06:00:{second:02}.1234567Z", "Value": value, "Good": True, **flags}


RECORDED = [_item(0, 1.5), _item(1, 2, Questionable=True), _item(2, "Bad Input"), _item(3, 4.5)]
DIGITAL = [
    _item(0, {"Name": "Closed", "Value": 0, "IsSystem": False}),
    _item(1, {"Name": "Open", "Value": 1, "IsSystem": False}),
    _item(2, {"Name": "Shutdown", "Value": 254, "IsSystem": True}, Good=False),
    _item(3, {"Name": "Open", "Value": 1}),
]
WEB_API = {
    "streams recorded": ({"Links": {}, "Items": RECORDED, "UnitsAbbreviation": "bar"}, "T1"),
    "streamsets recorded": ({"Links": {}, "Items": [{"WebId": "x", "Name": "T1", "Items": RECORDED}]}, "T1"),
    "streamsets interpolated": (
        {"Items": [{"WebId": "x", "Name": "T1", "Path": "\\\\srv\\T1", "Items": RECORDED, "Links": {}}]},
        "T1",
    ),
    "a batch": ({"values": {"Status": 200, "Headers": {}, "Content": {"Items": RECORDED}}}, "T1"),
    "a bare list": (RECORDED, "T1"),
}


@pytest.mark.parametrize("form", WEB_API)
def test_an_answer_of_the_pi_web_api(tmp_path, form):
    data, tag = WEB_API[form]
    (tmp_path / "T1.json").write_text(json.dumps(data), encoding="utf-8-sig")
    assert command(tmp_path / "T1.json", "--site", tmp_path / "site") == 0
    assert brought(tmp_path / "site" / "imports" / "T1") == wanted(f"""{tag} 2024-05-13T06:00:00.1234567Z 1.5 G
        {tag} 2024-05-13T06:00:01.1234567Z 2 U
        {tag} 2024-05-13T06:00:02.1234567Z - B
        {tag} 2024-05-13T06:00:03.1234567Z 4.5 G""")


def test_digital_states_of_the_pi_web_api(tmp_path):
    (tmp_path / "XV1.json").write_text(json.dumps({"Items": DIGITAL}))
    assert command(tmp_path / "XV1.json", "--site", tmp_path / "site") == 0
    place = tmp_path / "site" / "imports" / "XV1"
    assert brought(place) == wanted("""XV1 2024-05-13T06:00:00.1234567Z 0 G
        XV1 2024-05-13T06:00:01.1234567Z 1 G
        XV1 2024-05-13T06:00:02.1234567Z - B
        XV1 2024-05-13T06:00:03.1234567Z 1 G""")
    assert summary(place)["states"] == {"XV1": {"shutdown": 1}}


def test_the_latest_values_of_a_stream_set(tmp_path):
    items = [{"Name": tag, "Value": _item(0, value)} for tag, value in (("A", 1.0), ("B", 2.0))]
    (tmp_path / "snap.json").write_text(json.dumps({"Items": items}))
    assert command(tmp_path / "snap.json", "--site", tmp_path / "site") == 0
    assert brought(tmp_path / "site" / "imports" / "snap") == wanted("""A 2024-05-13T06:00:00.1234567Z 1 G
        B 2024-05-13T06:00:00.1234567Z 2 G""")


# --- Parquet


def test_parquet_with_an_index_of_time_labels_and_many_nulls_like_3w(tmp_path):
    frame = pl.DataFrame(
        {
            "P-PDG": [1.5, None, 3.5, None],
            "T-TPT": pl.Series([None] * 4, dtype=pl.Float64),
            "QGL": [0.0, 1.0, 2.0, 3.0],
            "class": pl.Series([0, None, 101, 1], dtype=pl.Int16),
            "timestamp": pl.from_epoch(pl.Series(range(1715580000, 1715580004)), "s"),
        }
    )
    frame.write_parquet(tmp_path / "WELL-1.parquet")
    assert command(tmp_path / "WELL-1.parquet", "--site", tmp_path / "site", "--tz", "UTC") == 0
    assert brought(tmp_path / "site" / "imports" / "WELL-1") == wanted("""P-PDG 2024-05-13T06:00:00Z 1.5 G
        P-PDG 2024-05-13T06:00:02Z 3.5 G
        QGL 2024-05-13T06:00:00Z 0 G
        QGL 2024-05-13T06:00:01Z 1 G
        QGL 2024-05-13T06:00:02Z 2 G
        QGL 2024-05-13T06:00:03Z 3 G""")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_parquet_long_with_stamps_of_each_unit(tmp_path, unit):
    stamps = pl.Series([1715580000123, 1715580001000]).cast(pl.Datetime("ms")).cast(pl.Datetime(unit))
    pl.DataFrame({"Tag": ["A", "A"], "Time": stamps, "Value": ["1.5", "Bad Input"]}).write_parquet(
        tmp_path / "x.parquet"
    )
    assert command(tmp_path / "x.parquet", "--site", tmp_path / "site", "--tz", "Europe/Berlin") == 0
    assert brought(tmp_path / "site" / "imports" / "x") == wanted("""A 2024-05-13T04:00:00.123Z 1.5 G
        A 2024-05-13T04:00:01Z - B""")


def test_parquet_of_one_tag_with_epoch_numbers(tmp_path):
    frame = pl.DataFrame({"timestamp": [1715580000000, 1715580001500], "value": [1.5, 2.5], "quality": [192, 64]})
    frame.write_parquet(tmp_path / "FT7.parquet")
    assert command(tmp_path / "FT7.parquet", "--site", tmp_path / "site") == 0
    assert brought(tmp_path / "site" / "imports" / "FT7") == wanted("""FT7 2024-05-13T06:00:00Z 1.5 G
        FT7 2024-05-13T06:00:01.5Z 2.5 U""")


# --- what is no export


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("e.csv", b"tag,timestamp,value\n", "no rows below its header"),
        ("e.xlsx", b"PK\x03\x04" + bytes(100), "save its sheet as CSV"),
        ("e.csv", b"tag~timestamp~value\nA~2024-05-13T06:00:00Z~1\n", "looked for semicolon, tab, bar, comma"),
    ],
)
def test_it_is_said_what_to_do_and_nothing_is_left(tmp_path, capsys, file, content, message):
    (tmp_path / file).write_bytes(content)
    assert command(tmp_path / file, "--site", tmp_path / "site") == 1
    assert f"{file}: " in (said := capsys.readouterr().err)
    assert message in said
    assert not any((tmp_path / "site" / "imports").iterdir())
    assert command(tmp_path, "--site", tmp_path / "site") == 1
    assert "a folder; name the files in it" in capsys.readouterr().err
