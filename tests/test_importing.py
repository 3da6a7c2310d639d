import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from connectors.historian.rows import SCHEMA
from fusion.cli import main
from fusion.errors import ConfigError, HistorianError
from fusion.importing.importer import ImportConfig, import_files
from fusion.importing.spool import Spool, cut
from fusion.plant import Role
from fusion.plant_file import load_plant
from fusion.recordings.recording import Recording
from fusion.records import Columns, Quality
from fusion.timeline.history import process_grid
from fusion.timeline.timeline import Timeline
from fusion.training.ticks import ticks
from tests import historian_files as files

NS = 1_000_000_000


def table_of(place) -> pl.DataFrame:
    """All values of an import once, in order of time: those that are held over from stretch to stretch aside."""
    parts = [Recording(path).table() for path in sorted((place / "recordings").iterdir())]
    return pl.concat(parts).filter(pl.col("clock") == "historian").drop("received_ns", "clock")


def summary(place):
    import json

    return json.loads((place / "import.json").read_text())


def bring(tmp_path, text, name="export.csv", **settings):
    file = tmp_path / name
    if isinstance(text, bytes):
        file.write_bytes(text)
    else:
        file.write_text(text)
    return import_files([str(file)], tmp_path / "site", ImportConfig(**settings))


def assert_the_hour(place, tags=tuple(files.TAGS)):
    """Every value of the hour, at its time, once."""
    table = table_of(place)
    for tag in tags:
        found = table.filter(pl.col("signal") == tag).sort("t_ns")
        assert found["t_ns"].to_list() == [int(files.stamp(i).timestamp()) * NS for i in range(files.ROWS)]
        assert found["value"].to_list() == pytest.approx([files.number(tag, i) for i in range(files.ROWS)])
    assert len(table) == files.ROWS * len(tags)


# --- PI long CSV and wide CSV


def test_a_long_export_becomes_recordings_and_a_plant(tmp_path):
    place = bring(tmp_path, files.pi_csv())
    assert_the_hour(place)
    plant = load_plant(tmp_path / "site" / "plant.yaml")
    assert [s.name for s in plant.signals] == list(files.TAGS)
    assert plant.step_s == 10.0
    for path in (place / "recordings").iterdir():
        recording = Recording(path)
        recording.verify()
        assert recording.plant.fingerprint == plant.fingerprint
        assert len(ticks(recording)) > 0


def test_bad_states_are_masked_by_name_and_those_that_inform_are_kept_as_classes(tmp_path):
    special = {
        ("TT101", 5): "Over Range",
        ("TT101", 6): "UNDER RANGE",
        ("TT101", 7): "Shutdown",
        ("FT101", 5): "I/O Timeout",
        ("FT101", 6): "Calc Failed",
        ("FT101", 7): '"[-11059] No Good Data For Calculation"',
        ("LT101", 5): "Pt Created",
        ("LT101", 6): "",
        ("LT101", 7): "Manual mode",
    }
    place = bring(tmp_path, files.pi_csv(special=special), parts=1)
    table, states = table_of(place), Recording(next((place / "recordings").iterdir())).states()
    bad = table.filter(pl.col("quality") == int(Quality.BAD))
    assert len(bad) == len(states) == 9
    assert bad["value"].is_nan().all()
    assert not (table["value"] == 0.0).any()
    assert dict(states.select("text", "state").filter(pl.col("text") != "").iter_rows()) == {
        "Over Range": "over_range",
        "UNDER RANGE": "under_range",
        "Shutdown": "shutdown",
        "I/O Timeout": "instrument",
        "Calc Failed": "calculation",
        "[-11059] No Good Data For Calculation": "calculation",
        "Pt Created": "no_data",
        "Manual mode": "foreign_state",
    }


BAD_STATES = """
No Data, Bad Input, I/O Timeout, Intf Shut, Pt Created, Arc Off-line, Calc Failed, Calc Off, Scan Off, Configure,
Shutdown, Bad, Bad Data, Bad Output, Bad Total, Not Connect, Comm Fail, Out of Serv, Over Range, Under Range,
Equip Fail, Unit Down, DCS failed, Set to Bad, Invalid Float, No Sample, No Result, Trace, Doubtful, Substituted,
DST Forward, DST Back, Access Denied, No events found., #REF!, #N/A, MISSING, NODATA, BAD, NAN, +INF
"""


def test_every_bad_state_seen_in_exports_is_known_by_name(tmp_path):
    names = [name.strip() for name in BAD_STATES.replace("\n", " ").split(",")]
    place = bring(tmp_path, files.pi_csv(special={("TT101", i): name for i, name in enumerate(names)}), parts=1)
    bad = table_of(place).filter(pl.col("quality") == int(Quality.BAD))
    assert bad["value"].is_nan().sum() == len(bad) == len(names)
    states = Recording(next((place / "recordings").iterdir())).states()
    assert sorted(states["text"]) == sorted(names)
    assert "foreign_state" not in set(states["state"])


def test_a_tag_of_texts_is_digital_with_codes_in_the_plant(tmp_path):
    lines = [f"XV001,2024-05-13T06:{i:02}:00Z,{'Open' if i % 3 else 'Closed'}" for i in range(60)]
    place = bring(tmp_path, files.pi_csv() + "\n".join(lines) + "\nXV001,2024-05-13T06:00:30Z,Bad Input\n")
    found = table_of(place).filter(pl.col("signal") == "XV001")
    assert set(found.filter(pl.col("quality") == 2)["value"]) == {0.0, 1.0}
    assert found.filter(pl.col("quality") == 0)["t_ns"].to_list() == [int(files.START.timestamp() + 30) * NS]
    assert load_plant(tmp_path / "site" / "plant.yaml").by_name["XV001"].description == "0=Closed, 1=Open"


def test_a_state_set_gives_the_codes_and_its_own_states_are_good(tmp_path):
    sets = tmp_path / "sets.csv"
    sets.write_text("srv,MODES,Off,Shutdown,Auto\nsrv,VALVE,Closed,Open,Moving\n")
    lines = [f"MODE,2024-05-13T06:{i:02}:00Z,{('Off', 'Shutdown', 'Auto')[i % 3]}" for i in range(60)]
    place = bring(tmp_path, files.pi_csv() + "\n".join(lines) + "\n", states=sets)
    found = table_of(place).filter(pl.col("signal") == "MODE").sort("t_ns")
    assert found["value"].to_list() == [float(i % 3) for i in range(60)]
    assert (found["quality"] == 2).all()


def test_a_wide_export_with_three_header_rows(tmp_path):
    place = bring(tmp_path, files.wide_csv())
    assert_the_hour(place)
    plant = load_plant(tmp_path / "site" / "plant.yaml")
    assert plant.by_name["TT101"].unit == "Cel"
    assert plant.by_name["FT101"].description == "Water flow"


def test_semicolon_decimal_comma_and_day_first(tmp_path):
    assert_the_hour(bring(tmp_path, files.wide_csv(";", "%d.%m.%Y %H:%M:%S", ","), tz="UTC"))


def test_pairs_of_value_and_quality(tmp_path):
    lines = ["Time,TT101,TT101.Quality,FT101,"]
    lines += [f"{files.stamp(i):%Y-%m-%d %H:%M:%S},{i},{'Bad' if i == 3 else 'Good'},{i / 2},Good" for i in range(60)]
    table = table_of(bring(tmp_path, "\n".join(lines), tz="UTC"))
    assert set(table["signal"]) == {"TT101", "FT101"}
    assert table.filter(pl.col("quality") == 0)["value"].to_list() == [3.0]


# --- time


def test_the_repeated_hour_is_told_apart_and_the_missing_hour_refused(tmp_path):
    naive = [datetime.fromtimestamp(1_729_987_200 + 600 * i, UTC) for i in range(24)]  # 00:00 UTC of the change
    from zoneinfo import ZoneInfo

    berlin = [t.astimezone(ZoneInfo("Europe/Berlin")).strftime("%d-%b-%y %H:%M:%S") for t in naive]
    lines = [f"{tag},{t},{i}" for tag in ("A", "B") for i, t in enumerate(berlin)]
    text = "\n".join(["tag,timestamp,value", *lines, "A,31-Mar-24 02:30:00,7"])
    place = bring(tmp_path, text, tz="Europe/Berlin")
    table = table_of(place).sort("signal", "t_ns")
    assert table["t_ns"].to_list() == [int(t.timestamp()) * NS for t in naive] * 2
    assert table["value"].to_list() == list(map(float, range(24))) * 2
    assert "does not exist in Europe/Berlin" in (place / "rejects.csv").read_text()
    assert summary(place)["files"][0]["ambiguous"] == 0


def test_stamps_without_a_zone_need_one(tmp_path):
    with pytest.raises(HistorianError, match="no zone.*--tz Europe/Berlin"):
        bring(tmp_path, files.pi_csv("%Y-%m-%d %H:%M:%S"))
    assert not any((tmp_path / "site" / "imports").iterdir())


def test_mixed_zones_are_refused(tmp_path):
    text = files.pi_csv("%Y-%m-%d %H:%M:%S").replace("06:30", "06:30:00+02:00,", 1)
    lines = files.pi_csv().splitlines()
    mixed = "\n".join(line[:-1].replace("Z,", ",") if i % 2 else line for i, line in enumerate(lines))
    assert text != mixed
    with pytest.raises(HistorianError, match="mixed time zones: .* carry an offset"):
        bring(tmp_path, mixed, tz="UTC")


def test_days_and_months_that_cannot_be_told_apart_are_asked_for(tmp_path):
    text = "tag,time,value\n" + "\n".join(f"A,05/06/2024 {h:02}:{m:02},{m}" for h in range(4) for m in range(60))
    with pytest.raises(HistorianError, match="say --dates day-first"):
        bring(tmp_path, text, tz="UTC")
    place = bring(tmp_path, text, tz="UTC", dates="day-first")
    assert datetime.fromtimestamp(table_of(place)["t_ns"].min() / 1e9, UTC).month == 6


@pytest.mark.parametrize("by_tag", [True, False])
def test_a_clock_that_was_set_back_is_found_whatever_the_order_of_rows(tmp_path, by_tag):
    def stamped(i):
        return files.stamp(i if i < 200 else i - 30)

    rows = files.rows()
    if by_tag:
        rows.sort(key=lambda row: row[0])
    lines = [f"{tag},{stamped(i).isoformat()},{v}" for tag, i, _, v in rows]
    place = bring(tmp_path, "\n".join(["tag,timestamp,value", *lines]))
    (report,) = summary(place)["files"]
    assert report["backwards"] == len(files.TAGS)
    assert report["furthest_back_s"] == 29 * files.STEP_S
    assert report["furthest_back_ns"] == int(files.stamp(199).timestamp()) * NS
    assert "3, up to 290 s, at 2024-05-13 06:33:10" in (place / "report.html").read_text()


def test_newest_rows_first_are_no_clock_that_jumps(tmp_path):
    head, *lines = files.pi_csv().splitlines()
    place = bring(tmp_path, "\n".join([head, *reversed(lines)]))
    assert_the_hour(place)
    assert summary(place)["files"][0]["backwards"] == 0


# --- one path with live data


def test_the_same_hour_as_file_and_as_live_samples_gives_the_same_frames(tmp_path):
    special = {("TT101", 100): "Bad", ("FT101", 200): "Over Range"}
    place = bring(tmp_path, files.pi_csv(special=special), parts=1)
    recording = Recording(next((place / "recordings").iterdir()))
    timeline, grids = Timeline(recording.plant), []
    names = tuple(files.TAGS)
    for i in range(files.ROWS):
        t = int(files.stamp(i).timestamp()) * NS
        bad = [(tag, i) in special for tag in names]
        timeline.push(
            Columns(
                signals=names,
                index=np.arange(3, dtype=np.int32),
                t_ns=np.full(3, t),
                received_ns=np.full(3, t + 30_000_000),
                value=np.where(bad, np.nan, [files.number(tag, i) for tag in names]),
                quality=np.where(bad, 0, 2).astype(np.uint8),
                clock="plc",
            )
        )
        grids.append(timeline.advance_process(t + 40_000_000))
    grids.append(timeline.flush_process())
    live = {
        int(t): (v.tolist(), o.tolist(), a.tolist())
        for g in grids
        for t, v, o, a in zip(g.t_ns, g.value, g.observed, g.age_s, strict=True)
    }
    grid = process_grid(recording)
    past = {
        int(t): (v.tolist(), o.tolist(), a.tolist())
        for t, v, o, a in zip(grid.t_ns, grid.value, grid.observed, grid.age_s, strict=True)
    }
    both = sorted(set(live) & set(past))
    assert len(both) >= files.ROWS - 2
    assert all(live[t] == past[t] for t in both)


# --- size


def test_a_stray_stamp_decades_away_does_not_put_all_rows_into_one_stretch(tmp_path):
    spool, rows, most = Spool(tmp_path / "spool"), 200_000, 20_000
    t_ns = 1_715_580_000 * NS + np.arange(rows) * NS
    t_ns[0] = 400_000_000 * NS
    spool.append(
        pl.DataFrame(
            {"signal": ["A"] * rows, "t_ns": t_ns, "value": 1.0, "quality": 2, "state": None, "text": None},
            schema=SCHEMA,
        )
    )
    spans = list(cut(spool.survey(), 12, most))
    sizes = [len(spool.between(start, end)) for start, end in spans]
    assert sum(sizes) == rows
    assert max(sizes) <= most + 4096
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_ten_rows_a_second_for_a_few_seconds(tmp_path):
    lines = [f"A,2024-05-13T06:00:{i // 10:02}.{i % 10}Z,{i}" for i in range(60)]
    place = bring(tmp_path, "\n".join(["tag,timestamp,value", *lines]))
    assert table_of(place)["value"].to_list() == list(map(float, range(60)))


# --- bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("tag,timestamp,value\n", "time stamps|no rows"),
        ("just a letter\nto the plant\n", "no columns found.*semicolon"),
        ("a;b;c\nd;e;f\ng;h;i\n", "format not recognised; looked for a header line"),
        (b"\x00\x01\x02\x03" * 100, "not text"),
    ],
)
def test_what_is_no_export_is_refused_and_nothing_is_left(tmp_path, text, message):
    with pytest.raises(HistorianError, match=message):
        bring(tmp_path, text)
    assert not any((tmp_path / "site" / "imports").iterdir())
    assert not (tmp_path / "site" / "plant.yaml").exists()


def test_lines_that_cannot_be_read_are_counted_named_and_kept(tmp_path):
    text = files.pi_csv() + "TT101,never,1\nTT101,2024-05-13T09:00:00Z,1,2,3\n"
    place = bring(tmp_path, text)
    assert_the_hour(place)
    assert summary(place)["files"][0]["rejected"] == {"time stamp cannot be read": 1, "more fields than columns": 1}
    assert "export.csv,1082,time stamp cannot be read" in (place / "rejects.csv").read_text()


def test_repeated_rows_count_once_and_conflicts_take_the_later(tmp_path):
    text = files.pi_csv()
    first = int(files.START.timestamp()) * NS
    place = bring(tmp_path, text + "\n".join(text.splitlines()[1:100]) + "\nTT101,2024-05-13T06:00:00Z,99\n")
    table = table_of(place)
    assert len(table) == files.ROWS * 3
    assert table.filter((pl.col("signal") == "TT101") & (pl.col("t_ns") == first))["value"].item() == 99.0
    assert (summary(place)["repeated"], summary(place)["conflicting"]) == (100, 1)


def test_a_tag_that_is_missing_in_the_second_file_is_said(tmp_path):
    later = files.pi_csv().replace("2024-05-13", "2024-05-14")
    (tmp_path / "a.csv").write_text(files.pi_csv())
    (tmp_path / "b.csv").write_text("\n".join(x for x in later.splitlines() if not x.startswith("LT101")))
    place = import_files([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], tmp_path / "site")
    assert "LT101" in summary(place)["missing"]["b.csv"]


def test_a_tag_in_two_columns_is_refused(tmp_path):
    with pytest.raises(HistorianError, match="two columns are called 'TT101'"):
        bring(tmp_path, files.wide_csv().replace("FT101", "TT101"))


def test_tags_without_a_usable_value_are_refused_with_what_was_there(tmp_path):
    with pytest.raises(HistorianError, match="no tag has a single usable value: 60 x instrument"):
        bring(tmp_path, "tag,time,value\n" + "".join(f"A,2024-01-01T00:{i:02}:00Z,Bad\n" for i in range(60)))


def test_a_name_stays_in_the_site():
    with pytest.raises(ConfigError, match="--name: '../../other' is not accepted"):
        ImportConfig(name="../../other")


def test_a_unit_that_changes_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text(files.wide_csv())
    (tmp_path / "b.csv").write_text(files.wide_csv().replace("2024-05-13", "2024-05-14").replace("degC", "degF"))
    with pytest.raises(HistorianError, match=r"unit of tag TT101 changes from 'Cel' to '\[degF\]'"):
        import_files([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], tmp_path / "site")
    assert not any((tmp_path / "site" / "imports").iterdir())


def test_an_import_can_be_run_again_and_a_corrected_plant_stays(tmp_path):
    place = bring(tmp_path, files.pi_csv())
    plant = tmp_path / "site" / "plant.yaml"
    plant.write_text(plant.read_text().replace("role: measured", "role: controlled", 1))
    made = (place / "import.json").stat().st_mtime_ns
    assert import_files([str(tmp_path / "export.csv")], tmp_path / "site") == place
    assert (place / "import.json").stat().st_mtime_ns == made
    with pytest.raises(HistorianError, match="exists already .* --again"):
        bring(tmp_path, files.pi_csv() + "TT101,2024-05-13T09:00:00Z,1\n")
    place = bring(tmp_path, files.pi_csv(), again=True)
    assert Recording(next((place / "recordings").iterdir())).plant.signals[0].role is Role.CONTROLLED


def test_a_plant_that_knows_none_of_the_tags_is_refused(tmp_path):
    bring(tmp_path, files.pi_csv())
    with pytest.raises(ConfigError, match="none of its signals"):
        bring(tmp_path, files.pi_csv().replace("101", "999"), name="other.csv")


def test_a_disk_that_fills_leaves_nothing_behind(tmp_path):
    (tmp_path / "export.csv").write_text(files.pi_csv())
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192));"
        "from fusion.cli import main; sys.exit(main(['import', *sys.argv[1:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "export.csv"), "--site", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the disk is full or its quota reached while importing; nothing was kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any((tmp_path / "site" / "imports").iterdir())


def test_what_a_killed_import_left_is_cleared_by_the_next(tmp_path):
    left = tmp_path / "site" / "imports" / "export.partial" / "work"
    left.mkdir(parents=True)
    (left / "half.arrow").write_bytes(b"half")
    assert_the_hour(bring(tmp_path, files.pi_csv()))
    assert [path.name for path in (tmp_path / "site" / "imports").iterdir()] == ["export"]


def test_the_verb_says_where_the_import_is(tmp_path, capsys):
    (tmp_path / "export.csv").write_text(files.pi_csv())
    assert main(["import", str(tmp_path / "export.csv"), "--site", str(tmp_path / "site")]) == 0
    assert "report.html" in capsys.readouterr().out
    assert main(["import", "nowhere.csv", "--site", str(tmp_path / "site")]) == 1
    assert "nowhere.csv: no such file" in capsys.readouterr().err


# --- labels


def labelled_csv(rows=4000, faults=((700, 900), (1990, 2100)), pause=(3000, 500)):
    """A wide export at a second with a label; one of its events lies where twelve parts would be cut."""
    lines = ["time;TT1;FT1;anomaly;changepoint"]
    for i in range(rows):
        wrong = any(start <= i < end for start, end in faults) or i == rows - 1
        t = datetime.fromtimestamp(1_600_000_000 + i + (pause[1] if i >= pause[0] else 0), UTC)
        lines.append(f"{t:%Y-%m-%d %H:%M:%S};{20 + i % 7};{3 + i % 5};{float(wrong)};{float(i == 700)}")
    return "\n".join(lines)


def test_a_label_is_no_tag_but_the_truth_of_recordings(tmp_path, caplog):
    place = bring(tmp_path, labelled_csv(), tz="UTC", labels=("anomaly",))
    recordings = [Recording(path) for path in sorted((place / "recordings").iterdir())]
    start = 1_600_000_000 * NS
    events = [(e.name, (e.onset_ns - start) // NS, (e.end_ns - start) // NS) for r in recordings for e in r.events]
    assert events == [("anomaly", 700, 900), ("anomaly", 1990, 2100), ("anomaly", 4499, 4500)]
    assert {r.kind for r in recordings if r.events} == {"labelled"}
    assert {r.kind for r in recordings if not r.events} == {"normal"}
    assert set(load_plant(tmp_path / "site" / "plant.yaml").by_name) == {"TT1", "FT1"}
    assert set(table_of(place)["signal"].unique()) == {"TT1", "FT1"}
    assert len(table_of(place)) == 2 * 4000
    assert "left out, such as changepoint" in caplog.text


def test_what_looks_like_a_label_is_named_where_it_is_a_signal(tmp_path, caplog):
    bring(tmp_path, labelled_csv(), tz="UTC")
    assert "changepoint: only 0 and 1, and called like a label: --label changepoint" in caplog.text


def labelled_run(file, start_s, rows=600, fault=(400, 500)):
    """A wide export of its own at a second with a label."""
    lines = ["time;TT1;FT1;anomaly"]
    for i in range(rows):
        t = datetime.fromtimestamp(start_s + i, UTC)
        lines.append(f"{t:%Y-%m-%d %H:%M:%S};{20 + i % 7};{3 + i % 5};{float(fault[0] <= i < fault[1])}")
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(lines))
    return str(file)


def test_each_labelled_file_is_a_run_and_they_are_called_by_their_folder(tmp_path):
    starts = [1_600_000_000, 1_600_000_600, 1_600_090_000]
    files = [labelled_run(tmp_path / "trials" / f"{i}.csv", start) for i, start in enumerate(starts)]
    place = import_files(files[::-1], tmp_path / "Rig 7", ImportConfig(tz="UTC", labels=("anomaly",)))
    recordings = [Recording(path) for path in sorted((place / "recordings").iterdir())]
    assert place.name == "trials"
    assert load_plant(tmp_path / "Rig 7" / "plant.yaml").name == "rig-7"
    assert [(r.kind, r.span_ns[0] // NS) for r in recordings] == [("labelled", start) for start in starts]
    assert [
        (e.onset_ns // NS - s, e.end_ns // NS - s) for s, r in zip(starts, recordings, strict=True) for e in r.events
    ] == [(400, 500)] * 3


def test_labelled_files_that_share_a_time_are_cut_by_time(tmp_path):
    files = [labelled_run(tmp_path / "trials" / f"{i}.csv", 1_600_000_000 + i) for i in range(2)]
    config = ImportConfig(tz="UTC", labels=("anomaly",), parts=3, accept_losses=True)
    place = import_files(files, tmp_path / "site", config)
    assert len(list((place / "recordings").iterdir())) == 3


def test_a_fault_on_both_sides_of_a_short_pause_is_one(tmp_path):
    text = labelled_csv(faults=((2900, 3100),), pause=(3000, 60))
    place = bring(tmp_path, text, tz="UTC", labels=("anomaly",), parts=1)
    (recording,) = (place / "recordings").iterdir()
    start = 1_600_000_000 * NS
    assert [(e.onset_ns - start) // NS for e in Recording(recording).events] == [2900, 4059]


def test_a_label_ends_where_the_rows_pause(tmp_path):
    place = bring(tmp_path, labelled_csv(faults=((2900, 3000), (3100, 3200))), tz="UTC", labels=("anomaly",), parts=1)
    (recording,) = (place / "recordings").iterdir()
    start = 1_600_000_000 * NS
    ends = [((e.onset_ns - start) // NS, (e.end_ns - start) // NS) for e in Recording(recording).events]
    assert ends == [(2900, 3000), (3600, 3700), (4499, 4500)]


@pytest.mark.parametrize(
    ("label", "said"),
    [("anomly", "--label anomly: no column is called so; expected one of FT1"), ("state", "holds texts; expected")],
)
def test_a_label_that_cannot_be_one_is_refused(tmp_path, label, said):
    rows = [f"2026-11-0{i % 9 + 1} 00:00:00;{i};{'on' if i % 2 else 'off'}" for i in range(9)]
    with pytest.raises(HistorianError, match=said):
        bring(tmp_path, "\n".join(["time;FT1;state", *rows]), tz="UTC", labels=(label,))


def test_what_comes_next_fits_what_was_imported(tmp_path, capsys):
    (tmp_path / "export.csv").write_text(labelled_csv())
    arguments = ["import", str(tmp_path / "export.csv"), "--site", str(tmp_path / "s"), "--tz", "UTC"]
    assert main([*arguments, "--label", "anomaly"]) == 0
    assert "fusion train --recording" in capsys.readouterr().out
    assert main([*arguments, "--name", "faults", "--kind", "fault"]) == 0
    assert "fusion evaluate --model" in capsys.readouterr().out
