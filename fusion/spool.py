"""Rows on their way from files to recordings: written as read, taken back in order of time, in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.historian.states import KINDS

Ints = NDArray[np.int64]
ROW_GROUP = 131_072
BINS = 2048
STATE = pl.Enum(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in the spool: rows, first and last stamp, and for each tag what kinds of values it holds."""

    rows: int
    first_ns: int
    last_ns: int
    edges_ns: Ints
    counts: Ints
    tags: pl.DataFrame


@dataclass(slots=True)
class Spool:
    """Parquet files beside the import, each sorted by time: a stretch of time touches few of their row groups."""

    folder: Path
    names: dict[str, int] = field(default_factory=dict)
    _parts: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True)

    @property
    def signals(self) -> tuple[str, ...]:
        """Tags in order of appearance; the place of each is its ``code``."""
        return tuple(self.names)

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows in the order of their file."""
        for name in rows["signal"].unique(maintain_order=True).to_list():
            self.names.setdefault(name, len(self.names))
        code = pl.col("signal").replace_strict(self.names, return_dtype=pl.UInt32).alias("code")
        coded = rows.select(code, "t_ns", "value", "quality", pl.col("state").cast(STATE), "text")
        if not coded["t_ns"].is_sorted():
            coded = coded.sort("t_ns", maintain_order=True)
        file = self.folder / f"{len(self._parts):06}.parquet"
        coded.write_parquet(file, compression="lz4", row_group_size=ROW_GROUP, statistics=True)
        self._parts.append(file)

    def survey(self) -> Survey:
        """Count what is there without holding it."""
        scan = self._scan()
        totals = scan.select(pl.len(), pl.col("t_ns").min().alias("low"), pl.col("t_ns").max().alias("high")).collect()
        rows, first, last = (int(v or 0) for v in totals.row(0))
        width = (last - first) // BINS + 1
        counted = (
            scan.group_by(((pl.col("t_ns") - first) // width).alias("bin")).agg(pl.len()).collect(engine="streaming")
        )
        counts = np.zeros(BINS, np.int64)
        counts[counted["bin"].to_numpy()] = counted["len"].to_numpy()
        return Survey(
            rows=rows,
            first_ns=first,
            last_ns=last,
            edges_ns=first + width * np.arange(BINS + 1, dtype=np.int64),
            counts=counts,
            tags=self._tags(),
        )

    def _tags(self) -> pl.DataFrame:
        """By tag: numbers, texts that are no known state, and the distinct ones of all texts."""
        text = pl.col("text").is_not_null() & (pl.col("text") != "")
        return (
            self._scan()
            .group_by("code")
            .agg(
                pl.len().alias("rows"),
                pl.col("value").is_not_null().sum().alias("numbers"),
                (text & pl.col("state").is_null()).sum().alias("texts"),
                pl.col("text").filter(text).unique().head(1000).alias("distinct"),
                pl.col("text").filter(text & pl.col("state").is_null()).unique().head(1000).alias("free"),
            )
            .sort("code")
            .collect(engine="streaming")
        )

    def between(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        """Rows of ``start_ns <= t < end_ns`` by tag, then by time; of equal stamps the one read last stands last."""
        wanted = self._scan().filter(pl.col("t_ns").is_between(start_ns, end_ns, closed="left")).collect()
        return wanted.sort("code", "t_ns", maintain_order=True)

    def _scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(self._parts, glob=False)


def cut(survey: Survey, parts: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Stretches of equal length, cut again where one holds more than ``most_rows``; those without rows are left out."""
    edges = np.unique(np.linspace(0, BINS, max(1, min(parts, BINS)) + 1).round().astype(int))
    for low, high in pairwise(edges):
        start, held = int(low), 0
        for i in range(int(low), int(high)):
            if held and held + survey.counts[i] > most_rows:
                yield int(survey.edges_ns[start]), int(survey.edges_ns[i])
                start, held = i, 0
            held += int(survey.counts[i])
        if held:
            yield int(survey.edges_ns[start]), int(survey.edges_ns[high])


@dataclass(slots=True)
class Resolver:
    """Turns texts into codes for digital tags, drops repeated rows and counts them."""

    codes: Mapping[int, Mapping[str, int]]
    repeated: int = 0
    conflicting: int = 0

    def resolve(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows by tag and time with a value wherever there is one; of rows with one stamp the one read last."""
        if rows["text"].null_count() < len(rows):
            rows = self._texts(rows)
        same = ((pl.col("code") == pl.col("code").shift(-1)) & (pl.col("t_ns") == pl.col("t_ns").shift(-1))).fill_null(
            value=False
        )
        marked = rows.select(
            same.alias("same"), (same & pl.col("value").ne_missing(pl.col("value").shift(-1))).alias("conflict")
        )
        repeated = int(marked["same"].sum())
        self.repeated += repeated
        self.conflicting += int(marked["conflict"].sum())
        return rows.filter(~marked["same"]) if repeated else rows

    def _texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        table = [(code, text, float(number)) for code, names in self.codes.items() for text, number in names.items()]
        coded = pl.DataFrame(table, schema={"code": pl.UInt32, "text": pl.String, "digital": pl.Float64}, orient="row")
        joined = rows.join(coded, on=["code", "text"], how="left", maintain_order="left")
        digital, bare = pl.col("digital").is_not_null(), pl.col("value").is_null() & pl.col("state").is_null()
        foreign = bare & ~digital
        return joined.with_columns(
            pl.coalesce("digital", "value").alias("value"),
            pl.when(digital)
            .then(pl.lit(None, STATE))
            .when(foreign)
            .then(pl.lit("foreign_state", STATE))
            .otherwise(pl.col("state"))
            .alias("state"),
            pl.when(digital & pl.col("state").is_not_null())
            .then(pl.lit(2, pl.UInt8))
            .when(foreign)
            .then(pl.lit(0, pl.UInt8))
            .otherwise(pl.col("quality"))
            .alias("quality"),
        ).drop("digital")
