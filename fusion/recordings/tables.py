"""Process values and heartbeats of a recording as tables: written in chunks, read as batches in order of arrival."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusion.errors import RecordingError
from fusion.records import Columns, Peaks

Ints = NDArray[np.int64]
SPILL_ROWS = 4_000_000
PROCESS_SCHEMA = {
    "t_ns": pl.Int64,
    "received_ns": pl.Int64,
    "signal": pl.String,
    "value": pl.Float64,
    "quality": pl.UInt8,
    "clock": pl.String,
}
SURPRISE_SCHEMA = {
    "t_ns": pl.Int64,
    "sense": pl.String,
    "family": pl.String,
    "factor": pl.Float32,
    "model_id": pl.String,
}
HEARTBEAT_SCHEMA = {"received_ns": pl.Int64, "signal": pl.String, "clock": pl.String}


@dataclass(slots=True)
class TableWriter:
    """Gathers rows and writes them sorted by arrival; beyond ``spill_rows`` they wait on disk beside ``file``."""

    file: Path
    schema: dict[str, type[pl.DataType]]
    spill_rows: int = SPILL_ROWS
    _parts: list[pl.DataFrame] = field(default_factory=list)
    _rows: int = 0
    _spilled: list[Path] = field(default_factory=list)

    def append(self, part: pl.DataFrame) -> None:
        """Add rows in any order."""
        self._parts.append(part)
        self._rows += len(part)
        if self._rows >= self.spill_rows:
            file = self.file.with_suffix(f".{len(self._spilled)}.part")
            self._gathered().write_parquet(file)
            self._spilled.append(file)
        elif len(self._parts) > 4096:
            self._parts = [pl.concat(self._parts)]

    def close(self) -> None:
        """Write the file."""
        rest = self._gathered()
        if self._spilled:
            parts = [*(pl.scan_parquet(file) for file in self._spilled), rest.lazy()]
            pl.concat(parts).sort("received_ns", maintain_order=True).sink_parquet(self.file)
        else:
            rest.sort("received_ns", maintain_order=True).write_parquet(self.file)
        for file in self._spilled:
            file.unlink()

    def _gathered(self) -> pl.DataFrame:
        parts, self._parts, self._rows = self._parts, [], 0
        return pl.concat(parts) if parts else pl.DataFrame(schema=self.schema)


def process_frame(columns: Columns) -> pl.DataFrame:
    """Process values as rows of the table."""
    return pl.DataFrame(
        {
            "t_ns": columns.t_ns,
            "received_ns": columns.received_ns,
            "signal": pl.Series(columns.signals, dtype=pl.String).gather(columns.index),
            "value": columns.value,
            "quality": columns.quality,
            "clock": pl.repeat(columns.clock, len(columns), dtype=pl.String, eager=True),
        },
        schema=PROCESS_SCHEMA,
    )


def surprise_frame(peaks: Sequence[Peaks]) -> pl.DataFrame:
    """How unusual ticks were, one row for each sense and family of each."""
    rows = [
        (tick.t_ns, sense, family, factor, tick.model_id)
        for tick in peaks
        for sense, family, factor in zip(tick.senses, tick.families, tick.factor.tolist(), strict=True)
    ]
    return pl.DataFrame(rows, schema=SURPRISE_SCHEMA, orient="row")


def heartbeat_frame(columns: Columns) -> pl.DataFrame:
    """A heartbeat as one row for each signal that is alive."""
    rows = [(columns.heartbeat_ns, signal, columns.clock) for signal in columns.signals]
    return pl.DataFrame(rows, schema=HEARTBEAT_SCHEMA, orient="row")


def read_table(file: Path, schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """A Parquet file with at least the columns of ``schema``; texts may be held as categories.

    Raises:
        RecordingError: where it is missing, damaged or lacks a column.
    """
    try:
        table = pl.read_parquet(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RecordingError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    for name, kind in schema.items():
        found = table.schema.get(name)
        if found != kind and not (kind is pl.String and isinstance(found, pl.Enum | pl.Categorical)):
            raise RecordingError(f"{file}: column {name!r} of type {kind.__name__} is required")
    return table


class ProcessTable:
    """Process values in order of arrival, given out as batches of one clock each."""

    def __init__(self, table: pl.DataFrame) -> None:
        self.arrival_ns: Ints = table["received_ns"].to_numpy()
        self._t_ns, self._value, self._quality = (table[name].to_numpy() for name in ("t_ns", "value", "quality"))
        self._names, self._code = _codes(table["signal"])
        self._clocks, self._clock = _codes(table["clock"])
        self._signals = [np.unique(self._code[self._clock == clock]) for clock in range(len(self._clocks))]

    def __len__(self) -> int:
        return len(self.arrival_ns)

    def everything(self) -> Columns:
        """All values as one batch; its clock is named where there is only one."""
        clock = self._clocks[0] if len(self._clocks) == 1 else ""
        return self._batch(slice(None), np.arange(len(self._names)), clock)

    def batches(self, cuts_ns: Ints, slice_ns: int) -> Iterator[Columns]:
        """Batches in strict order of arrival.

        Each is of one clock, spans at most ``slice_ns`` and ends with the last arrival up to each of ``cuts_ns``.
        """
        changes = (np.diff(self.arrival_ns // slice_ns) != 0) | (np.diff(self._clock) != 0)
        cuts = np.union1d(np.flatnonzero(changes) + 1, np.searchsorted(self.arrival_ns, cuts_ns, side="right"))
        edges = np.union1d(cuts, [0, len(self)]).tolist()
        for start, end in pairwise(edges):
            clock = int(self._clock[start])
            yield self._batch(slice(start, end), self._signals[clock], self._clocks[clock])

    def chunks(self, rows: int) -> Iterator[tuple[int, list[Columns]]]:
        """Chunks of about ``rows`` values: the first arrival of each, and one batch for each of its clocks."""
        start = 0
        while start < len(self):
            end = start + rows
            end = len(self) if end >= len(self) else int(np.searchsorted(self.arrival_ns, self.arrival_ns[end]))
            end = end if end > start else int(np.searchsorted(self.arrival_ns, self.arrival_ns[start], side="right"))
            clocks = self._clock[start:end]
            yield (
                int(self.arrival_ns[start]),
                [
                    self._batch(start + np.flatnonzero(clocks == clock), self._signals[clock], self._clocks[clock])
                    for clock in np.unique(clocks)
                ],
            )
            start = end

    def _batch(self, part: slice | Ints, signals: Ints, clock: str) -> Columns:
        return Columns(
            signals=tuple(self._names[i] for i in signals),
            index=np.searchsorted(signals, self._code[part]).astype(np.int32),
            t_ns=self._t_ns[part],
            received_ns=self.arrival_ns[part],
            value=self._value[part],
            quality=self._quality[part],
            clock=clock,
            replayed=True,
        )


def heartbeats(table: pl.DataFrame) -> list[Columns]:
    """Heartbeats in order of arrival: batches without values."""
    grouped = table.group_by("received_ns", "clock", maintain_order=True).agg("signal")
    nothing = np.empty(0, np.int64)
    return [
        Columns(
            signals=tuple(signals),
            index=np.empty(0, np.int32),
            t_ns=nothing,
            received_ns=nothing,
            value=np.empty(0),
            quality=np.empty(0, np.uint8),
            clock=clock,
            replayed=True,
            heartbeat_ns=received_ns,
        )
        for received_ns, clock, signals in grouped.iter_rows()
    ]


def _codes(texts: pl.Series) -> tuple[Sequence[str], Ints]:
    """Distinct texts and the place of each row's text among them."""
    kind = texts.dtype if isinstance(texts.dtype, pl.Enum) else pl.Enum(texts.unique(maintain_order=True))
    return kind.categories.to_list(), texts.cast(kind).to_physical().to_numpy().astype(np.int64)
