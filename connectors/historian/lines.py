"""Records of a text file: a quote may hold a line break; one that never closes costs its own line, not the file."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

LONGEST = 200  # lines of one record
REASON_QUOTE = "quote that is not closed"
REASON_NUL = "NUL bytes"
_STAMP = re.compile(r"\d:\d\d|\d{9,}|\d{4}-\d\d")
_ODD = (b"\0", b"\x1a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The cells of one record, its first and last line (from 1), and why it cannot be read, if so."""

    first: int
    last: int
    cells: list[str]
    why: str = ""


@cache
def _cell(separator: str) -> re.Pattern[str]:
    """A cell in quotes, with the text between them, or one without."""
    end = rf"(?={re.escape(separator)}|$)"
    return re.compile(rf' *"((?>(?:[^"]|""|"(?! *{end}))*))" *{end}|([^{re.escape(separator)}]*)')


def split(line: str, separator: str) -> list[str] | None:
    """The cells of a line, None where a quote stays open; a quote amid a cell, as in 12", is part of it."""
    if '"' not in line:
        return line.split(separator)
    found, at, cell = [], 0, _cell(separator)
    while match := cell.match(line, at):
        quoted, bare = match.groups()
        if quoted is None and bare.lstrip().startswith('"'):
            return None
        found.append(bare if quoted is None else quoted.replace('""', '"'))
        at = match.end() + 1
        if at > len(line):
            break
    return found


def width_of(lines: Iterable[str], separator: str) -> tuple[int, float]:
    """The number of cells that most lines have if it is above one, and their share."""
    counts = Counter(len(split(line, separator) or ()) for line in lines if line.strip())
    width, agree = max(((w, n) for w, n in counts.items() if w > 1), key=lambda wn: wn[1], default=(0, 0))
    return width, agree / max(1, counts.total())


class _Lines:
    """Numbered lines that can be looked at ahead."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = enumerate(lines, 1)
        self._ahead: deque[tuple[int, str]] = deque()

    def take(self) -> tuple[int, str] | None:
        return self._ahead.popleft() if self._ahead else next(self._lines, None)

    def give_back(self, lines: Sequence[tuple[int, str]]) -> None:
        self._ahead.extendleft(reversed(lines))


def records(lines: Iterable[str], separator: str, width: int) -> Iterator[Record]:
    """Lines without their ends as records of about ``width`` cells."""
    source = _Lines(lines)
    while (item := source.take()) is not None:
        number, line = item
        if "\0" in line:
            yield Record(first=number, last=number, cells=[line.replace("\0", "")], why=REASON_NUL)
            continue
        for part in _parts(line, separator, width):
            found = split(part, separator)
            last = number
            if found is None:
                last, found = _joined(number, part, source, separator, width)
            yield Record(first=number, last=last, cells=found or [part], why="" if found else REASON_QUOTE)


def _parts(line: str, separator: str, width: int) -> list[str]:
    """A carriage return alone parts two rows where both are whole, and is a blank elsewhere."""
    if "\r" not in line:
        return [line]
    parts = line.split("\r")
    return parts if all(len(split(part, separator) or ()) == width for part in parts) else [" ".join(parts)]


def _joined(number: int, line: str, source: _Lines, separator: str, width: int) -> tuple[int, list[str] | None]:
    """The cells of a record of several lines, and its last line; nothing is taken where its quote never closes."""
    taken: list[tuple[int, str]] = []
    while len(taken) < LONGEST and (item := source.take()) is not None:
        taken.append(item)
        if "\0" in item[1] or (len(item[1].split(separator)) == width and _STAMP.search(item[1])):
            break
        line = f"{line} {item[1].strip()}"
        found = split(line, separator) if '"' in item[1] else None
        if found is not None:
            if len(found) <= width:
                return item[0], found
            break
    source.give_back(taken)
    return number, None


def lines_of(file: Path) -> Iterator[str]:
    """Lines of UTF-8 text without their ends; a carriage return within a line stays."""
    with file.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for line in stream:
            yield line.rstrip("\r\n\x1a")


def is_plain(file: Path, separator: str) -> tuple[bool, bool]:
    """Whether each line is a record that any reader cuts alike, and whether there are quotes."""
    quotes, before = False, b""
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            if any(odd in chunk for odd in _ODD) or (before + chunk[:1]).count(b"\r\n") < before.count(b"\r"):
                return False, True
            if chunk.count(b"\r") - chunk.endswith(b"\r") > chunk.count(b"\r\n"):
                return False, True
            quotes = quotes or b'"' in chunk
            before = chunk[-1:]
    if not quotes:
        return before != b"\r", False
    end = re.escape(separator)
    cell = rf'(?:"(?:[^"]|"")*"|[^"{end}]*)'
    line = pl.scan_lines(file, name="line").select(pl.col("line").str.contains(rf"^{cell}(?:{end}{cell})*\r?$").all())
    return bool(line.collect(engine="streaming").item()), True


def write_records(file: Path, copy: Path, separator: str, width: int, after: int, comment: str | None) -> None:
    """The records that begin after a line, one a line, each with its number and why it is refused in front."""
    with copy.open("w", encoding="utf-8") as out:
        for record in records(lines_of(file), separator, width):
            remark = comment is not None and record.cells[0].startswith(comment)
            if record.first > after and (record.why or any(record.cells)) and not remark:
                text = separator.join(_quoted(cell, separator) for cell in record.cells)
                out.write(f"{record.first}{separator}{record.why}{separator}{text}\n")


def _quoted(cell: str, separator: str) -> str:
    if '"' not in cell and separator not in cell:
        return cell
    return '"' + cell.replace('"', '""') + '"'
