"""Rows on their way from files to recordings: written as read, taken back in order of time, in bounded pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.historian.states import KINDS
from fusion.records import NS_PER_S

Ints = NDArray[np.int64]
MARK_ROWS = 4096
TEXTS_KEPT = 1000
FEW, APART, STEPS, STRETCHES = (
    8,
    3.0,
    1000,
    20,
)  # rows and ratio from where on values at one time are of several series; rows seen
STATE = pl.Enum(KINDS)
NUMBERS = ("code", "t_ns", "value", "quality")
SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "code": pl.UInt32,
    "t_ns": pl.Int64,
    "value": pl.Float64,
    "quality": pl.UInt8,
    "state": STATE,
    "text": pl.String,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in the spool: rows, about one stamp in ``MARK_ROWS``, numbers by tag, texts of tags that have some."""

    rows: int
    first_ns: int
    last_ns: int
    marks_ns: Ints
    numbers: Mapping[int, int]
    texts: pl.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    file: Path
    rows: int
    marks_ns: Ints
    last_ns: int

    @property
    def first_ns(self) -> int:
        return int(self.marks_ns[0])


@dataclass(slots=True)
class Spool:
    """Arrow files beside the import, each sorted by time: as large as memory writes and reads them fastest.

    Those of ``_wordy`` have the columns of ``SCHEMA``, the others, where each value is a number, only ``NUMBERS``.
    """

    folder: Path
    names: dict[str, int] = field(default_factory=dict)
    _parts: list[_Part] = field(default_factory=list)
    _wordy: list[Path] = field(default_factory=list)
    _numbers: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True)

    @property
    def signals(self) -> tuple[str, ...]:
        """Tags in order of appearance; the place of each is its ``code``."""
        return tuple(self.names)

    def append(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add rows in the order of their file, and give them back so, with ``code`` instead of ``signal``."""
        coded = rows.select(
            self._codes(rows["signal"]), "t_ns", "value", "quality", pl.col("state").cast(STATE), "text"
        )
        file = self.folder / f"{len(self._parts):06}.arrow"
        wordy = coded["value"].has_nulls()
        ordered = coded if wordy else coded.select(NUMBERS)
        if not ordered["t_ns"].is_sorted():
            ordered = ordered.sort("t_ns", maintain_order=True)
        self._note(file, ordered, wordy=wordy)
        ordered.write_ipc(file)
        return coded

    def _codes(self, signals: pl.Series) -> pl.Series:
        """The place of each row's tag among all; blanks around a name are not part of it."""
        names = signals.unique(maintain_order=True).cast(pl.String)
        code_of = [self.names.setdefault(name.strip(), len(self.names)) for name in names]
        place = signals.cast(pl.Enum(names)).to_physical()
        return pl.Series("code", code_of, dtype=pl.UInt32).gather(place)

    def _note(self, file: Path, coded: pl.DataFrame, *, wordy: bool) -> None:
        t_ns = coded["t_ns"].to_numpy()
        self._parts.append(_Part(file=file, rows=len(t_ns), marks_ns=t_ns[::MARK_ROWS].copy(), last_ns=int(t_ns[-1])))
        if wordy:
            self._wordy.append(file)
        numbers = np.bincount(coded["code"].filter(coded["value"].is_not_null()) if wordy else coded["code"])
        self._numbers.update({code: int(count) for code, count in enumerate(numbers) if count})

    def survey(self) -> Survey:
        """Count what is there without holding it."""
        return Survey(
            rows=sum(part.rows for part in self._parts),
            first_ns=min(part.first_ns for part in self._parts),
            last_ns=max(part.last_ns for part in self._parts),
            marks_ns=np.sort(np.concatenate([part.marks_ns for part in self._parts])),
            numbers=self._numbers,
            texts=self._texts(),
        )

    def _texts(self) -> pl.DataFrame:
        """By tag: how many texts that are no known state, distinct ones of those, and of all."""
        free = pl.col("state").is_null()
        wordy = pl.concat([pl.LazyFrame(schema=SCHEMA), *(pl.scan_ipc(file) for file in self._wordy)])
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

    def of(self, code: int) -> pl.DataFrame:
        """Times and values of one tag in order of time."""
        pieces = [pl.LazyFrame(schema=SCHEMA), *(pl.scan_ipc(part.file) for part in self._parts)]
        rows = pl.concat(pieces, how="diagonal").filter(pl.col("code") == code).select("t_ns", "value")
        return rows.collect(engine="streaming").sort("t_ns", maintain_order=True)

    def between(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        """Rows of ``start_ns <= t < end_ns`` in order of time; of equal stamps the one read last stands last."""
        wanted = pl.col("t_ns").is_between(start_ns, end_ns, closed="left")
        near = [part.file for part in self._parts if part.first_ns < end_ns and part.last_ns >= start_ns]
        pieces = [pl.LazyFrame(schema=SCHEMA), *(pl.scan_ipc(file).filter(wanted) for file in near)]
        rows = pl.concat(pieces, how="diagonal").collect()
        return rows if rows["t_ns"].is_sorted() else rows.sort("t_ns", maintain_order=True)


def _kept_whole(edge: int, whole: Sequence[tuple[int, int]]) -> int:
    return next((end for start, end in whole if start < edge < end), edge)


def by_tag(code: NDArray[Any]) -> Ints:
    """The places of rows in order of their tags, within each as they are."""
    few = not len(code) or code.max() <= np.iinfo(np.uint16).max  # which numpy sorts in a single pass
    return np.argsort(code.astype(np.uint16) if few else code, kind="stable")


def cut(
    survey: Survey,
    parts: int,
    most_rows: int,
    whole: Sequence[tuple[int, int]] = (),
    runs: Sequence[tuple[int, int]] = (),
) -> Iterator[tuple[int, int]]:
    """Stretches of equal length of a second at least, cut again where one holds more than about ``most_rows``.

    Where there are several ``runs``, each is one. What is to stay ``whole`` is cut only where it holds more.
    """
    end_ns = survey.last_ns + 1
    parts = max(1, min(parts, (end_ns - survey.first_ns) // NS_PER_S))
    edges = [survey.first_ns + (end_ns - survey.first_ns) * i // parts for i in range(parts)]
    edges = [*([start for start, _ in runs] or edges), end_ns]
    for low, high in pairwise(sorted({_kept_whole(edge, whole) for edge in edges})):
        inside = survey.marks_ns[np.searchsorted(survey.marks_ns, low) : np.searchsorted(survey.marks_ns, high)]
        pieces = max(1, -(-len(inside) * MARK_ROWS // most_rows))
        inner = [int(inside[len(inside) * i // pieces]) for i in range(1, pieces)]
        yield from pairwise(sorted({low, *inner, high}))


@dataclass(slots=True)
class Resolver:
    """Turns texts into codes for digital tags, drops repeated rows and counts them.

    ``conflicts`` are rows dropped for a later one of another value, by tag.
    """

    codes: Mapping[int, Mapping[str, int]]
    repeated: int = 0
    conflicts: Counter[int] = field(default_factory=Counter)
    _steps: dict[int, list[tuple[NDArray[np.float64], ...]]] = field(default_factory=dict)

    def resolve(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Ints]:
        """Rows in order of time with a value wherever there is one, and their places by tag.

        Of rows with one stamp the one read last counts.
        """
        if rows["text"].null_count() < len(rows):
            rows = self._texts(rows)
        order = by_tag(rows["code"].to_numpy())
        code, t_ns = rows["code"].to_numpy()[order], rows["t_ns"].to_numpy()[order]
        same = np.flatnonzero((code[1:] == code[:-1]) & (t_ns[1:] == t_ns[:-1]))
        if not len(same):
            return rows, order
        value = rows["value"].gather(order)
        self.repeated += len(same)
        other = same[value.gather(same).ne_missing(value.gather(same + 1)).to_numpy()]
        self._conflicts(code, t_ns, value.to_numpy(), other)
        keep = np.ones(len(rows), np.bool_)
        keep[order[same]] = False
        return rows.filter(keep), (np.cumsum(keep) - 1)[order[keep[order]]]

    def _conflicts(self, code: NDArray[np.uint32], t_ns: Ints, value: NDArray[np.float64], other: Ints) -> None:
        for tag, count in enumerate(np.bincount(code[other]).tolist() if len(other) else ()):
            if count:
                self.conflicts[tag] += count
                low, high = np.searchsorted(code, [tag, tag + 1])
                self._notice(self._steps.setdefault(tag, []), t_ns[low:high], value[low:high])

    def _notice(self, seen: list[tuple[NDArray[np.float64], ...]], t_ns: Ints, value: NDArray[np.float64]) -> None:
        """Some values of a tag, how far they lie apart at one time, and from time to time."""
        if len(seen) < STRETCHES:
            step, first = np.diff(t_ns), np.flatnonzero(np.diff(t_ns, prepend=t_ns[0] - 1))
            parts = value, np.abs(np.diff(value)[step == 0]), np.abs(np.diff(value[first]))
            seen.append(tuple(part[:STEPS].copy() for part in parts))

    def are_several(self, tag: int) -> bool:
        """Whether a tag's values at one time lie much further apart than from time to time: series under one name.

        Of one series that is quicker than its stamps, or corrected, they do not; nor is it told of a few states.
        """
        if tag in self.codes or self.conflicts[tag] < FEW:
            return False
        seen, within, onward = (np.concatenate(parts) for parts in zip(*self._steps[tag], strict=True))
        return bool(len(np.unique(seen)) > FEW and np.nanmedian(within) > APART * np.nanmedian(onward))

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


T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Items as given, the next one made in advance in a thread; polars and numpy leave it the interpreter."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
