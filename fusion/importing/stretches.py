"""Stretches of time of a spool: each is judged, written as a process table, and becomes a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from fusion.importing.labels import within
from fusion.importing.spool import Resolver, Spool, Survey, ahead, cut
from fusion.importing.tag_quality import TagQuality, follow
from fusion.plant import Plant
from fusion.recordings.recording import LABELLED, NORMAL, Event
from fusion.recordings.tables import PROCESS_SCHEMA
from fusion.recordings.writer import RecordingWriter

CLOCK, HELD_CLOCK = "historian", "historian-held"
CLOCKS = pl.Enum([CLOCK, HELD_CLOCK])
_Known = tuple[str, int, float, int]
MOST_ROWS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Files with all process values of a stretch in order of time, and with the states among them where there are."""

    start_ns: int
    end_ns: int
    table: Path
    states: Path | None


def judge(
    spool: Spool,
    survey: Survey,
    resolver: Resolver,
    tags: Sequence[TagQuality],
    folder: Path,
    parts: int,
    events: Sequence[Event] = (),
    runs: Sequence[tuple[int, int]] = (),
) -> Iterator[Stretch]:
    """Follow the tags through each stretch, in order of time, and write it while the next is followed."""
    uncut = [(event.onset_ns, event.end_ns or survey.last_ns) for event in events]
    names = pl.Series("signal", spool.signals, dtype=pl.Enum(spool.signals))
    followed = ahead(_followed(spool, cut(survey, parts, MOST_ROWS, uncut, runs), resolver, tags))
    for number, (start, end, held, rows) in enumerate(followed):
        table = folder / f"stretch-{number:05}.parquet"
        named = rows.with_columns(names.gather(rows["code"]))
        whole = pl.concat([_held_rows(held, start, names.dtype), _process(named)])
        whole.write_parquet(table, compression_level=1, statistics=False)
        yield Stretch(start_ns=start, end_ns=end, table=table, states=_states(named, table))


def _followed(
    spool: Spool, spans: Iterator[tuple[int, int]], resolver: Resolver, tags: Sequence[TagQuality]
) -> Iterator[tuple[int, int, list[_Known], pl.DataFrame]]:
    """Each stretch with rows: start, end, what was known of the tags when it began, and the rows in order of time."""
    for start, end in spans:
        rows, order = resolver.resolve(spool.between(start, end))
        if len(rows):
            held = [(tag.name, *tag.held) for tag in tags if tag.held is not None]
            follow(tags, rows, order)
            yield start, end, held, rows


def _process(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        "t_ns",
        pl.col("t_ns").alias("received_ns"),
        "signal",
        pl.col("value").fill_null(float("nan")),
        "quality",
        pl.lit(CLOCK, CLOCKS).alias("clock"),
    )


def _held_rows(held: Sequence[_Known], start_ns: int, signals: pl.DataType) -> pl.DataFrame:
    """The last value of each tag before the stretch: known when it begins, with the stamp it had."""
    schema = PROCESS_SCHEMA | {"signal": signals, "clock": CLOCKS}
    rows = [(t_ns, start_ns, name, value, quality, HELD_CLOCK) for name, t_ns, value, quality in held]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _states(rows: pl.DataFrame, table: Path) -> Path | None:
    """Why values were no numbers, in a file beside the table."""
    why = rows.filter(pl.col("state").is_not_null())
    if not len(why):
        return None
    file = table.with_suffix(".states.parquet")
    why.select("t_ns", "signal", pl.col("state").cast(pl.String), "text").write_parquet(file)
    return file


def record(
    stretches: Sequence[Stretch],
    plant: Plant,
    left_out: Sequence[str],
    folder: Path,
    kind: str,
    events: Sequence[Event] = (),
) -> Iterator[Path]:
    """One recording for each stretch in which the plant has values; their files are used up.

    A normal one of which some is labelled is of kind labelled: the rest of it is normal.
    """
    folder.mkdir()
    for stretch in stretches:
        table = _without(stretch.table, left_out) if left_out else stretch.table
        if not pl.scan_parquet(table).filter(pl.col("clock") == CLOCK).head(1).collect().height:
            continue
        place = folder / datetime.fromtimestamp(stretch.start_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%S")
        own = within(events, stretch.start_ns, stretch.end_ns)
        with RecordingWriter(place, plant, kind=LABELLED if own and kind == NORMAL else kind, events=own) as writer:
            writer.adopt(table)
            if stretch.states is not None:
                writer.states(pl.read_parquet(stretch.states).filter(~pl.col("signal").is_in(left_out)))
        yield place


def _without(table: Path, left_out: Sequence[str]) -> Path:
    """A table without some of its tags."""
    kept = table.with_suffix(".kept.parquet")
    pl.scan_parquet(table).filter(~pl.col("signal").is_in(left_out)).sink_parquet(kept)
    table.unlink()
    return kept
