"""One hour of a small line as each historian would export it; what a file cannot say is left out of it."""

import math
from datetime import UTC, datetime, timedelta

START = datetime(2024, 5, 13, 6, 0, 0, tzinfo=UTC)
STEP_S = 10
ROWS = 360
TAGS = {"TT101": ("degC", "Slaker temperature"), "FT101": ("m3/h", "Water flow"), "LT101": ("%", "Slaker level")}


def stamp(i: int) -> datetime:
    return START + timedelta(seconds=STEP_S * i)


def number(tag: str, i: int) -> float:
    phase = {"TT101": 0.0, "FT101": 1.0, "LT101": 2.0}[tag]
    return round(50.0 + 10.0 * math.sin(i / 40.0 + phase) + (i * 7919 % 13) / 100.0, 3)


def rows(tags=tuple(TAGS)):
    return [(tag, i, stamp(i), number(tag, i)) for i in range(ROWS) for tag in tags]


def pi_csv(text="%Y-%m-%dT%H:%M:%SZ", special=None):
    lines = [f"{tag},{t.strftime(text)},{(special or {}).get((tag, i), v)}" for tag, i, t, v in rows()]
    return "\n".join(["tag,timestamp,value", *lines]) + "\n"


def wide_csv(separator=",", text="%Y-%m-%dT%H:%M:%SZ", decimal="."):
    header = [
        separator.join(["Timestamp", *TAGS]),
        separator.join(["Unit", *(unit for unit, _ in TAGS.values())]),
        separator.join(["Description", *(words for _, words in TAGS.values())]),
    ]
    lines = [
        separator.join([stamp(i).strftime(text), *(str(number(tag, i)).replace(".", decimal) for tag in TAGS)])
        for i in range(ROWS)
    ]
    return "\n".join([*header, *lines]) + "\n"


def web_api(tag, special=None):
    """An answer of streams/{webId}/recorded; ``special`` replaces fields of the value at a row."""
    items = [
        {
            "Timestamp": f"{stamp(i):%Y-%m-%dT%H:%M:%S}.0000000Z",
            "Value": number(tag, i),
            "UnitsAbbreviation": TAGS[tag][0],
            "Good": True,
            "Questionable": False,
            "Substituted": False,
            "Annotated": False,
            **(special or {}).get(i, {}),
        }
        for i in range(ROWS)
    ]
    return {"Links": {}, "Items": items, "UnitsAbbreviation": ""}


def proficy_csv():
    lines = [f"{tag},{t:%m/%d/%y %H:%M:%S},{v},{'Bad' if i == 9 else 'Good'}" for tag, i, t, v in rows()]
    tags = [f"{tag},{words},{unit},100,0" for tag, (unit, words) in TAGS.items()]
    return "\n".join(
        [
            "* Proficy Historian export",
            "[Tags]",
            "Tagname,Description,EngineeringUnits,HiEngineeringUnits,LoEngineeringUnits",
            *tags,
            "",
            "[Data]",
            "Tagname,TimeStamp,Value,DataQuality",
            "* values",
            *lines,
            "",
            "[Alarms]",
            "AlarmID,ItemID",
            "17,TT101",
            "",
        ]
    )


def proficy_etl():
    return "".join(
        f"{int(t.timestamp())}:76000000,{tag},{v},Float,{'BAD' if i == 9 else 'GOOD'}\n" for tag, i, t, v in rows()
    )


def aveva_csv():
    lines = []
    for tag, i, t, v in rows():
        value, quality, detail, opc = {9: ("", 1, 249, 0), 10: (v, 16, 64, 64)}.get(i, (v, 0, 192, 192))
        lines.append(f"{t:%Y-%m-%d %H:%M:%S}.0000000,{tag},{value},{quality},{detail},{opc}")
    return "\n".join(["DateTime,TagName,Value,Quality,QualityDetail,OPCQuality", *lines]) + "\n"


def ignition_table():
    lines = [f"{tag},,{v},,,{0 if i == 9 else 192},{int(t.timestamp() * 1000)}" for tag, i, t, v in rows()]
    return "\n".join(["tagpath,intvalue,floatvalue,stringvalue,datevalue,dataintegrity,t_stamp", *lines]) + "\n"


def ignition_wide():
    lines = [
        ",".join([str(int(stamp(i).timestamp() * 1000)), *(str(number(tag, i)) for tag in TAGS)]) for i in range(ROWS)
    ]
    return "\n".join([",".join(["t_stamp", *TAGS]), *lines]) + "\n"
