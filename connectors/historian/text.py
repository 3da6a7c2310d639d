"""Text files with columns: encoding, separator, decimal comma, a look at head and tail, rows in bounded batches."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from connectors.historian.rows import MORE
from fusion.errors import HistorianError

SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar", ",": "comma"}
HEAD_LINES = 200
LOOKS, LOOK_BYTES = 6, 32_768
_SIGNS = re.compile(r"[^a-z0-9]+")
_DECIMAL_COMMA = re.compile(r"^[+-]?(\d{1,3}(\.\d{3})+|\d+),(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A text file with columns. ``line`` counts from 1; data begin at ``first`` (lines before it are head)."""

    file: Path
    name: str
    separator: str
    columns: tuple[str, ...]
    first: int
    decimal_comma: bool = False
    comment: str | None = None
    offset: int = 0

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """All columns as text with ``line``, and in ``_more`` what was beyond the columns.

        Raises:
            HistorianError: where the file cannot be read as such at all.
        """
        scan = pl.scan_csv(
            self.file,
            has_header=False,
            skip_lines=self.first,
            separator=self.separator,
            schema=dict.fromkeys((*self.columns, MORE), pl.String),
            comment_prefix=self.comment,
            truncate_ragged_lines=True,
            missing_columns="insert",
            glob=False,
        )
        blank = pl.all_horizontal(pl.col(*self.columns).is_null())
        line = self.first + self.offset + 1
        try:
            for part in scan.collect_batches(chunk_size=rows, maintain_order=True):
                batch = part.with_row_index("line", line)
                line += len(batch)
                yield batch.filter(~blank) if batch[self.columns[0]].has_nulls() else batch
        except pl.exceptions.PolarsError as error:
            raise HistorianError(f"{self.name}: cannot be read as text ({str(error).splitlines()[0]})") from error


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
    if encoding != "utf-16" and b"\0" in start:
        raise HistorianError(
            f"{file}: not text, and not Parquet; looked for CSV in UTF-8, UTF-16 or Windows-1252, JSON"
        )
    return file if encoding == "utf-8" else _recoded(file, aside, encoding)


def _encoding(file: Path, start: bytes) -> str:
    """UTF-16 by its mark, UTF-8 where all of the file is (or began to be), else Windows-1252."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
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


def _recoded(file: Path, aside: Path, encoding: str) -> Path:
    copy = aside / (file.name + ".utf8")
    with (
        file.open(encoding=encoding, errors="replace", newline="") as text,
        copy.open("w", encoding="utf-8", newline="") as out,
    ):
        shutil.copyfileobj(text, out, 1 << 20)
    return copy


def head(file: Path) -> list[str]:
    """The first lines."""
    with file.open(encoding="utf-8", errors="replace") as stream:
        return [line.rstrip("\r\n") for line, _ in zip(stream, range(HEAD_LINES), strict=False)]


def looks(file: Path) -> list[str]:
    """Whole lines from several places of the file, so that a sample knows more than the first hours."""
    size, found = file.stat().st_size, []
    for i in range(LOOKS):
        with file.open("rb") as stream:
            stream.seek(max(0, (size - LOOK_BYTES) * i // (LOOKS - 1)))
            lines = stream.read(LOOK_BYTES).decode("utf-8", errors="replace").splitlines()
        found += lines[1:-1] if size > LOOK_BYTES else lines
        if size <= LOOK_BYTES:
            break
    return found


def cells(line: str, separator: str) -> list[str]:
    """The cells of one line."""
    return next(csv.reader([line], delimiter=separator), [])


def find_separator(name: str, lines: Sequence[str]) -> str:
    """The character that cuts most lines into the same number of columns.

    Raises:
        HistorianError: where none gives two columns.
    """
    best, most = "", 0.0
    for separator in SEPARATORS:
        counts = Counter(len(cells(line, separator)) for line in lines if line.strip())
        width, agree = max(((w, n) for w, n in counts.items() if w > 1), key=lambda wn: wn[1], default=(0, 0))
        share = agree / max(1, counts.total())
        if width and share > most + 0.1:
            best, most = separator, share
    if not best or most < 0.5:
        wanted = ", ".join(SEPARATORS.values())
        raise HistorianError(f"{name}: no columns found in line {lines[-1][:60]!r}; looked for {wanted} as separator")
    return best


def has_decimal_comma(separator: str, values: Iterable[str]) -> bool:
    """Whether numbers have a comma; three digits after it alone may be thousands where the separator is a comma too."""
    fractions = [match[3] for v in values if (match := _DECIMAL_COMMA.match(v.strip()))]
    return bool(fractions) and (separator != "," or any(len(f) != 3 for f in fractions))


def plain(name: str) -> str:
    """A header word without case, blanks and signs."""
    return _SIGNS.sub("", name.lower())
