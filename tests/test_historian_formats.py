import gzip
import json

import polars as pl
import pytest

from connectors.historian.detect import LOOKED_FOR
from fusion.errors import HistorianError
from fusion.importing.importer import ImportConfig, import_files
from fusion.plant_file import load_plant
from fusion.recordings.recording import Recording
from tests import historian_files as files
from tests.test_importing import NS, assert_the_hour, bring, summary, table_of


def bad_rows(place):
    """Tick number by quality BAD."""
    table = table_of(place).filter(pl.col("quality") == 0)
    return sorted({(t // NS - int(files.START.timestamp())) // files.STEP_S for t in table["t_ns"]})


def test_pi_web_api_streams_flags_and_digital_states(tmp_path):
    system = {"Name": "I/O Timeout", "Value": 246, "IsSystem": True}
    special = {
        3: {"Questionable": True},
        4: {"Substituted": True},
        5: {"Good": False},
        6: {"Value": system, "Good": False},
        7: {"Value": {"Name": "Over Range", "Value": 312, "IsSystem": True}, "Good": False},
    }
    valve = [
        {
            "Timestamp": f"{files.stamp(i):%Y-%m-%dT%H:%M:%SZ}",
            "Value": {"Name": ("Off", "On")[i % 2], "Value": i % 2, "IsSystem": False},
            "Good": True,
        }
        for i in range(20)
    ]
    one, many = tmp_path / "TT101.json", tmp_path / "set.json"
    one.write_text(json.dumps(files.web_api("TT101", special)))
    streams = [{"WebId": "x", "Name": tag, "Items": files.web_api(tag)["Items"]} for tag in ("FT101", "LT101")]
    many.write_text(json.dumps({"Links": {}, "Items": [*streams, {"Name": "XV001", "Items": valve}]}))
    place = import_files([str(one), str(many)], tmp_path / "site", ImportConfig(parts=1))
    table = table_of(place)
    assert_hour = table.filter(pl.col("signal") == "LT101")["value"].to_list()
    assert assert_hour == pytest.approx([files.number("LT101", i) for i in range(files.ROWS)])
    temperature = table.filter(pl.col("signal") == "TT101").sort("t_ns")
    assert temperature["quality"].to_list()[2:9] == [2, 1, 1, 0, 0, 0, 2]
    assert table.filter(pl.col("signal") == "XV001")["value"].to_list() == [float(i % 2) for i in range(20)]
    states = Recording(next((place / "recordings").iterdir())).states()
    assert sorted(states["state"]) == ["instrument", "over_range"]
    plant = load_plant(tmp_path / "site" / "plant.yaml")
    assert plant.by_name["TT101"].unit == "Cel"
    assert plant.by_name["XV001"].description == "0=Off, 1=On"


def test_proficy_blocks(tmp_path):
    place = bring(tmp_path, files.proficy_csv(), tz="UTC")
    assert_the_hour(place)
    assert bad_rows(place) == [9]
    signal = load_plant(tmp_path / "site" / "plant.yaml").by_name["FT101"]
    assert (signal.unit, signal.low, signal.high, signal.description) == ("m3/h", 0.0, 100.0, "Water flow")


def test_proficy_etl(tmp_path):
    place = bring(tmp_path, files.proficy_etl())
    assert bad_rows(place) == [9]
    assert table_of(place)["t_ns"].min() == int(files.START.timestamp()) * NS + 76_000_000


def test_aveva_quality_and_detail(tmp_path):
    place = bring(tmp_path, files.aveva_csv(), tz="UTC")
    table = table_of(place).sort("signal", "t_ns")
    assert bad_rows(place) == [9]
    assert table["quality"].to_list()[8:12] == [2, 0, 1, 2]
    assert summary(place)["files"][0]["format"] == "AVEVA Historian"


def test_ignition_table_and_wide(tmp_path):
    place = bring(tmp_path, files.ignition_table(), name="tall.csv")
    assert_the_hour(place)
    assert bad_rows(place) == [9]
    assert_the_hour(bring(tmp_path, files.ignition_wide(), name="wide.csv"))


@pytest.mark.parametrize(
    "text",
    [
        "%d-%b-%y %H:%M:%S",
        "%d-%b-%Y %H:%M:%S",
        "%m/%d/%Y %I:%M:%S %p",
        "%d/%m/%Y %H:%M:%S",
        "%d.%m.%y %H:%M:%S",
        "%Y/%m/%d %H:%M:%S",
        "%Y-%m-%d %H:%M:%S.000",
        "%Y-%m-%d %H:%M:%S+00:00",
    ],
)
def test_every_way_of_writing_a_time(tmp_path, text):
    assert_the_hour(bring(tmp_path, files.pi_csv(text), tz="UTC"))


def test_lines_without_a_header_in_either_order(tmp_path):
    body = files.pi_csv().splitlines()[1:]
    assert_the_hour(bring(tmp_path, "\n".join(body), name="a.csv"))
    swapped = [",".join([line.split(",")[1], line.split(",")[0], line.split(",")[2]]) for line in body]
    assert_the_hour(bring(tmp_path, "\n".join(swapped), name="b.csv"))


def test_date_and_time_in_two_columns_under_a_preamble(tmp_path):
    lines = ["Report of line 1", "made by the shift;;;;", ";;TT101;FT101;LT101", ";;degC;m3/h;%"]
    lines += [
        f"{files.stamp(i):%d.%m.%Y;%H:%M:%S};" + ";".join(str(files.number(t, i)).replace(".", ",") for t in files.TAGS)
        for i in range(files.ROWS)
    ]
    assert_the_hour(bring(tmp_path, "\n".join(lines), tz="UTC"))


def test_one_file_a_tag(tmp_path):
    for tag in files.TAGS:
        lines = [f"{t:%Y-%m-%dT%H:%M:%SZ},{v},Good" for name, i, t, v in files.rows() if name == tag]
        (tmp_path / f"{tag}.csv").write_text("\n".join(["Timestamp,Value,Quality", *lines]))
    place = import_files([str(tmp_path / f"{tag}.csv") for tag in files.TAGS], tmp_path / "site")
    assert_the_hour(place)
    assert summary(place)["missing"] == {}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    place = bring(tmp_path, files.wide_csv().replace("degC", "°C").encode(encoding))
    assert_the_hour(place)
    assert load_plant(place / "plant.yaml").by_name["TT101"].unit == "Cel"


def test_packed_text(tmp_path):
    assert_the_hour(bring(tmp_path, gzip.compress(files.pi_csv().encode()), name="export.csv.gz"))


def test_parquet_wide_with_labels_like_3w(tmp_path):
    frame = pl.DataFrame(
        {
            "timestamp": [files.stamp(i).replace(tzinfo=None) for i in range(files.ROWS)],
            **{tag: [files.number(tag, i) for i in range(files.ROWS)] for tag in files.TAGS},
            "T-JUS-CKGL": [None] * files.ROWS,
            "class": [0] * files.ROWS,
            "state": [0] * files.ROWS,
        },
        schema_overrides={"T-JUS-CKGL": pl.Float64},
    )
    frame.write_parquet(tmp_path / "well.parquet")
    place = import_files([str(tmp_path / "well.parquet")], tmp_path / "site", ImportConfig(tz="UTC"))
    assert_the_hour(place)
    assert summary(place)["files"][0]["empty"] == files.ROWS


def test_parquet_long_with_a_zone_and_quality(tmp_path):
    rows = files.rows()
    frame = pl.DataFrame(
        {
            "tag": [r[0] for r in rows],
            "time": [r[2] for r in rows],
            "value": [r[3] for r in rows],
            "quality": [0 if r[1] == 9 else 192 for r in rows],
        }
    )
    frame.write_parquet(tmp_path / "long.parquet")
    place = import_files([str(tmp_path / "long.parquet")], tmp_path / "site")
    assert_the_hour(place)
    assert bad_rows(place) == [9]


def test_an_unknown_format_says_what_was_looked_for(tmp_path):
    with pytest.raises(HistorianError) as error:
        bring(tmp_path, "a;b;c\nd;e;f\ng;h;i\n")
    assert LOOKED_FOR in str(error.value)
    with pytest.raises(HistorianError, match="begins like JSON and is not"):
        bring(tmp_path, '{"Items": [', name="x.json")
    with pytest.raises(HistorianError, match="no values in its JSON"):
        bring(tmp_path, '{"Items": []}', name="x.json")
