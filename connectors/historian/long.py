"""Exports with one value a line: PI, Proficy, AVEVA, Ignition. A dialect is a record: which header words mean what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from connectors.historian.quality import (
    Rule,
    aveva,
    aveva_detail,
    by_evidence,
    flag_bad,
    flag_doubt,
    flag_good,
    ignition,
    opc_da,
    opc_ua,
    words,
    worst,
)
from connectors.historian.rows import MORE, Batch, TagInfo, finish, refuse_longer
from connectors.historian.stamps import StampReader
from connectors.historian.text import Sheet, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Header words (without case and signs) of one historian; the first word that is there counts.

    ``quality`` maps columns to what their content means; None: told by evidence. ``marks`` must be present, one of them
    at least.
    """

    name: str
    tag: tuple[str, ...]
    time: tuple[str, ...]
    value: tuple[str, ...]
    marks: tuple[str, ...] = ()
    quality: Mapping[str, Rule | None] = field(default_factory=dict)
    unit: tuple[str, ...] = ("uom", "unit", "units", "engunits", "engineeringunits", "unitsabbreviation", "einheit")
    description: tuple[str, ...] = ("description", "descriptor", "desc")


_TAGS = (
    "tag",
    "tagname",
    "tagpath",
    "pointname",
    "point",
    "name",
    "signal",
    "variable",
    "path",
    "attribute",
    "tagid",
    "sensor",
)
_TIMES = (
    "timestamp",
    "tstamp",
    "time",
    "datetime",
    "date",
    "ts",
    "sourcetimestamp",
    "sourcetime",
    "zeit",
    "zeitstempel",
    "utc",
)
_VALUES = ("value", "val", "wert", "pv", "reading", "data", "fvalue")
_FLAGS: Mapping[str, Rule | None] = {
    "good": flag_good,
    "isgood": flag_good,
    "questionable": flag_doubt,
    "substituted": flag_doubt,
    "invalid": flag_bad,
    "weak": flag_doubt,
    "manual": flag_doubt,
    "status": None,
    "statuscode": opc_ua,
    "quality": None,
    "qualitycode": None,
    "dataquality": None,
    "dataintegrity": ignition,
}
DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        name="AVEVA Historian",
        tag=("tagname", "tag"),
        time=("datetime", "timestamp", "datetimeutc"),
        value=("value", "vvalue"),
        marks=("qualitydetail", "opcquality", "vvalue"),
        quality={"opcquality": opc_da, "qualitydetail": aveva_detail, "quality": aveva},
    ),
    Dialect(
        name="Ignition table",
        tag=("tagpath", "tagid"),
        time=("tstamp",),
        value=("floatvalue", "intvalue", "stringvalue"),
        marks=("floatvalue", "intvalue", "dataintegrity"),
        quality={"dataintegrity": ignition},
    ),
    Dialect(
        name="GE Proficy",
        tag=("tagname",),
        time=("timestamp",),
        value=("value",),
        marks=("dataquality",),
        quality={"dataquality": None},
    ),
    Dialect(name="long CSV", tag=_TAGS, time=_TIMES, value=_VALUES, quality=_FLAGS),
)
GE_ETL = Dialect(name="GE ETL", tag=("tag",), time=("time",), value=("value",), quality={"quality": words})
BARE = Dialect(
    name="long CSV without header", tag=("tag",), time=("time",), value=("value",), quality={"quality": None}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPlan:
    """Which column of a table is what; ``values`` in order of preference."""

    dialect: str
    tag: str
    time: str
    values: tuple[str, ...]
    quality: Mapping[str, Rule]
    unit: str = ""
    description: str = ""


def plan(
    header: Sequence[str], samples: Mapping[str, Sequence[str]], dialects: Sequence[Dialect] = DIALECTS
) -> LongPlan | None:
    """How a table with this header is read, if any dialect knows it; ``samples`` are some texts of each column."""
    words_of = {word: name for name in header if (word := plain(name))}
    for dialect in dialects:
        found = {part: _first(words_of, getattr(dialect, part)) for part in ("tag", "time", "unit", "description")}
        values = tuple(words_of[w] for w in dialect.value if w in words_of)
        marked = not dialect.marks or any(w in words_of for w in dialect.marks)
        if not (found["tag"] and found["time"] and values and marked) or found["tag"] == found["time"]:
            continue
        rules = {
            words_of[w]: rule or by_evidence(samples.get(words_of[w], ()))
            for w, rule in dialect.quality.items()
            if w in words_of
        }
        used = values if dialect.marks else values[:1]
        return LongPlan(dialect=dialect.name, values=used, quality=rules, **found)
    return _single(words_of, samples)


def _single(words_of: Mapping[str, str], samples: Mapping[str, Sequence[str]]) -> LongPlan | None:
    """A file of one tag, which is called after it: time and value, perhaps quality, nothing else."""
    time, value = _first(words_of, _TIMES), _first(words_of, _VALUES)
    quality = {
        words_of[w]: rule or by_evidence(samples.get(words_of[w], ())) for w, rule in _FLAGS.items() if w in words_of
    }
    unit = _first(words_of, DIALECTS[-1].unit)
    if not time or not value or set(words_of.values()) - {time, value, unit, *quality}:
        return None
    return LongPlan(dialect="CSV of one tag", tag="", time=time, values=(value,), quality=quality, unit=unit)


def _first(words_of: Mapping[str, str], wanted: Sequence[str]) -> str:
    return next((words_of[w] for w in wanted if w in words_of), "")


@dataclass(slots=True)
class LongReader:
    """A text file with one value a line; ``tag`` names the one signal of a file that has no tag column."""

    sheet: Sheet
    plan: LongPlan
    clock: StampReader
    rows: int
    infos: Mapping[str, TagInfo] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file."""
        return self.sheet.name

    @property
    def format(self) -> str:
        """The dialect."""
        return self.plan.dialect

    def batches(self) -> Iterator[Batch]:
        """The rows in order of the file."""
        for frame in self.sheet.batches(self.rows):
            yield long_batch(
                frame, self.plan, self.clock, self.name, self.infos, decimal_comma=self.sheet.decimal_comma
            )


def long_batch(
    frame: pl.DataFrame,
    plan: LongPlan,
    clock: StampReader,
    where: str,
    infos: Mapping[str, TagInfo] | None = None,
    *,
    decimal_comma: bool = False,
) -> Batch:
    """Rows of a table with one value a line, all columns text, with ``line`` and perhaps ``_more``."""
    raw = frame.select(
        "line",
        (pl.col(plan.tag).cast(pl.String) if plan.tag else pl.lit(Path(where).stem)).alias("signal"),
        pl.col(plan.time).alias("stamp"),
        pl.coalesce(plan.values).alias("value"),
        worst([rule(pl.col(name)) for name, rule in plan.quality.items()]).alias("quality"),
        *([pl.col(MORE)] if MORE in frame.columns else []),
    )
    raw = refuse_longer(clock.utc(raw))
    return replace(finish(raw, where, decimal_comma=decimal_comma), tags={**(infos or {}), **_tags(frame, plan, where)})


def _tags(frame: pl.DataFrame, plan: LongPlan, where: str) -> dict[str, TagInfo]:
    """What the rows say of their tags; a tag with two units keeps them both, so that it can be refused."""
    named = [name for name in (plan.unit, plan.description) if name]
    if not named:
        return {}
    tag = pl.col(plan.tag).cast(pl.String).str.strip_chars() if plan.tag else pl.lit(Path(where).stem)
    found = frame.group_by(tag).agg(pl.col(n).drop_nulls().unique(maintain_order=True) for n in named)
    infos = {}
    for tag, *parts in found.iter_rows():
        of = dict(zip(named, parts, strict=True))
        description = next(iter(of.get(plan.description) or []), "")
        infos[str(tag)] = TagInfo(unit="\n".join(of.get(plan.unit) or []), description=description)
    return infos
