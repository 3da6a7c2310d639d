"""Exports of programs that are no historians: WinCC, Grafana, InfluxDB, Excel."""

import pytest

from fusion.plant_file import load_plant
from tests.test_historian_damaged import bring, stamp, values
from tests.test_importing import summary, table_of

NS = 1_715_580_000


def signals(place):
    return set(table_of(place)["signal"])


def test_a_data_log_of_wincc(tmp_path):
    lines = ['"VarName";"TimeString";"VarValue";"Validity";"Time_ms"']
    lines += [
        f'"{tag}";"13.05.2024 08:00:{i:02}";{i},25;{int(i != 5)};45425333{i:03},3333' for i in range(60) for tag in "TP"
    ]
    lines.append('"$RT_OFF$";"13.05.2024 09:00:00";0;2;45425375000,0000')
    place, code = bring(tmp_path, "\r\n".join(lines), "--tz", "Europe/Berlin")
    assert code == 0
    assert signals(place) == {"T", "P"}
    assert values(place, "T") == [i + 0.25 for i in range(60)]
    assert (table_of(place)["quality"] == 0).sum() == 2


def test_what_sqlcmd_puts_around_rows_is_no_loss(tmp_path):
    lines = ["tag,time,value", "---,----,-----", *(f"A,{stamp(i)},{i}" for i in range(20)), "", "(20 rows affected)"]
    place, code = bring(tmp_path, "\n".join(lines))
    assert (code, len(values(place, "A"))) == (0, 20)


@pytest.mark.parametrize("first", ["", "sep=,\r\n"])
def test_series_of_grafana_joined_by_time(tmp_path, first):
    lines = [
        '"Time","TT101 {site=""north"", a=""b""}","P"',
        *(f'"{stamp(i)}",{i}.5,{i if i % 3 else ""}' for i in range(60)),
    ]
    place, code = bring(tmp_path, first + "\r\n".join(lines))
    assert code == 0
    assert signals(place) == {'TT101 {site="north", a="b"}', "P"}
    assert len(values(place, "P")) == 40


def test_series_of_grafana_as_rows(tmp_path):
    lines = ["Series;Time;Value", *(f"{tag};{stamp(i)};{i}.5" for tag in ("TT101", "PT101") for i in range(60))]
    place, code = bring(tmp_path, "\n".join(lines))
    assert (code, signals(place)) == (0, {"TT101", "PT101"})
    assert values(place, "PT101") == [i + 0.5 for i in range(60)]


def wide_of(text):
    return "\n".join(["Time,A,B", *(f"{stamp(i)},{text(i)},{i}" for i in range(60))])


def test_numbers_with_a_unit_behind_as_grafana_formats_them(tmp_path):
    place, code = bring(tmp_path, wide_of(lambda i: f"{i % 5}.5 °C"))
    assert code == 0
    assert values(place, "A") == [i % 5 + 0.5 for i in range(60)]
    assert load_plant(place / "plant.yaml").by_name["A"].unit == "Cel"


def test_numbers_that_are_scaled_from_value_to_value_are_not_mixed(tmp_path, capsys):
    _, code = bring(tmp_path, wide_of(lambda i: "980 Pa" if i % 3 else "1.02 kPa"), name="units.csv")
    assert code == 1
    assert "the unit of tag A changes from" in capsys.readouterr().err
    place, code = bring(tmp_path, wide_of(lambda i: f"{i % 5}.5 K"), name="scaled.csv")
    assert code == 3
    assert summary(place)["digital"] == {}
    assert "A: 5 texts such as '0.5 K' are numbers with units" in capsys.readouterr().err
    text = "\n".join(["tag,time,value", *(f"A,{stamp(i)},{i % 5}.5 K" for i in range(60))])
    _, code = bring(tmp_path, text, name="alone.csv")
    assert code == 1
    assert "0.5 K" in capsys.readouterr().err


def test_states_that_begin_with_a_number_are_states(tmp_path):
    place, code = bring(tmp_path, wide_of(lambda i: ("0 Off", "1 Auto", "2nd stage")[i % 3]))
    assert code == 0
    assert summary(place)["digital"] == {"A": {"0 Off": 0, "1 Auto": 1, "2nd stage": 2}}


def test_influxdb_command_line_with_tag_sets_and_fields_in_blocks(tmp_path):
    text = "".join(
        "name,tags,time,value,flow\n"
        + "".join(f'plant,"id={tag},site=north",{(NS + i) * 10**9},{i + n},{i}\n' for i in range(50))
        + "\n"
        for n, tag in enumerate("AB")
    )
    place, code = bring(tmp_path, text)
    assert code == 0
    keys = {f"plant,id={tag},site=north" for tag in "AB"}
    assert signals(place) == keys | {f"{key} flow" for key in keys}
    assert values(place, "plant,id=B,site=north") == [float(i + 1) for i in range(50)]


def test_influxdb_command_line_with_tags_as_columns(tmp_path):
    lines = ["name,time,host,user,system", *(f"cpu,{stamp(i)},{h},{i},{2 * i}" for i in range(50) for h in "ab")]
    place, code = bring(tmp_path, "\n".join(lines))
    assert code == 0
    assert signals(place) == {f"cpu,host={h} {field}" for h in "ab" for field in ("user", "system")}


HEADER = ",result,table,_start,_stop,_time,_value,_field,_measurement,id"
ANNOTATIONS = """#group,false,false,true,true,false,false,true,true,true
#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string
#default,_result,,,,,,,,"""


@pytest.mark.parametrize("annotated", [True, False])
def test_csv_of_flux(tmp_path, annotated):
    span = "2024-05-13T00:00:00Z,2024-05-14T00:00:00Z"
    tables = [
        "\n".join([*([ANNOTATIONS] if annotated else []), HEADER])
        + "".join(f"\n,,{n},{span},{stamp(i)},{i + n},{field},opcua,T1" for i in range(50))
        for n, field in enumerate(("value", "flow"))
    ]
    place, code = bring(tmp_path, "\n\n".join(tables) + "\n,,1,broken,row,of,too,many,cells,in,all\n")
    assert code == 3
    assert summary(place)["files"][0]["rejected"] == {"no header of time and values above": 1}
    assert signals(place) == {"opcua,id=T1", "opcua,id=T1 flow"}
    assert values(place, "opcua,id=T1 flow") == [float(i + 1) for i in range(50)]


def test_csv_of_flux_with_pivoted_fields(tmp_path):
    group = "#group,false,false,false,true,true,false,false"
    header = ",result,table,_time,_measurement,id,temp,flow"
    rows = [f",,0,{stamp(i)},m,A,{i},{2 * i}" for i in range(50)]
    place, code = bring(tmp_path, "\n".join([group, header, *rows]))
    assert (code, signals(place)) == (0, {"m,id=A temp", "m,id=A flow"})


def test_element_and_attribute_name_a_tag_together(tmp_path):
    lines = ["Element,Attribute,Timestamp,Value"]
    lines += [f"{e},{a},{stamp(i)},{i % 9}" for i in range(50) for e in ("Mill 1", "Mill 2") for a in ("Feed", "Load")]
    place, code = bring(tmp_path, "\n".join(lines))
    assert (code, signals(place)) == (0, {"Mill 1.Feed", "Mill 1.Load", "Mill 2.Feed", "Mill 2.Load"})
