"""Exports that people have and that no format description promises: what is damaged costs itself and is said."""

import json
from decimal import Decimal

import polars as pl
import pytest

from fusion.plant_file import load_plant
from tests import historian_files as files
from tests.test_historian_exports import brought, command
from tests.test_importing import summary, table_of

LOSSY = 3


def bring(tmp_path, content, *said, name="export.csv"):
    """The import of one file by the command, and its exit code."""
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = command(file, "--site", tmp_path / "site", *said)
    return tmp_path / "site" / "imports" / name.split(".")[0], code


def stamp(i):
    return f"2024-05-13T06:{i // 60:02}:{i % 60:02}Z"


def long(rows=60, tags=("A", "B"), line="{tag},{t},{v},{tag} in the field"):
    made = [line.format(tag=tag, t=stamp(i), v=10 * n + i % 7 + 0.5) for i in range(rows) for n, tag in enumerate(tags)]
    return ["Tag,Timestamp,Value,Description", *made]


def values(place, tag):
    return table_of(place).filter(pl.col("signal") == tag).sort("t_ns")["value"].to_list()


# --- separators


@pytest.mark.parametrize("tags", [(r"\\AF\Mill|Feed", r"\\AF\Mill|Current"), ("Loop;1", "Loop;2"), ("a|b;c", "a|b;d")])
@pytest.mark.parametrize("header", [True, False])
def test_a_separator_that_stands_in_every_name_cuts_nothing(tmp_path, tags, header):
    lines = long(tags=tags, line="{tag},{t},{v}")
    lines[0] = "Tag,Timestamp,Value"
    place, code = bring(tmp_path, "\n".join(lines[0 if header else 1 :]))
    assert code == 0
    assert {tag: len(values(place, tag)) for tag in tags} == dict.fromkeys(tags, 60)


def test_the_separator_that_excel_is_told(tmp_path):
    lines = ["sep=;", "Time;A|x;B|x", *(f"{stamp(i)};{i},5;{i}" for i in range(20))]
    place, code = bring(tmp_path, "\r\n".join(lines))
    assert code == 0
    assert values(place, "A|x") == [i + 0.5 for i in range(20)]


# --- quotes, line breaks, bytes


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_with_line_breaks_keeps_all_its_columns(tmp_path, end):
    head = 'Timestamp,"TT101\n[°C]",PT101,"FT101\n\n(t/h)","LT101"'
    place, code = bring(tmp_path, end.join([head, *(f"{stamp(i)},{i},{i + 1},{i + 2},{i + 3}" for i in range(30))]))
    assert code == 0
    plant = load_plant(place / "plant.yaml")
    assert {s.name: s.unit for s in plant.signals} == {"TT101": "Cel", "PT101": "1", "FT101": "t/h", "LT101": "1"}
    assert values(place, "LT101") == [float(i + 3) for i in range(30)]


def test_a_description_with_a_line_break_is_one_record_and_later_rows_keep_their_numbers(tmp_path):
    lines = long()
    lines[10] = lines[10].replace("B in the field", '"B in\nthe field"')
    lines[40] = "A,never,1,x"
    place, code = bring(tmp_path, "\n".join(lines))
    assert (code, summary(place)["files"][0]["rejected"]) == (LOSSY, {"time stamp cannot be read": 1})
    assert "export.csv,42," in (place / "rejects.csv").read_text()
    assert summary(place)["rows"] == 119


@pytest.mark.parametrize(
    ("cell", "lost"),
    [
        ('Flow 12" header', 0),
        ('12" valve', 0),
        ('"Flow 12" header"', 0),
        ('"Flow ""12"" header"', 0),
        ('"12" valve', 1),
        ('"never closed', 1),
        ("Flow\0header", 1),
        ("Flow\rheader", 0),
    ],
)
def test_one_odd_cell_costs_its_own_row_at_most(tmp_path, cell, lost):
    lines = long(rows=300)
    lines[301] = lines[301].replace("B in the field", cell).replace("A in the field", cell)
    place, code = bring(tmp_path, "\n".join(lines) + "\n")
    assert code == (LOSSY if lost else 0)
    assert summary(place)["rows"] == 600 - lost
    assert ("export.csv,302," in (place / "rejects.csv").read_text()) == bool(lost)


def test_two_rows_in_one_line_parted_by_a_carriage_return_are_both_read(tmp_path):
    lines = long()
    place, code = bring(tmp_path, "\n".join([*lines[:10], lines[10] + "\r" + lines[11], *lines[12:]]))
    assert (code, summary(place)["rows"]) == (0, 120)


@pytest.mark.parametrize("end", ["\r", "\r\r\n", "\n\r\n"])
def test_unusual_line_ends(tmp_path, end):
    place, code = bring(tmp_path, end.join(long()) + end)
    assert (code, summary(place)["rows"]) == (0, 120)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(tmp_path, encoding):
    place, code = bring(tmp_path, "\r\n".join(long()).encode(encoding))
    assert (code, summary(place)["rows"]) == (0, 120)


def test_a_tail_that_was_never_written(tmp_path):
    place, code = bring(tmp_path, "\n".join(long()).encode() + b"\n" + bytes(4096))
    assert code == LOSSY
    assert summary(place)["files"][0]["rejected"] == {"NUL bytes": 1}
    assert summary(place)["rows"] == 120


# --- series told apart by another column


def test_series_that_another_column_tells_apart(tmp_path):
    lines = ["name,site,time,value"]
    lines += [f"temperature,{s},{stamp(i)},{50 * n + i}" for i in range(60) for n, s in enumerate(("north", "south"))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == 0
    assert values(place, "temperature.south") == [50.0 + i for i in range(60)]


def test_a_column_of_numbers_names_no_series_unless_it_is_said(tmp_path):
    lines = ["tag,time,value,ms", *(f"A,{stamp(i // 5)},{100 + i / 10},{200 * (i % 5)}" for i in range(300))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert (code, set(table_of(place)["signal"])) == (LOSSY, {"A"})
    place, code = bring(tmp_path, "\n".join(lines), "--series", "ms", "--again", "--plant", str(place / "plant.yaml"))
    assert code == 2  # the plant knows none of these tags


def test_a_column_of_series_that_is_not_there_is_named(tmp_path, capsys):
    _, code = bring(tmp_path, "\n".join(long()), "--series", "Site")
    assert code == 2
    assert "--series: there is no column 'Site'; expected some of Tag, Timestamp" in capsys.readouterr().err
    _, code = bring(tmp_path, "Time,A,B\n" + "\n".join(f"{stamp(i)},{i},{i}" for i in range(9)), "--series", "A")
    assert code == 2
    assert "is wide CSV; expected a table with a column of tags" in capsys.readouterr().err


def test_series_in_blocks_are_refused_and_the_column_is_named(tmp_path, capsys):
    lines = ["name,place,time,value"]
    times = [f"2024-05-13T{6 + i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}Z" for i in range(12_000)]
    lines += [f"t,{s},{t},{5000 * n + i + i % 3 / 7:.3f}" for n, s in enumerate("ab") for i, t in enumerate(times)]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == 1
    assert "several series under one name; say --series with the column" in (said := capsys.readouterr().err)
    assert "place" in said
    assert not place.exists()
    place, code = bring(tmp_path, "\n".join(lines), "--series", "place")
    assert code == 0
    assert set(table_of(place)["signal"]) == {"t.a", "t.b"}


def test_values_quicker_than_their_stamps_are_one_series_and_the_later_counts(tmp_path, capsys):
    lines = ["tag,time,value", *(f"A,{stamp(i // 5)},{100 + i / 10}" for i in range(600))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == LOSSY
    assert values(place, "A") == [100 + (5 * i + 4) / 10 for i in range(120)]
    assert "480 rows have a tag and time of a later row with another value" in capsys.readouterr().err
    assert summary(place)["conflicting"] == 480
    assert command(tmp_path / "export.csv", "--site", tmp_path / "site", "--accept-losses") == 0


# --- numbers


def test_numbers_that_nothing_can_be_are_masked_and_sentinels_are_offered(tmp_path, caplog):
    odd = {5: "1.7976931348623157e308", 6: "-1e200", 7: "3.4028235e38", 20: "-9999", 21: "-9999"}
    lines = [f"A,{stamp(i)},{odd.get(i, 50 + i % 7)}" for i in range(60)]
    text = "\n".join(["tag,time,value", *lines])
    place, code = bring(tmp_path, text)
    assert code == 0
    assert summary(place)["states"] == {"A": {"absurd": 3}}
    assert summary(place)["sentinels"] == {"A": {"-9999": 2}}
    assert "A: 3 numbers beyond all that is measured" in caplog.text
    assert "3 numbers beyond all that is measured" in (place / "report.html").read_text()
    assert "--bad -9999" in caplog.text
    assert "-9999 stands 2 times" in (place / "report.html").read_text()
    assert load_plant(place / "plant.yaml").by_name["A"].low > 0
    place, _ = bring(tmp_path, text, "--bad", "-9999", "--again")
    assert summary(place)["states"] == {"A": {"absurd": 3, "sentinel": 2}}
    assert (table_of(place)["quality"] == 0).sum() == 5


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,0142E-05", 1.0142e-05),
        ("-1,5e3", -1500.0),
        ("\u22121,25", -1.25),
        ("1.234,5E+02", 123450.0),
        ("1,234E-05", 1.234e-05),
        ("1 234,5", 1234.5),
        ("1,25D-03", 1.25e-3),
    ],
)
def test_a_decimal_comma_with_an_exponent_is_a_number(tmp_path, text, number):
    lines = ["Zeit;Tag;Wert", *(f"13.05.2024 08:00:{i:02};VAC;{text}" for i in range(30))]
    place, code = bring(tmp_path, "\n".join(lines), "--tz", "UTC")
    assert code == 0
    assert values(place, "VAC") == pytest.approx([number] * 30)


def test_a_tag_with_as_many_texts_as_rows_is_no_tag_of_states(tmp_path, capsys):
    lines = long(rows=60, line="{tag},{t},{v},")
    lines += [f"BATCH,{stamp(i)},lot {i}," for i in range(60)]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == LOSSY
    assert summary(place)["digital"] == {}
    assert (
        "BATCH: 60 texts such as 'lot 0' are numbers with units, or one a row, and no states" in capsys.readouterr().err
    )
    assert "BATCH" in (place / "report.html").read_text()


# --- quality under other names


def quality_file(header, good, bad):
    return "\n".join(
        [f"Tag,Timestamp,Value,{header}", *(f"A,{stamp(i)},{i},{good if i % 4 else bad}" for i in range(60))]
    )


@pytest.mark.parametrize(
    ("header", "good", "bad"),
    [
        ("Validity", "1", "-1"),
        ("valid", "1", "0"),
        ("Gültigkeit", "gültig", "ungültig"),
        ("Qualität", "gut", "schlecht"),
        ("Qualité", "Bon", "Mauvais"),
        ("Calidad", "192", "0"),
        ("качество", "хорошее", "плохое"),
        ("品質", "良", "不良"),
        ("Qualità", "valido", "non valido"),
        ("Zustand", "Good", "Bad"),
        ("xq7", "192", "24"),
        ("Datenqualität", "OK", "Störung"),
        ("StatusCode", "0x00000000", "0x80340000"),
        ("StatusCode", "Good", "BadSensorFailure"),
        ("Status", "GoodClamped", "BadNoData"),
        ("VALID_FLAG", "Y", "N"),
        ("Gültig", "WAHR", "FALSCH"),
        ("qc_flag", "1", "4"),
        ("quality", "1", "0"),
    ],
)
def test_quality_by_its_name_in_other_languages_or_by_what_stands_in_it(tmp_path, header, good, bad):
    place, code = bring(tmp_path, quality_file(header, good, bad))
    assert code == 0
    table = table_of(place).sort("t_ns")
    assert table["quality"].to_list() == [2 if i % 4 else 0 for i in range(60)]


def test_a_quality_column_of_a_wide_file_in_another_language(tmp_path):
    lines = ["Zeit,A,A Gültigkeit,B", *(f"{stamp(i)},{i},{1 if i % 4 else 0},{i}" for i in range(60))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == 0
    assert (table_of(place)["quality"] == 0).sum() == 15
    assert {s.name for s in load_plant(place / "plant.yaml").signals} == {"A", "B"}


def test_a_status_of_unknown_words_is_not_taken_for_quality(tmp_path, capsys):
    place, code = bring(tmp_path, quality_file("Status", "Running", "Stopped"))
    assert code == LOSSY
    assert "columns not read: Status" in capsys.readouterr().err
    assert (table_of(place)["quality"] == 2).all()


def test_two_columns_of_one_name_and_two_units_are_two_tags(tmp_path):
    lines = ["Datum;Uhrzeit;A [bar];A [°C];B", *(f"13.05.2024;08:00:{i:02};{i},5;{i};{i}" for i in range(60))]
    place, code = bring(tmp_path, "\n".join(lines), "--tz", "UTC")
    assert code == 0
    assert set(table_of(place)["signal"]) == {"A [bar]", "A [°C]", "B"}


def test_one_quality_behind_all_values_is_that_of_the_row(tmp_path):
    lines = ["Time,A,B,Validity", *(f"{stamp(i)},{i},{i},{1 if i % 4 else -1}" for i in range(60))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == 0
    bad = table_of(place).filter(pl.col("quality") == 0)
    assert bad["signal"].value_counts().sort("signal").rows() == [("A", 15), ("B", 15)]


def test_a_column_that_nothing_is_known_of_is_named_everywhere(tmp_path, capsys):
    place, code = bring(tmp_path, quality_file("Mystery", "17.5", "33"))
    assert code == LOSSY
    assert "columns not read: Mystery" in capsys.readouterr().err
    assert summary(place)["files"][0]["unread"] == ["Mystery"]
    assert "Mystery" in (place / "report.html").read_text()
    assert command(tmp_path / "export.csv", "--site", tmp_path / "site", "--accept-losses") == 0


def test_a_column_without_a_name_that_holds_something_is_said(tmp_path, capsys):
    _, code = bring(tmp_path, "\n".join(["Time,A,", *(f"{stamp(i)},{i},{i}" for i in range(20))]))
    assert code == LOSSY
    assert "column 3, which has no name" in capsys.readouterr().err


# --- stamps


@pytest.mark.parametrize("odd", ["1970-01-01T00:00:00Z", "1989-12-31T00:00:00Z", "2099-01-01T00:00:00Z"])
def test_a_stamp_that_no_plant_can_have_is_said(tmp_path, capsys, odd):
    lines = long()
    lines[7] = f"A,{odd},1,x"
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == LOSSY
    assert "1 x time stamp outside 1990 to tomorrow" in capsys.readouterr().err
    assert "export.csv,8," in (place / "rejects.csv").read_text()


@pytest.mark.parametrize(
    ("epoch", "of"),
    [
        ("dotnet", lambda s: 621_355_968_000_000_000 + s * 10**7),
        ("filetime", lambda s: 116_444_736_000_000_000 + s * 10**7),
        ("labview", lambda s: 2_082_844_800 + s),
        ("excel-1904", lambda s: 24_107 + s / 86_400),
        ("excel", lambda s: 25_569 + s / 86_400),
    ],
)
def test_numbers_that_count_from_another_time_only_where_it_is_said(tmp_path, epoch, of):
    start = 1_715_580_000
    text = "\n".join(["tag,time,value", *(f"A,{of(start + 864 * i)!r},{i}" for i in range(20))])
    place, code = bring(tmp_path, text, "--tz", "UTC", "--epoch", epoch)
    assert code == 0
    assert table_of(place)["t_ns"].to_list() == [(start + 864 * i) * 10**9 for i in range(20)]
    _, code = bring(tmp_path, text, "--tz", "UTC", "--again")
    if epoch == "excel-1904":
        assert code == 0  # four years earlier, and nothing in the file says so
        assert table_of(place)["t_ns"][0] != start * 10**9
    else:
        assert code == (0 if epoch == "excel" else 1)


def test_a_status_that_is_no_quality_is_a_tag(tmp_path):
    states = ("Running", "Stopped", "Cleaning")
    lines = ["Time,SPEED,Status", *(f"{stamp(i)},{i},{states[i % 3]}" for i in range(60))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == 0
    assert summary(place)["digital"] == {"Status": {"Cleaning": 0, "Running": 1, "Stopped": 2}}
    assert (table_of(place)["quality"] == 2).all()


# --- Parquet


def parquet(**columns):
    times = pl.from_epoch(pl.Series("time", range(1_715_580_000, 1_715_580_060)), "s").dt.replace_time_zone("UTC")
    return pl.DataFrame({"time": times, **columns})


def test_parquet_columns_of_every_type(tmp_path, capsys):
    n = range(60)
    frame = parquet(
        CAT=pl.Series(["AUTO" if i % 3 else "MAN" for i in n], dtype=pl.Categorical),
        ENUM=pl.Series(["On" if i % 2 else "Off" for i in n], dtype=pl.Enum(["Off", "On"])),
        DEC=pl.Series([Decimal(i) / 8 for i in n], dtype=pl.Decimal(12, 3)),
        FLAG=[bool(i % 2) for i in n],
        line=[float(i) for i in n],
        why=[float(i) for i in n],
        STRUCT=[{"a": 1.0}] * 60,
        LIST=[[1.0, 2.0]] * 60,
        BIN=[b"x"] * 60,
        DATE=pl.Series([19_000 + i for i in n], dtype=pl.Int32).cast(pl.Date),
        DUR=pl.Series(list(n), dtype=pl.Int64).cast(pl.Duration("ms")),
        TIME=pl.Series(list(n), dtype=pl.Int64).cast(pl.Time),
        NONE=[None] * 60,
    )
    frame.write_parquet(tmp_path / "x.parquet")
    assert command(tmp_path / "x.parquet", "--site", tmp_path / "site") == LOSSY
    said = capsys.readouterr().err
    assert "STRUCT (struct), LIST (list), BIN (binary), DATE (date), DUR (duration), TIME (time)" in said
    place = tmp_path / "site" / "imports" / "x"
    assert values(place, "CAT") == [0.0 if i % 3 else 1.0 for i in n]
    assert values(place, "ENUM") == [float(i % 2) for i in n]
    assert values(place, "DEC") == [i / 8 for i in n]
    assert values(place, "FLAG") == [float(i % 2) for i in n]
    assert values(place, "line") == values(place, "why") == [float(i) for i in n]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"tag": ["A"] * 60, "value": [{"a": 1.0}] * 60},
            "column 'value' is of type struct; expected numbers or texts",
        ),
        ({"S": [[1.0]] * 60}, "no column of numbers or texts; it has S (list)"),
    ],
)
def test_parquet_without_a_value_that_can_be_read_says_so(tmp_path, capsys, columns, message):
    parquet(**columns).write_parquet(tmp_path / "x.parquet")
    assert command(tmp_path / "x.parquet", "--site", tmp_path / "site") == 1
    assert message in capsys.readouterr().err


def test_labels_are_no_loss_and_are_said(tmp_path, caplog):
    parquet(A=[float(i) for i in range(60)], state=[0] * 60).write_parquet(tmp_path / "x.parquet")
    assert command(tmp_path / "x.parquet", "--site", tmp_path / "site") == 0
    assert "no values of tags, and not read: state" in caplog.text


def test_parquet_long_with_categories_and_a_column_of_dates_as_time(tmp_path):
    days = pl.Series([19_000 + i for i in range(20)], dtype=pl.Int32).cast(pl.Date)
    tags = pl.Series(["A"] * 20, dtype=pl.Categorical)
    pl.DataFrame({"tag": tags, "time": days, "value": [float(i) for i in range(20)]}).write_parquet(
        tmp_path / "x.parquet"
    )
    assert command(tmp_path / "x.parquet", "--site", tmp_path / "site", "--tz", "UTC") == 0
    assert len(brought(tmp_path / "site" / "imports" / "x")) == 20


def test_what_was_lost_stands_in_the_summary_for_programs(tmp_path):
    place, _ = bring(tmp_path, files.pi_csv() + "TT101,never,1\n")
    (said,) = json.loads((place / "import.json").read_text())["losses"]
    assert "1 rows cannot be read, see rejects.csv: 1 x time stamp cannot be read" in said
