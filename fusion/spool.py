"""Rows on their way from files to recordings: written as read, taken back in order of time, in bounded pieces."""

from __future__ import annotations

from collections import Counter
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
TEXTS_KEPT = 1000
STATE = pl.Enum(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in the spool: rows by time, numbers by tag, and the texts of tags that have some."""

    rows: int
    edges_ns: Ints
    counts: Ints
    numbers: Mapping[int, int]
    texts: pl.DataFrame


@dataclass(slots=True)
class Spool:
    """Parquet files beside the import, each sorted by time: a stretch of time touches few of their row groups."""

    folder: Path
    names: dict[str, int] = field(default_factory=dict)
    _parts: list[Path] = field(default_factory=list)
    _wordy: list[Path] = field(default_factory=list)
    _numbers: Counter[int] = field(default_factory=Counter)
    _rows: int = 0
    _span_ns: tuple[int, int] | None = None

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
        code = pl.col("signal").cast(pl.Enum(list(self.names))).to_physical().cast(pl.UInt32).alias("code")
        coded = rows.select(code, "t_ns", "value", "quality", pl.col("state").cast(STATE), "text")
        if not coded["t_ns"].is_sorted():
            coded = coded.sort("t_ns", maintain_order=True)
        file = self.folder / f"{len(self._parts):06}.parquet"
        coded.write_parquet(file, compression="lz4", row_group_size=ROW_GROUP, statistics=True)
        self._note(file, coded)

    def _note(self, file: Path, coded: pl.DataFrame) -> None:
        self._parts.append(file)
        if coded["text"].null_count() < len(coded):
            self._wordy.append(file)
        numbers = np.bincount(coded["code"].to_numpy(), coded["value"].is_not_null().to_numpy())
        self._numbers.update({code: int(count) for code, count in enumerate(numbers) if count})
        low, high = int(coded["t_ns"][0]), int(coded["t_ns"][-1])
        first, last = self._span_ns or (low, high)
        self._rows, self._span_ns = self._rows + len(coded), (min(first, low), max(last, high))

    def survey(self) -> Survey:
        """Count what is there without holding it."""
        first, last = self._span_ns or (0, 0)
        edges = first + ((last - first) // BINS + 1) * np.arange(BINS + 1, dtype=np.int64)
        counts = np.zeros(BINS, np.int64)
        for part in self._parts:
            counts += np.diff(np.searchsorted(pl.read_parquet(part, columns=["t_ns"])["t_ns"].to_numpy(), edges))
        return Survey(rows=self._rows, edges_ns=edges, counts=counts, numbers=self._numbers, texts=self._texts())

    def _texts(self) -> pl.DataFrame:
        """By tag: how many texts that are no known state, distinct ones of those, and of all."""
        free = pl.col("state").is_null()
        wordy = pl.scan_parquet(self._wordy, glob=False) if self._wordy else self._scan().head(0)
        return (
            wordy.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
            .group_by("code")
            .agg(
                free.sum().alias("texts"),
                pl.col("text").unique().head(TEXTS_KEPT).alias("distinct"),
                pl.col("text").filter(free).unique().head(TEXTS_KEPT).alias("free"),
            )
            .sort("code")
            .collect(engine="streaming")
        )

    def between(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        """Rows of ``start_ns <= t < end_ns`` by tag, then by time; of equal stamps the one read last stands last."""
        wanted = self._scan().filter(pl.col("t_ns").is_between(start_ns, end_ns, closed="left")).collect()
        if not wanted["t_ns"].is_sorted():
            wanted = wanted.sort("t_ns", maintain_order=True)
        return wanted.sort("code", maintain_order=True)

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
