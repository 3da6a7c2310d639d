"""Exports in blocks with names in brackets: Proficy `[Tags]`, `[Data]`, `[Alarms]`; ICONICS `[TimestampKind,UTC]`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from connectors.historian.rows import TagInfo
from connectors.historian.text import head, plain

_BLOCK = re.compile(r"^\s*\[(?P<name>[A-Za-z ]+)\]?(,.*)?\s*$")
DATA, TAGS = "data", "tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFile:
    """The data as a file of their own, ``offset`` lines into the original, and what the tag block says."""

    data: Path
    offset: int
    tags: Mapping[str, TagInfo] = field(default_factory=dict)


def cut_blocks(file: Path, aside: Path) -> BlockFile | None:
    """The data block of a file with blocks; None where it has none."""
    if not any((m := _BLOCK.match(line)) and plain(m["name"]) == DATA for line in head(file)):
        return None
    copy = aside / (file.name + ".data")
    tags: list[str] = []
    where, offset, order = "", 0, _Columns()
    with file.open(encoding="utf-8", errors="replace") as lines, copy.open("w", encoding="utf-8") as data:
        for number, line in enumerate(lines, 1):
            block = _BLOCK.match(line)
            if block:
                where = plain(block["name"])
                offset = offset or (number if where == DATA else 0)
                order = _Columns(order.first)
            elif where == DATA and line.strip():
                data.write(order.line(line))
            elif where == TAGS and line.strip() and not line.startswith("*"):
                tags.append(line)
    return BlockFile(data=copy, offset=offset, tags=_tags(tags))


@dataclass(slots=True)
class _Columns:
    """Lines of a data block in the order of columns of the first one; a header that is there already is dropped."""

    first: list[str] | None = None
    _places: list[int] | None = None
    _seen: bool = False

    def line(self, line: str) -> str:
        """The line as it is written."""
        if line.startswith("*") or (self._seen and self._places is None):
            return line
        row = next(csv.reader([line]), [])
        if self._places is not None:
            return _joined([row[i] if i < len(row) else "" for i in self._places] + row[len(self._places) :])
        self._seen, names = True, [plain(cell) for cell in row]
        if self.first is None:
            self.first = names
            return line
        if names != self.first:
            self._places = [names.index(name) if name in names else len(names) for name in self.first]
        return ""


def _joined(row: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _tags(lines: list[str]) -> dict[str, TagInfo]:
    """Unit, description and limits of tags from a table under its header line."""
    rows = list(csv.reader(lines))
    if len(rows) < 2:
        return {}
    header = [plain(cell) for cell in rows[0]]
    found = {}
    for row in rows[1:]:
        cell = dict(zip(header, (c.strip() for c in row), strict=False))
        if name := cell.get("tagname"):
            found[name] = TagInfo(
                unit=cell.get("engineeringunits", cell.get("engunits", "")),
                description=cell.get("description", ""),
                low=_number(cell.get("loengineeringunits", "")),
                high=_number(cell.get("hiengineeringunits", "")),
            )
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
