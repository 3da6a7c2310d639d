"""InfluxDB exports in blocks: CSV of the 1.x command line, and CSV of Flux, as one table of series.

A series is called by its key as the line protocol writes it, `measurement,tag=value,...`, and by its field where that
is not `value`. Sources: InfluxDB 1.8 `influx -format csv`; InfluxDB 2 annotated CSV.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from connectors.historian.headers import VALUES
from connectors.historian.lines import lines_of, records, split, width_of

COLUMNS = ("tag", "time", "value")
REASON_NO_HEADER = "no header of time and values above"
_VALUES = frozenset(VALUES)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?i?|true|false|")
_FIELD = "value"
_OWN = ("", "result", "table")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Which column of the rows below a header is what; ``fields`` are columns by name, or one whose name is beside.

    ``undecided`` are columns of `SELECT *`: those with a number in the first row are fields, the others keys.
    """

    width: int
    time: int
    keys: tuple[tuple[str, int], ...]
    fields: tuple[tuple[str, int], ...]
    measurement: int | None
    field: int | None = None
    undecided: tuple[tuple[str, int], ...] = ()

    def decided(self, row: Sequence[str]) -> _Block:
        """The block as its first row tells."""
        numbers = tuple((name, i) for name, i in self.undecided if _NUMBER.fullmatch(row[i]))
        keys = tuple(item for item in self.undecided if item not in numbers)
        return replace(self, keys=self.keys + keys, fields=self.fields + numbers, undecided=())

    def series(self, row: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Key and value of each field of a row that has one."""
        tags = [row[i] if name == "tags" else f"{name}={row[i]}" for name, i in self.keys if row[i]]
        key = ",".join([*([row[self.measurement]] if self.measurement is not None else []), *tags])
        for column, i in self.fields:
            name = column if self.field is None else row[self.field]
            if row[i]:
                yield key if name == _FIELD and key else f"{key} {name}".strip(), row[i]


def _block(header: Sequence[str], group: Sequence[str] = ()) -> _Block | None:
    """The columns of a header line of InfluxDB, if it is one; ``group`` says which are of the key, where annotated."""
    place = {name.strip(): i for i, name in enumerate(header)}
    if [*place][:3] == ["name", "tags", "time"]:
        fields = tuple((name, i) for name, i in place.items() if i > 2)
        return _Block(width=len(header), time=2, keys=(("tags", 1),), fields=fields, measurement=0)
    if [*place][:2] == ["name", "time"] and len(place) > 2 and not _VALUES & place.keys():
        undecided = tuple((name, i) for name, i in place.items() if i > 1)
        return _Block(width=len(header), time=1, keys=(), fields=(), measurement=0, undecided=undecided)
    own = {name: i for name, i in place.items() if name not in _OWN and not name.startswith("_")}
    fields = tuple((name, i) for name, i in own.items() if i < len(group) and group[i] == "false")
    if "_time" not in place or not ("_value" in place or fields):
        return None
    if "_value" in place:
        fields = ((_FIELD, place["_value"]),)
    return _Block(
        width=len(header),
        time=place["_time"],
        keys=tuple(item for item in own.items() if item not in fields),
        fields=fields,
        measurement=place.get("_measurement"),
        field=place.get("_field") if "_value" in place else None,
    )


def unfold(file: Path, aside: Path, lines: Sequence[str]) -> Path | None:
    """A copy with a row for each value of a file that begins with ``lines``; None where it is not of InfluxDB.

    Its cells are number and reason as in ``lines.write_records``, then ``COLUMNS``.
    """
    cut = [split(line, ",") or [""] for line in lines if line.strip()]
    group = next((row for row in cut if row[0] == "#group"), [])
    if not any(_block(row, group) for row in cut[:5]):
        return None
    copy = aside / (file.name + ".series")
    with copy.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(_rows(file, width_of(lines, ",")[0]))
    return copy


def _rows(file: Path, width: int) -> Iterator[tuple[object, ...]]:
    block, group = None, list[str]()
    for record in records(lines_of(file), ",", width):
        row = record.cells
        if row[0].startswith("#"):
            block, group = None, row if row[0] == "#group" else group
        elif not record.why and (found := _block(row, group)):
            block = found
        elif record.why or (any(row) and (block is None or len(row) > block.width)):
            yield record.first, record.why or REASON_NO_HEADER, ",".join(row), "", ""
        elif block is not None and any(row):
            row += [""] * (block.width - len(row))
            block = block.decided(row) if block.undecided else block
            for key, value in block.series(row):
                yield record.first, "", key, row[block.time], value
