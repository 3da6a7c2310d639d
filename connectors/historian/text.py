"""Text files with columns: encoding, separator, decimal comma, a look at head and tail, rows in bounded batches."""

from __future__ import annotations

import codecs
import gzip
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import polars as pl

from connectors.historian.lines import is_plain, lines_of, split, width_of, write_records
from connectors.historian.rows import MORE, REFUSED
from fusion.errors import HistorianError

SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar", ",": "comma"}
NUMBER = "_number"
HEAD_LINES = 200
LOOKS, LOOK_BYTES = 6, 32_768
UTF16_NULS = 0.3
_SIGNS = re.compile(r"[\W_]+")
_DECIMAL_COMMA = re.compile(
    r"^[+\-\u2212]?(\d{1,3}([. '\u2019\u00a0\u202f]\d{3})+|\d+),(\d+)(?P<exponent>[eEdD][+-]?\d+)?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A text file with columns. ``line`` counts from 1; data begin after ``first`` lines of head.

    A ``copy`` holds the records that do not stand on a line each, or not as any reader would cut them.
    """

    file: Path
    name: str
    separator: str
    columns: tuple[str, ...]
    first: int
    decimal_comma: bool = False
    comment: str | None = None
    offset: int = 0
    quotes: bool = True
    copy: Path | None = None

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """All columns as text with ``line``, in ``_more`` what was beyond the columns, in ``_refused`` why not read.

        Raises:
            HistorianError: where the file cannot be read as such at all.
        """
        front = (NUMBER, REFUSED) if self.copy else ()
        scan = pl.scan_csv(
            self.copy or self.file,
            has_header=False,
            skip_lines=0 if self.copy else self.first,
            separator=self.separator,
            quote_char='"' if self.quotes else None,
            schema=dict.fromkeys((*front, *self.columns, MORE), pl.String),
            comment_prefix=None if self.copy else self.comment,
            truncate_ragged_lines=True,
            missing_columns="insert",
            glob=False,
        )
        blank = pl.all_horizontal(pl.col(*self.columns, *front[1:]).is_null())
        line = self.first + self.offset + 1
        try:
            for part in scan.collect_batches(chunk_size=rows, maintain_order=True):
                if self.copy:
                    number = (pl.col(NUMBER).cast(pl.Int64) + self.offset).alias("line")
                    batch = part.select(number, pl.exclude(NUMBER))
                else:
                    batch = part.with_row_index("line", line)
                line += len(batch)
                yield batch.filter(~blank) if batch[self.columns[0]].has_nulls() else batch
        except pl.exceptions.PolarsError as error:
            raise HistorianError(f"{self.name}: cannot be read as text ({str(error).splitlines()[0]})") from error


def lay_out(sheet: Sheet, aside: Path) -> Sheet:
    """The sheet with a copy of its records where the file itself cannot be read line by line."""
    plain_, quotes = is_plain(sheet.file, sheet.separator)
    if plain_:
        return replace(sheet, quotes=quotes)
    copy = aside / (sheet.file.name + ".records")
    write_records(sheet.file, copy, sheet.separator, len(sheet.columns), sheet.first, sheet.comment)
    return replace(sheet, copy=copy)


def as_utf8(file: Path, aside: Path) -> Path:
    """The file itself where it is UTF-8 text, else a copy beside the import that is.

    Raises:
        HistorianError: where it is empty, missing or not text.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(1 << 20)
    except OSError as error:
        raise HistorianError(f"{file}: cannot be read ({error.strerror})") from error
    if start[:2] == b"\x1f\x8b":
        return _unpacked(file, aside)
    if not start.strip():
        raise HistorianError(f"{file}: empty")
    encoding = _encoding(file, start)
    if not encoding.startswith("utf-16") and _has_mostly_nuls(start):
        raise HistorianError(
            f"{file}: not text, and not Parquet; looked for CSV in UTF-8, UTF-16 or Windows-1252, JSON"
        )
    returns_alone = b"\r" in start and b"\n" not in start
    return file if encoding == "utf-8" and not returns_alone else _recoded(file, aside, encoding, returns_alone)


def _has_mostly_nuls(start: bytes) -> bool:
    """Whether most lines have some: one damaged line, or a tail that was never written, makes no binary file."""
    lines = start.split(b"\n")
    return sum(b"\0" in line for line in lines) > len(lines) / 2


def _encoding(file: Path, start: bytes) -> str:
    """UTF-16 by its mark or its NULs, UTF-8 where all of the file is (or began to be), else Windows-1252."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    some = start[:4096]
    for encoding, high in (("utf-16-le", some[1::2]), ("utf-16-be", some[::2])):
        if high.count(0) > UTF16_NULS * len(some) and some.count(0) == high.count(0):
            return encoding
    decoder, utf8 = codecs.getincrementaldecoder("utf-8")(), start.startswith(codecs.BOM_UTF8)
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                if not chunk.isascii() or decoder.getstate()[0]:
                    decoder.decode(chunk)
                    utf8 = True
    except UnicodeDecodeError:
        return "utf-8-sig" if utf8 else "cp1252"
    return "utf-8-sig" if start.startswith(codecs.BOM_UTF8) else "utf-8"


def _unpacked(file: Path, aside: Path) -> Path:
    copy = aside / (file.stem + ".unpacked")
    try:
        with gzip.open(file, "rb") as packed, copy.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (EOFError, gzip.BadGzipFile) as error:
        raise HistorianError(f"{file}: damaged gzip file ({error})") from error
    return as_utf8(copy, aside)


def _recoded(file: Path, aside: Path, encoding: str, returns_alone: bool) -> Path:
    copy = aside / (file.name + ".utf8")
    with (
        file.open(encoding=encoding, errors="replace", newline=None if returns_alone else "") as text,
        copy.open("w", encoding="utf-8", newline="") as out,
    ):
        shutil.copyfileobj(text, out, 1 << 20)
    return copy


def head(file: Path) -> list[str]:
    """The first lines."""
    return list(islice(lines_of(file), HEAD_LINES))


def looks(file: Path) -> list[str]:
    """Whole lines from several places of the file, so that a sample knows more than the first hours."""
    size, found = file.stat().st_size, []
    for i in range(LOOKS):
        with file.open("rb") as stream:
            stream.seek(max(0, (size - LOOK_BYTES) * i // (LOOKS - 1)))
            lines = stream.read(LOOK_BYTES).decode("utf-8", errors="replace").split("\n")
        found += [line.rstrip("\r\x1a") for line in (lines[1:-1] if size > LOOK_BYTES else lines)]
        if size <= LOOK_BYTES:
            break
    return found


def cells(line: str, separator: str) -> list[str]:
    """The cells of one line; of one with a quote that stays open what its separators cut."""
    return split(line, separator) or line.split(separator)


def find_separators(name: str, lines: Sequence[str]) -> list[str]:
    """The characters that cut most lines into the same number of columns, the best first.

    Raises:
        HistorianError: where none gives two columns.
    """
    said = re.match(r"sep=(.)$", lines[0].strip())
    if said:
        return [said[1]]
    share = {separator: width_of(lines, separator)[1] for separator in SEPARATORS}
    found = sorted((s for s in share if share[s] >= 0.5), key=lambda s: -round(share[s], 1))
    if not found:
        wanted = ", ".join(SEPARATORS.values())
        raise HistorianError(f"{name}: no columns found in line {lines[-1][:60]!r}; looked for {wanted} as separator")
    return found


def has_decimal_comma(separator: str, values: Iterable[str]) -> bool:
    """Whether numbers have a comma; three digits after it alone may be thousands where the separator is a comma too."""
    found = [match for v in values if (match := _DECIMAL_COMMA.match(v.strip()))]
    return bool(found) and (separator != "," or any(len(match[3]) != 3 or match["exponent"] for match in found))


def plain(name: str) -> str:
    """A header word without case, accents, blanks and signs."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return _SIGNS.sub("", "".join(c for c in letters if not unicodedata.combining(c)))
