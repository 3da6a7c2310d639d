"""Which format a file has, told by what stands in it; an unknown one is refused with what was looked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from connectors.historian.blocks import cut_blocks
from connectors.historian.influx import COLUMNS, unfold
from connectors.historian.lines import records, split, width_of
from connectors.historian.long import BARE, DIALECTS, GE_ETL, Dialect, LongPlan, LongReader, plan
from connectors.historian.rows import Reader, ReadOptions, TagInfo
from connectors.historian.stamps import StampReader, choose, recognise
from connectors.historian.text import Sheet, as_utf8, find_separators, has_decimal_comma, head, lay_out, looks
from connectors.historian.wide import WideReader, make_plan, read_header
from fusion.errors import ConfigError, HistorianError

LOOKED_FOR = (
    "a header line with tag, time and value (PI, Proficy, AVEVA, Ignition tables), `[Data]` blocks (Proficy), "
    "`seconds:nanoseconds,tag,value,type,quality` (GE ETL), lines of tag, time, value without a header, one column "
    "per tag under a row of tag names, InfluxDB CSV, PI Web API JSON, Parquet"
)
_GE_ETL_LINE = re.compile(r"^\d{9,11}:\d{1,9},")
_TIME_OF_DAY = re.compile(r"^\d{1,2}:\d{2}(:\d{2})?([.,]\d+)?( ?[AaPp][Mm])?$")
_OF_DATA = re.compile(r"\d:\d\d|^\d{9,}")
_UTC_KIND = re.compile(r"(?i)^\s*\[?TimestampKind[\],;= ]+UTC")
SAMPLE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """A text file under examination: head records and the line each ends in, records from all over it, as cells."""

    file: Path
    aside: Path
    name: str
    separator: str
    head: list[list[str]]
    ends: list[int]
    body: list[list[str]]
    infos: Mapping[str, TagInfo]
    offset: int = 0
    comment: str | None = None


def open_text(file: Path, aside: Path, options: ReadOptions, name: str = "") -> Reader:
    """A reader of a text file with columns; ``name`` is what the user calls it, else the file.

    Raises:
        HistorianError: where it is empty, not text, or of no known format.
    """
    name = name or str(file)
    text = as_utf8(file, aside)
    if any(_UTC_KIND.match(line) for line in head(text)):
        options = replace(options, tz=options.tz or "UTC")
    blocks = cut_blocks(text, aside)
    body, infos, offset = (blocks.data, blocks.tags, blocks.offset) if blocks else (text, {}, 0)
    lines = head(body)
    comment = "*" if blocks or any(line.startswith("*") for line in lines) else None
    spoken = [line for line in lines if line.strip() and not line.startswith("*")]
    if not spoken:
        raise HistorianError(f"{name}: empty" if not blocks else f"{name}: no data between its block headers")
    texts = []
    for separator in find_separators(name, spoken):
        first = list(records(lines, separator, width_of(spoken, separator)[0]))
        texts.append(
            _Text(
                file=body,
                aside=aside,
                name=name,
                separator=separator,
                head=[record.cells for record in first],
                ends=[record.last for record in first],
                body=[c for x in looks(body) if x.strip() and not x.startswith("*") and (c := split(x, separator))],
                infos=infos,
                offset=offset,
                comment=comment,
            )
        )
    return _first_that_fits(texts, options)


def _first_that_fits(texts: Sequence[_Text], options: ReadOptions) -> Reader:
    """The reader of the first format and separator that fit; a separator that stands in texts alone fits none."""
    refused: list[HistorianError] = []
    for attempt in (_influx, _ge_etl, _long, _bare, _wide):
        for text in texts:
            try:
                reader = attempt(text, options)
            except HistorianError as error:
                refused.append(error)
                continue
            if reader is not None:
                return _with_series(reader, options)
        if refused:
            raise refused[0]
    raise HistorianError(f"{texts[0].name}: format not recognised; looked for {LOOKED_FOR}")


def _with_series(reader: Reader, options: ReadOptions) -> Reader:
    if options.series and not (isinstance(reader, LongReader) and reader.plan.series):
        raise ConfigError(f"--series: {reader.name} is {reader.format}; expected a table with a column of tags")
    return reader


def _influx(text: _Text, options: ReadOptions) -> Reader | None:
    copy = unfold(text.file, text.aside, head(text.file)) if text.separator == "," else None
    if copy is None:
        return None
    rows = [cells for line in [*head(copy), *looks(copy)] if (cells := split(line, ","))]
    times = [row[3] for row in rows if len(row) > 3]
    clock = StampReader(text.name, choose(text.name, times, options.dates, options.epoch), options.tz)
    sheet = Sheet(file=text.file, name=text.name, separator=",", columns=COLUMNS, first=0, copy=copy)
    how = LongPlan(dialect="InfluxDB", tag="tag", time="time", values=("value",), quality={})
    return LongReader(sheet, how, clock, options.rows)


def _ge_etl(text: _Text, options: ReadOptions) -> Reader | None:
    if not text.head[0] or not _GE_ETL_LINE.match(text.separator.join(text.head[0])):
        return None
    return _make_long(text, ("time", "tag", "value", "type", "quality"), 0, options, (GE_ETL,))


def _long(text: _Text, options: ReadOptions) -> Reader | None:
    """A header line that names tag, time and value."""
    for number, header in enumerate(text.head):
        if any(_OF_DATA.search(cell) for cell in header[:2]):
            continue
        names = _unique(header)
        if plan(names, {}) is not None:
            return _make_long(text, names, number + 1, options)
    return None


def _make_long(
    text: _Text, names: Sequence[str], first: int, options: ReadOptions, dialects: Sequence[Dialect] = DIALECTS
) -> Reader:
    samples = _samples(text, names, first)
    how = plan(names, samples, dialects, options.series)
    assert how is not None  # noqa: S101 - the caller saw that it fits
    times = samples[how.time]
    clock = StampReader(text.name, choose(text.name, times, options.dates, options.epoch), options.tz)
    _direct(clock, samples[how.tag] if how.tag else [], times)
    return LongReader(_sheet(text, names, first, samples[how.values[0]]), how, clock, options.rows, text.infos)


def _bare(text: _Text, options: ReadOptions) -> Reader | None:
    """Three to four columns without a header, one of which reads as time."""
    width = len(text.head[0])
    if not 3 <= width <= 4:
        return None
    columns = [
        pl.Series([row[i] for row in text.body[:SAMPLE] if len(row) == width], dtype=pl.String) for i in range(width)
    ]
    numeric = [int(c.cast(pl.Float64, strict=False).is_not_null().sum()) / max(1, len(c)) for c in columns]
    times = [i for i in range(width) if (options.epoch or numeric[i] < 0.5) and recognise(columns[i], options.epoch)]
    tags = [i for i in range(min(2, width)) if i not in times and numeric[i] < 0.5]
    if len(times) != 1 or not tags or not recognise(pl.Series([text.head[0][times[0]]]), options.epoch):
        return None
    rest = [i for i in range(width) if i not in (times[0], tags[0])]
    names = [""] * width
    names[times[0]], names[tags[0]] = "time", "tag"
    for i, name in zip(rest, ("value", "quality"), strict=False):
        names[i] = name
    return _make_long(text, names, 0, options, (BARE,))


def _wide(text: _Text, options: ReadOptions) -> Reader | None:
    """One or two columns of time in front, a row of names above the first that reads as time."""
    width = max(Counter(len(row) for row in text.body).most_common(1))[0]
    body = [row for row in text.body if len(row) >= 2]
    times = 2 if body and sum(bool(_TIME_OF_DAY.match(r[1].strip())) for r in body) > len(body) / 2 else 1
    stamps = [" ".join(row[:times]) for row in body if any(c.isdigit() for c in row[0])]
    if not recognise(pl.Series(stamps[-SAMPLE:], dtype=pl.String), options.epoch):
        return None
    form = choose(text.name, stamps, options.dates, options.epoch)
    clock = StampReader(text.name, form, options.tz, by_signal=False)
    first = _first_data(text.head, times, options.epoch)
    header = read_header(text.name, [row for row in text.head[:first] if len(row) > times], times)
    if first is None or header is None:
        raise HistorianError(f"{text.name}: no row of tag names above the first time stamp; a wide file needs one")
    columns = tuple(f"c{i}" for i in range(max(width, len(header.tags))))
    samples = _samples(text, columns, first)
    how, infos = make_plan(header, columns, times, samples)
    if not how.pairs:
        return None
    _direct(clock, [], stamps)
    values = [cell for value, _ in how.pairs for cell in samples[value]]
    return WideReader(_sheet(text, columns, first, values), how, clock, options.rows, infos)


def _first_data(rows: Sequence[Sequence[str]], times: int, epoch: str) -> int | None:
    """The first line whose front reads as time."""
    for number, row in enumerate(rows):
        if len(row) > times and recognise(pl.Series([" ".join(row[:times])], dtype=pl.String), epoch):
            return number
    return None


def _sheet(text: _Text, names: Sequence[str], first: int, values: Sequence[str]) -> Sheet:
    sheet = Sheet(
        file=text.file,
        name=text.name,
        separator=text.separator,
        columns=tuple(names),
        first=text.ends[first - 1] if first else 0,
        decimal_comma=has_decimal_comma(text.separator, values),
        comment=text.comment,
        offset=text.offset,
    )
    return lay_out(sheet, text.aside)


def _samples(text: _Text, names: Sequence[str], first: int) -> dict[str, list[str]]:
    """Texts of each column from all over the file, row by row, its head lines left out."""
    heads = text.head[:first]
    rows = [row for row in text.body if row not in heads and len(row) > 1]
    return {name: [row[i] if i < len(row) else "" for row in rows] for i, name in enumerate(names)}


def _unique(header: Sequence[str]) -> list[str]:
    """Column names that differ and are not empty, for the sheet."""
    names: dict[str, None] = {}
    for i, cell in enumerate(header):
        name = " ".join(cell.lstrip("\ufeff").split()) or f"c{i}"
        name = "Line" if name == "line" else name
        names[name if name not in names else f"{name}#{i}"] = None
    return list(names)


def _direct(clock: StampReader, tags: Sequence[str], stamps: Sequence[str]) -> None:
    """Whether stamps run backwards, and whether the file is in order of time over all its tags."""
    frame = clock.utc(pl.DataFrame({"stamp": list(stamps)}, schema={"stamp": pl.String}))
    steps = frame["t_ns"].drop_nulls().diff().drop_nulls()
    up, down = int((steps > 0).sum()), int((steps < 0).sum())
    clock.descending = down > up
    clock.by_signal = bool(tags) and min(up, down) > 1
    clock.forget()
