"""Parquet files, with one value a row or one column a tag (the 3W data set), in batches of row groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from connectors.historian.long import LongPlan, long_batch, plan
from connectors.historian.rows import Batch, ReadOptions, TagInfo
from connectors.historian.stamps import TYPED, TYPED_UTC, StampReader, choose
from connectors.historian.text import plain
from connectors.historian.wide import Header, WidePlan, make_plan, wide_batch
from fusion.errors import ConfigError, HistorianError

TIMES = ("timestamp", "tstamp", "time", "datetime", "date", "ts", "index", "indexlevel0")
LABELS = ("class", "label", "target", "anomaly", "changepoint", "fault", "state")
SAMPLE = 2000


@dataclass(slots=True)
class ParquetReader:
    """One Parquet file; labels, set ``aside``, tell what is wrong and are no sensors.

    ``columns`` names those of a wide file as the plan does.
    """

    file: Path
    plan: LongPlan | WidePlan
    schema: Mapping[str, pl.DataType]
    clock: StampReader
    rows: int
    infos: Mapping[str, TagInfo] = field(default_factory=dict)
    format: str = "Parquet"
    aside: Sequence[str] = ()
    unread: Sequence[str] = ()
    time: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file."""
        return str(self.file)

    def batches(self) -> Iterator[Batch]:
        """The rows in order of the file."""
        how = self.plan
        if isinstance(how, LongPlan):
            used, rows = {name: name for name in how.columns}, self.rows
        else:
            used, rows = {self.time: "stamp", **self.columns}, max(1000, self.rows // max(1, len(how.pairs)))
        scan = pl.scan_parquet(self.file, glob=False)
        scan = scan.select(
            _read(name, scan_type).alias(used[name]) for name, scan_type in self.schema.items() if name in used
        )
        for frame in scan.with_row_index("line", offset=1).collect_batches(chunk_size=rows, maintain_order=True):
            if isinstance(how, LongPlan):
                yield long_batch(frame, how, self.clock, self.name, self.infos)
            else:
                yield wide_batch(frame, how, self.clock, self.name, self.infos)


def _read(name: str, kind: pl.DataType) -> pl.Expr:
    """A column as text or as numbers, whichever it is by nature."""
    column = pl.col(name)
    if isinstance(kind, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if isinstance(kind, pl.Decimal | pl.Null):
        return column.cast(pl.Float64)
    if kind == pl.Date:
        return column.cast(pl.Datetime("us"))
    return column.cast(pl.UInt8) if kind == pl.Boolean else column


def _is_read(kind: pl.DataType) -> bool:
    return kind.is_numeric() or isinstance(kind, pl.Boolean | pl.String | pl.Categorical | pl.Enum | pl.Null)


def open_parquet(file: Path, options: ReadOptions) -> ParquetReader:
    """A reader of a Parquet file.

    Raises:
        HistorianError: where it is damaged, empty, or has no column of time.
    """
    try:
        whole = pl.read_parquet_schema(file)
        schema = {name: kind for name, kind in whole.items() if _is_read(kind) or _is_time(kind)}
        scan = pl.scan_parquet(file, glob=False).head(SAMPLE)
        head = scan.select(_read(name, kind) for name, kind in schema.items()).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise HistorianError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    if not len(head):
        raise HistorianError(f"{file}: empty")
    samples = {name: ["" if v is None else str(v) for v in head[name]] for name in head.columns}
    _refuse_unreadable(file, whole, schema)
    long = plan([n for n in head.columns if plain(n)], samples, series=options.series)
    time = long.time if long else _time(file, schema)
    others = [f"{name} ({_kind(kind)})" for name, kind in whole.items() if not _is_read(kind) and name != time]
    clock = _clock(file, head, time, options)
    if long is not None and not (long.tag and schema[long.tag].is_numeric()):
        unread = (*long.unread, *others)
        return ParquetReader(file, long, schema, clock, options.rows, format=f"Parquet, {long.dialect}", unread=unread)
    if options.series:
        raise ConfigError(f"--series: {file} has a column a tag; expected a table with a column of tags")
    labels = [name for name in schema if plain(name) in LABELS and schema[name].is_integer()]
    sensors = [name for name in schema if name != time and name not in labels and _is_read(schema[name])]
    if not sensors:
        raise HistorianError(f"{file}: no column of numbers or texts; it has {', '.join(others) or 'a time alone'}")
    columns = {name: f"c{i}" for i, name in enumerate(sensors)}
    wide, infos = make_plan(
        Header(tags=sensors), list(columns.values()), 0, {columns[name]: samples[name] for name in sensors}
    )
    clock.by_signal = False
    return ParquetReader(file, wide, schema, clock, options.rows, infos, "Parquet, wide", labels, others, time, columns)


def _refuse_unreadable(file: Path, whole: Mapping[str, pl.DataType], schema: Mapping[str, pl.DataType]) -> None:
    """Where the names say one value a row, but a column that is needed holds no numbers or texts."""
    named = plan([name for name in whole if plain(name)], {})
    needed = [] if named is None or not named.tag else [named.tag, named.time, *named.values[:1]]
    for name in needed:
        if name not in schema:
            raise HistorianError(f"{file}: column {name!r} is of type {_kind(whole[name])}; expected numbers or texts")


def _is_time(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.Datetime | pl.Date)


def _kind(kind: pl.DataType) -> str:
    return str(kind.base_type()).lower()


def _time(file: Path, schema: Mapping[str, pl.DataType]) -> str:
    """The column of time: by its type, else by its name."""
    typed = [name for name, kind in schema.items() if _is_time(kind)]
    named = [name for name in schema if plain(name) in TIMES]
    if len(typed) == 1 or (typed and not named):
        return typed[0]
    both = [name for name in named if name in typed] or named
    if not both:
        raise HistorianError(f"{file}: no column of time; looked for one of type timestamp or named {', '.join(TIMES)}")
    return both[0]


def _clock(file: Path, head: pl.DataFrame, time: str, options: ReadOptions) -> StampReader:
    kind = head.schema[time]
    if isinstance(kind, pl.Datetime):
        return StampReader(str(file), TYPED_UTC if kind.time_zone else TYPED, options.tz)
    return StampReader(
        str(file), choose(str(file), [str(v) for v in head[time]], options.dates, options.epoch), options.tz
    )
