"""Parquet files, with one value a row or one column a tag (the 3W data set), in batches of row groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from connectors.historian.long import LongPlan, long_batch, plan
from connectors.historian.quality import by_evidence
from connectors.historian.rows import Batch, ReadOptions, TagInfo
from connectors.historian.stamps import TYPED, TYPED_UTC, StampReader, choose
from connectors.historian.text import plain
from connectors.historian.wide import Header, WidePlan, make_plan, wide_batch
from fusion.errors import HistorianError

TIMES = ("timestamp", "tstamp", "time", "datetime", "date", "ts", "index", "indexlevel0")
LABELS = ("class", "label", "target", "anomaly", "changepoint", "fault", "state")
SAMPLE = 2000


@dataclass(slots=True)
class ParquetReader:
    """One Parquet file; ``labels`` are columns that tell what is wrong and are no sensors."""

    file: Path
    plan: LongPlan | WidePlan
    time: str
    clock: StampReader
    rows: int
    infos: Mapping[str, TagInfo] = field(default_factory=dict)
    format: str = "Parquet"
    labels: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The file."""
        return str(self.file)

    def batches(self) -> Iterator[Batch]:
        """The rows in order of the file."""
        wide = isinstance(self.plan, WidePlan)
        rows = max(1000, self.rows // max(1, len(self.plan.pairs))) if isinstance(self.plan, WidePlan) else self.rows
        scan = pl.scan_parquet(self.file, glob=False)
        used = [self.time, *_used(self.plan)]
        scan = scan.select(*dict.fromkeys(used)).with_row_index("line", offset=1)
        for frame in scan.collect_batches(chunk_size=rows, maintain_order=True):
            if wide and isinstance(self.plan, WidePlan):
                stamped = frame.rename({self.time: "stamp"})
                yield wide_batch(stamped, self.plan, self.clock, self.name, self.infos)
            elif isinstance(self.plan, LongPlan):
                yield long_batch(frame, self.plan, self.clock, self.name, self.infos)


def _used(plan: LongPlan | WidePlan) -> list[str]:
    if isinstance(plan, WidePlan):
        return [name for pair in plan.pairs for name in pair if name]
    return [n for n in (plan.tag, *plan.values, *plan.quality, plan.unit, plan.description) if n]


def open_parquet(file: Path, options: ReadOptions) -> ParquetReader:
    """A reader of a Parquet file.

    Raises:
        HistorianError: where it is damaged, empty, or has no column of time.
    """
    try:
        schema = pl.read_parquet_schema(file)
        head = pl.scan_parquet(file, glob=False).head(SAMPLE).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise HistorianError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    if not len(head):
        raise HistorianError(f"{file}: empty")
    samples = {name: [str(v) for v in head[name].drop_nulls().head(200)] for name in head.columns}
    long = plan([n for n in head.columns if plain(n)], samples)
    time = long.time if long else _time(file, schema)
    clock = _clock(file, head, time, options)
    if long is not None and not (long.tag and schema[long.tag].is_numeric()):
        return ParquetReader(file, long, time, clock, options.rows, format=f"Parquet, {long.dialect}")
    labels = [name for name in schema if plain(name) in LABELS and schema[name].is_integer()]
    sensors = [name for name in schema if name != time and name not in labels and not schema[name].is_temporal()]
    wide, infos = make_plan(Header(tags=sensors), sensors, 0, samples)
    rules = {quality: by_evidence(samples[quality]) for _, quality in wide.pairs if quality}
    wide = WidePlan(pairs=wide.pairs, names=wide.names, rules=rules)
    clock.by_signal = False
    return ParquetReader(file, wide, time, clock, options.rows, infos, "Parquet, wide", labels)


def _time(file: Path, schema: Mapping[str, pl.DataType]) -> str:
    """The column of time: by its type, else by its name."""
    typed = [name for name, kind in schema.items() if kind.is_temporal()]
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
    return StampReader(str(file), choose(str(file), [str(v) for v in head[time]], options.dates), options.tz)
