"""Files of a historian into the spool: rows counted, their order followed, what cannot be read kept aside."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.historian.quality import BAD
from connectors.historian.rows import Batch, Reader, TagInfo
from connectors.historian.states import ABSURD, SENTINEL
from fusion.errors import HistorianError
from fusion.importing.proposal import ucum
from fusion.importing.report import FileReport
from fusion.importing.spool import Spool, ahead, by_tag
from fusion.records import NS_PER_S

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]
REJECTS_KEPT = 100_000
LEAST_READABLE = 0.5
FAR_NS = 2**62
LARGEST = 1e30  # beyond it nothing is measured in any unit: fill values of formats, the largest float, overflows


def read(
    reader: Reader, spool: Spool, infos: dict[str, TagInfo], rejects: Rejects, bad: Sequence[float] = ()
) -> FileReport:
    """One file into the spool; ``bad`` are numbers that mean no value."""
    report = FileReport(reader.name, reader.format)
    order = _Order(descending=reader.clock is not None and reader.clock.descending)
    for batch in ahead(reader.batches()):
        learn(infos, batch.tags, reader.name)
        _refuse(batch, rejects, report)
        if len(batch.rows):
            rows = spool.append(_masked(batch.rows, bad))
            _count(report, rows, spool.signals)
            order.follow(rows, report)
    report.unread, report.aside = list(reader.unread), list(reader.aside)
    if reader.clock is not None:
        report.repeated_hour, report.ambiguous = reader.clock.repeated, reader.clock.ambiguous
    refused = report.rejected.total()
    if refused and refused >= LEAST_READABLE * (report.rows + refused):
        raise HistorianError(
            f"{reader.name}: {refused} of {report.rows + refused} rows cannot be read as {report.format} "
            f"({reasons([report])})"
        )
    if not report.rows:
        raise HistorianError(f"{reader.name}: no rows below its header")
    log.info(
        "%s: %s, %d rows of %d tags, %d refused", reader.name, report.format, report.rows, len(report.tags), refused
    )
    return report


def _masked(rows: pl.DataFrame, bad: Sequence[float]) -> pl.DataFrame:
    """Numbers that are none as bad values, each with its reason."""
    value = pl.col("value")
    beyond, said = value.abs() > LARGEST, value.is_in(list(bad))
    wrong = beyond | said
    if not rows.select(wrong.any()).item():
        return rows
    reason = pl.when(beyond).then(pl.lit(ABSURD)).when(said).then(pl.lit(SENTINEL))
    return rows.with_columns(
        pl.when(~wrong).then(value).alias("value"),
        pl.when(wrong).then(BAD).otherwise(pl.col("quality")).alias("quality"),
        pl.coalesce(reason, "state").alias("state"),
        pl.coalesce(pl.when(wrong).then(value.cast(pl.String)), "text").alias("text"),
    )


def _refuse(batch: Batch, rejects: Rejects, report: FileReport) -> None:
    rejects.add(batch.rejects)
    report.rejected.update(dict(list(batch.rejects.group_by("reason").len().iter_rows())))
    report.empty += batch.empty


def _count(report: FileReport, rows: pl.DataFrame, signals: Sequence[str]) -> None:
    """Rows, tags and span."""
    report.rows += len(rows)
    report.tags.update(signals[code] for code in np.flatnonzero(np.bincount(rows["code"])).tolist())
    low, high = int(rows["t_ns"].min()), int(rows["t_ns"].max())  # type: ignore[arg-type]
    report.first_ns, report.last_ns = min(low, report.first_ns or low), max(high, report.last_ns or high)


class _Order:
    """Where the stamps of a tag go back against its row before: a clock was set back, or rows were moved."""

    def __init__(self, *, descending: bool) -> None:
        self._descending, self._onward = descending, -1 if descending else 1
        self._last = np.empty(0, np.int64)

    def follow(self, rows: pl.DataFrame, report: FileReport) -> None:
        """Count the steps back, and remember the longest."""
        code, t_ns = rows["code"].to_numpy(), rows["t_ns"].to_numpy()
        unseen = max(0, int(code.max()) + 1 - len(self._last))
        self._last = np.append(self._last, np.full(unseen, FAR_NS if self._descending else 0))
        ordered = rows["t_ns"].is_sorted(descending=self._descending)
        if not ordered or (self._onward * (t_ns[0] - self._last) < 0).any():
            self._steps_back(code, t_ns, report)
        self._last[code] = t_ns  # of several rows of a tag the last one stays

    def _steps_back(self, code: NDArray[np.uint32], t_ns: Ints, report: FileReport) -> None:
        seen, at_ns = np.append(np.arange(len(self._last)), code), np.append(self._last, t_ns)
        order = by_tag(seen)
        seen, at_ns = seen[order], at_ns[order]
        back_ns = np.where(seen[1:] == seen[:-1], -self._onward * np.diff(at_ns), 0)
        report.backwards += int((back_ns > 0).sum())
        longest = int(back_ns.argmax())
        if back_ns[longest] / NS_PER_S > report.furthest_back_s:
            report.furthest_back_s, report.furthest_back_ns = float(back_ns[longest] / NS_PER_S), int(at_ns[longest])


def learn(infos: dict[str, TagInfo], tags: Mapping[str, TagInfo], where: str) -> None:
    """Keep what is said of tags; a second unit for one tag is refused, since its values would be mixed up."""
    for tag, info in tags.items():
        known = infos.get(tag)
        said = [*(known.unit if known else "").split("\n"), *info.unit.split("\n")]
        units = list(dict.fromkeys(ucum(unit) for unit in said if unit.strip()))
        if len(units) > 1:
            raise HistorianError(
                f"{where}: the unit of tag {tag} changes from {units[0]!r} to {units[1]!r}; convert one of them, or "
                "import them as two tags"
            )
        if known is None or (info.unit and not known.unit):
            infos[tag] = info


def reasons(files: Sequence[FileReport]) -> str:
    """Why rows were refused, the most frequent first."""
    total = sum((report.rejected for report in files), Counter[str]())
    return ", ".join(f"{count} x {reason}" for reason, count in total.most_common(3)) or "no rows at all"


class Rejects:
    """The reject file: the first many rows that could not be read, each with its file, line and reason."""

    def __init__(self, file: Path) -> None:
        self._stream = file.open("w", encoding="utf-8")
        self._stream.write("file,line,reason,text\n")
        self._left = REJECTS_KEPT

    def add(self, rows: pl.DataFrame) -> None:
        """Append some."""
        kept = rows.head(self._left)
        self._left -= len(kept)
        if len(kept):
            self._stream.write(kept.write_csv(include_header=False))

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
