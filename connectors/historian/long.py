"""Exports with one value a line: PI, Proficy, AVEVA, Ignition. A dialect is a record: which header words mean what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from connectors.historian.headers import (
    ASIDE,
    DESCRIPTIONS,
    FLAGS,
    SOUNDS_OF_QUALITY,
    TAGS,
    TIMES,
    UNITS,
    VALIDITY,
    VALUES,
)
from connectors.historian.quality import (
    Rule,
    aveva,
    aveva_detail,
    by_evidence,
    ignition,
    like_quality,
    may_be_quality,
    opc_da,
    words,
    worst,
)
from connectors.historian.rows import MORE, REFUSED, Batch, TagInfo, finish, merged, refuse_damaged
from connectors.historian.stamps import StampReader
from connectors.historian.text import Sheet, plain
from fusion.errors import ConfigError

OFTEN = 0.2  # share of rows that a column must part before it is taken for a name of series
Samples = Mapping[str, Sequence[str]]


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
    unit: tuple[str, ...] = UNITS
    description: tuple[str, ...] = DESCRIPTIONS


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
    Dialect(name="long CSV", tag=TAGS, time=TIMES, value=VALUES, quality=FLAGS),
)
GE_ETL = Dialect(name="GE ETL", tag=("tag",), time=("time",), value=("value",), quality={"quality": words})
BARE = Dialect(
    name="long CSV without header", tag=("tag",), time=("time",), value=("value",), quality={"quality": None}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPlan:
    """Which column of a table is what; ``values`` in order of preference.

    ``series`` are all columns that name a tag, in their order, where it takes more than one; ``unread`` are those that
    nothing is known of.
    """

    dialect: str
    tag: str
    time: str
    values: tuple[str, ...]
    quality: Mapping[str, Rule]
    unit: str = ""
    description: str = ""
    series: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Every column that is read, once."""
        named = (self.tag, self.time, *self.values, *self.quality, self.unit, self.description, *self.series)
        return list(dict.fromkeys(name for name in named if name))

    def signal(self, where: str) -> pl.Expr:
        """The name of the tag of each row; that of the file where no column says it."""
        if not self.tag:
            return pl.lit(Path(where).stem)
        parts = [pl.col(name).cast(pl.String).str.strip_chars() for name in self.series]
        return pl.concat_str(parts, separator=".") if self.series else pl.col(self.tag).cast(pl.String)


def plan(
    header: Sequence[str], samples: Samples, dialects: Sequence[Dialect] = DIALECTS, series: Sequence[str] = ()
) -> LongPlan | None:
    """How a table with this header is read, if any dialect knows it; ``samples`` are some texts of each column.

    Raises:
        ConfigError: where a column of ``series``, which the user named, is not there.
    """
    words_of = {word: name for name in header if (word := plain(name))}
    for dialect in dialects:
        tag, time = _first(words_of, dialect.tag), _first(words_of, dialect.time)
        values = tuple(words_of[w] for w in dialect.value if w in words_of)
        marked = not dialect.marks or any(w in words_of for w in dialect.marks)
        if not (tag and time and values and marked) or tag == time:
            continue
        known = LongPlan(
            dialect=dialect.name,
            tag=tag,
            time=time,
            values=values if dialect.marks else values[:1],
            quality=_rules(dialect.quality, words_of, samples),
            unit=_first(words_of, dialect.unit),
            description=_first(words_of, dialect.description),
        )
        return _with_the_rest(known, header, samples, series)
    return _single(words_of, samples)


def _rules(known: Mapping[str, Rule | None], words_of: Mapping[str, str], samples: Samples) -> dict[str, Rule]:
    return {
        words_of[w]: rule or by_evidence(samples.get(words_of[w], ()), valid=w in VALIDITY)
        for w, rule in known.items()
        if w in words_of and (rule or may_be_quality(samples.get(words_of[w], ())))
    }


def _with_the_rest(how: LongPlan, header: Sequence[str], samples: Samples, series: Sequence[str]) -> LongPlan:
    """The plan with what its other columns are by their content: quality, names of series, unknown."""
    absent = [name for name in series if name not in header]
    if absent:
        raise ConfigError(f"--series: there is no column {absent[0]!r}; expected some of {', '.join(header)}")
    rest = [name for name in header if name not in how.columns and plain(name) not in ASIDE]
    rest = [name for name in rest if any(text.strip() for text in samples.get(name, ()))]
    quality = {name: by_evidence(samples[name]) for name in rest if _is_of_quality(name, samples[name])}
    how = replace(how, quality={**how.quality, **quality})
    rest = [name for name in rest if name not in quality]
    more = series or _told_apart_by(how, rest, samples)
    how = replace(how, series=tuple(name for name in header if name in (how.tag, *more)) if more else ())
    return replace(how, unread=tuple(name for name in rest if name not in how.series))


def _is_of_quality(name: str, texts: Sequence[str]) -> bool:
    sounds = any(part in plain(name) for part in SOUNDS_OF_QUALITY)
    return like_quality(texts) or (sounds and may_be_quality(texts))


def _told_apart_by(how: LongPlan, rest: Sequence[str], samples: Samples) -> tuple[str, ...]:
    """The fewest of some columns of texts without which many rows of one tag and time would differ.

    A column of numbers may count what is quicker than the stamps, and names a series only where the user says so.
    """
    if not rest:
        return ()
    table = pl.DataFrame({name: samples[name] for name in [*how.columns, *rest]})
    least = OFTEN * len(table)
    words = [name for name in rest if not table[name].cast(pl.Float64, strict=False).count() and "" not in table[name]]
    found: list[str] = []
    while True:
        keys = [how.tag, how.time, *found]
        parted = {
            name: int(table.select((pl.col(name).n_unique().over(keys) > 1).sum()).item())
            for name in words
            if name not in found and 2 * table[name].n_unique() <= len(table)
        }
        best = max(parted, key=lambda name: parted[name], default="")
        if not best or parted[best] <= least:
            return tuple(name for name in rest if name in found)
        found.append(best)


def _single(words_of: Mapping[str, str], samples: Samples) -> LongPlan | None:
    """A file of one tag, which is called after it: time and value, perhaps quality, nothing else."""
    time, value = _first(words_of, TIMES), _first(words_of, VALUES)
    quality = _rules(FLAGS, words_of, samples)
    unit = _first(words_of, UNITS)
    aside = {name for word, name in words_of.items() if word in ASIDE}
    if not time or not value or set(words_of.values()) - {time, value, unit, *quality, *aside}:
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

    @property
    def unread(self) -> Sequence[str]:
        """Columns of which nothing is known."""
        return self.plan.unread

    @property
    def aside(self) -> Sequence[str]:
        """Columns that say nothing of a value that others do not."""
        return [name for name in self.sheet.columns if plain(name) in ASIDE and name not in self.plan.columns]

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
    frame = _without_marks(frame, plan)
    raw = frame.select(
        "line",
        plan.signal(where).alias("signal"),
        pl.col(plan.time).alias("stamp"),
        pl.coalesce(plan.values).alias("value"),
        worst([rule(pl.col(name)) for name, rule in plan.quality.items()]).alias("quality"),
        *[pl.col(name) for name in (MORE, REFUSED) if name in frame.columns],
    )
    raw = refuse_damaged(clock.utc(raw))
    done = finish(raw, where, decimal_comma=decimal_comma)
    return replace(done, tags=merged({**(infos or {}), **_tags(frame, plan, where)}, done.tags))


def _without_marks(frame: pl.DataFrame, plan: LongPlan) -> pl.DataFrame:
    """Rows that hold no value: the header once more, what `sqlcmd` puts around rows, marks of WinCC (`$RT_OFF$`)."""
    marks, time = list[pl.Expr](), pl.col(plan.time)
    if frame.schema[plan.time] == pl.String:
        marks = [time == plan.time, time.str.contains("^-+$")]
    if plan.tag and frame.schema[plan.tag] == pl.String:
        marks.append(pl.col(plan.tag).str.contains(r"^(\$RT_|\(\d+ rows? affected\)$)"))
    mark = pl.any_horizontal(*marks).fill_null(value=False) if marks else pl.lit(value=False)
    return frame.filter(~mark) if frame.select(mark.any()).item() else frame


def _tags(frame: pl.DataFrame, plan: LongPlan, where: str) -> dict[str, TagInfo]:
    """What the rows say of their tags; a tag with two units keeps them both, so that it can be refused."""
    named = [name for name in (plan.unit, plan.description) if name]
    if not named:
        return {}
    found = frame.group_by(plan.signal(where).str.strip_chars()).agg(
        pl.col(n).drop_nulls().unique(maintain_order=True) for n in named
    )
    infos = {}
    for tag, *parts in found.iter_rows():
        of = dict(zip(named, parts, strict=True))
        description = next(iter(of.get(plan.description) or []), "")
        infos[str(tag)] = TagInfo(unit="\n".join(of.get(plan.unit) or []), description=description)
    return infos
