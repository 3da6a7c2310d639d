"""The one shape that every format is read into, and the last steps that all share: numbers, states, rejects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import polars as pl

from connectors.historian.headers import NUMBER_AND_UNIT, SCALES
from connectors.historian.quality import BAD
from connectors.historian.stamps import StampReader
from connectors.historian.states import NO_DATA, state_of

SCHEMA: Mapping[str, type[pl.DataType]] = {
    "signal": pl.String,
    "t_ns": pl.Int64,
    "value": pl.Float64,
    "quality": pl.UInt8,
    "state": pl.String,
    "text": pl.String,
}
"""Rows: ``value`` is null where none was written, ``state`` is the kind of a bad state, ``text`` what stood there."""
REJECT_SCHEMA: Mapping[str, type[pl.DataType]] = {
    "file": pl.String,
    "line": pl.Int64,
    "reason": pl.String,
    "text": pl.String,
}
GROUPS = "[{} '\u2019\u00a0\u202f]"  # what stands between groups of three digits
MORE, REFUSED = "_more", "_refused"
REASON_MORE = "more fields than columns"
REASON_NO_TAG = "no tag"
ROWS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What the user knows about the files that they do not say themselves."""

    tz: str = ""
    dates: str = ""
    epoch: str = ""
    series: tuple[str, ...] = ()
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: int = ROWS_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class TagInfo:
    """What a file says about a tag beside its values."""

    unit: str = ""
    description: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows as in ``SCHEMA`` in the order of the file, rejects as in ``REJECT_SCHEMA``, tags met, empty cells passed."""

    rows: pl.DataFrame
    rejects: pl.DataFrame
    tags: Mapping[str, TagInfo] = field(default_factory=dict)
    empty: int = 0


class Reader(Protocol):
    """One file, or one query, of a known format."""

    @property
    def name(self) -> str:
        """What is read, as the user knows it."""

    @property
    def format(self) -> str:
        """The format that was recognised."""

    @property
    def unread(self) -> Sequence[str]:
        """Columns that hold something and are not taken."""

    @property
    def aside(self) -> Sequence[str]:
        """Columns that are known and hold no values of tags: labels, types, numbers of rows."""

    @property
    def clock(self) -> StampReader | None:
        """How its stamps become UTC, with counts of the hours that a zone repeats."""

    def batches(self) -> Iterator[Batch]:
        """The rows in order of the file, in bounded pieces."""


def numbers(column: pl.Expr, *, decimal_comma: bool = False) -> pl.Expr:
    """Texts as numbers, null where they are none; truth values are 0 and 1."""
    text = column.str.strip_chars().str.replace("\u2212", "-", literal=True)
    point, between = (",", GROUPS.format(".")) if decimal_comma else (".", GROUPS.format(","))
    grouped = text.str.contains(rf"^[+-]?\d{{1,3}}({between}\d{{3}})+([{point}]\d*)?([eEdD][+-]?\d+)?$")
    text = pl.when(grouped).then(text.str.replace_all(between, "")).otherwise(text)
    if decimal_comma:
        text = text.str.replace(",", ".", literal=True)
    text = text.str.replace(r"^([+-]?\d+\.?\d*)[dD]([+-]?\d+)$", "${1}e${2}")
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def refuse_damaged(stamped: pl.DataFrame) -> pl.DataFrame:
    """Rows in ``_refused``, and rows in ``_more``, cut otherwise than the header: which cell is which is not known."""
    reasons = []
    if REFUSED in stamped.columns:
        reasons.append(pl.col(REFUSED))
    if MORE in stamped.columns and stamped[MORE].null_count() < len(stamped):
        reasons.append(pl.when(pl.col(MORE).is_not_null()).then(pl.lit(REASON_MORE)))
    return stamped.with_columns(pl.coalesce(*reasons, "why").alias("why")) if reasons else stamped


def finish(raw: pl.DataFrame, where: str, *, decimal_comma: bool = False) -> Batch:
    """Rows with ``line, signal, t_ns, why, value, quality`` as one batch.

    ``value`` may be text or numbers, ``why`` says for what reason a row cannot be read, null where it can.
    """
    if raw["signal"].has_nulls() or (raw.schema["signal"] == pl.String and (raw["signal"] == "").any()):
        nameless = pl.col("why").is_null() & (pl.col("signal").is_null() | (pl.col("signal").cast(pl.String) == ""))
        why = pl.when(nameless).then(pl.lit(REASON_NO_TAG)).otherwise(pl.col("why"))
        raw = raw.with_columns(why.alias("why"))
    bad = raw["why"].is_not_null()
    good, rejects = raw, pl.DataFrame(schema=REJECT_SCHEMA)
    if bad.any():
        good, rejects = raw.filter(~bad), _rejects(raw.filter(bad), where)
    rows = _typed(good, decimal_comma=decimal_comma)
    if not rows["text"].null_count() < len(rows):
        return Batch(rows=rows, rejects=rejects)
    good, units = _units(good)
    return Batch(rows=_typed(good, decimal_comma=decimal_comma) if units else rows, rejects=rejects, tags=units)


def _units(good: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, TagInfo]]:
    """Texts that are a number and a unit as their numbers, and the units of each tag, all of them where they differ."""
    if good.schema["value"] != pl.String or not len(good):
        return good, {}
    parts = good["value"].str.strip_chars().str.extract_groups(NUMBER_AND_UNIT).struct.unnest()
    sure = parts["unit"].is_not_null() & ~parts["unit"].str.to_lowercase().is_in(SCALES)
    if not sure.any():
        return good, {}
    named = pl.DataFrame([good["signal"].cast(pl.String).str.strip_chars(), parts["unit"]]).filter(sure)
    units = named.group_by("signal").agg(pl.col("unit").unique(maintain_order=True))
    number = pl.when(sure).then(parts["number"]).otherwise(pl.col("value"))
    return good.with_columns(number.alias("value")), {
        tag: TagInfo(unit="\n".join(all_)) for tag, all_ in units.iter_rows()
    }


def merged(known: Mapping[str, TagInfo], units: Mapping[str, TagInfo]) -> dict[str, TagInfo]:
    """What is known of tags, with further units."""
    more = {
        tag: replace(known[tag], unit=f"{known[tag].unit}\n{info.unit}".strip()) if tag in known else info
        for tag, info in units.items()
    }
    return {**known, **more}


def _typed(good: pl.DataFrame, *, decimal_comma: bool) -> pl.DataFrame:
    if good.schema["value"] == pl.String:
        plain = good["value"].cast(pl.Float64, strict=False) if not decimal_comma else None
        if plain is not None and not plain.has_nulls() and plain.is_finite().all():
            return _all_numbers(good.with_columns(plain.alias("number")))
        good = good.with_columns(numbers(pl.col("value"), decimal_comma=decimal_comma).alias("number"))
    else:
        number = pl.col("value").cast(pl.Float64)
        good = good.with_columns(
            pl.when(number.is_finite()).then(number).alias("number"), pl.lit(None, pl.String).alias("value")
        )
    return _with_states(good) if good["number"].has_nulls() else _all_numbers(good)


def _all_numbers(good: pl.DataFrame) -> pl.DataFrame:
    none = pl.lit(None, pl.String)
    return good.select(
        "signal", "t_ns", pl.col("number").alias("value"), "quality", none.alias("state"), none.alias("text")
    )


def _with_states(good: pl.DataFrame) -> pl.DataFrame:
    missing = pl.col("number").is_null()
    text = pl.when(missing).then(pl.col("value").str.strip_chars())
    truth = text.str.to_lowercase().replace_strict({"true": 1.0, "false": 0.0}, default=None, return_dtype=pl.Float64)
    state = pl.when(missing & truth.is_null()).then(
        pl.coalesce(state_of(text), pl.when(text.fill_null("") == "").then(pl.lit(NO_DATA)))
    )
    return good.select(
        "signal",
        "t_ns",
        pl.coalesce("number", truth).alias("value"),
        pl.when(state.is_not_null()).then(BAD).otherwise(pl.col("quality")).alias("quality"),
        state.alias("state"),
        pl.when(truth.is_null()).then(text).alias("text"),
    )


def _rejects(rows: pl.DataFrame, where: str) -> pl.DataFrame:
    shown = [c for c in rows.columns if c in ("signal", "stamp", "value", MORE)]
    return rows.select(
        pl.lit(where).alias("file"),
        pl.col("line").cast(pl.Int64),
        pl.col("why").alias("reason"),
        pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in shown], separator=" | ").alias("text"),
    )
