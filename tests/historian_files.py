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
