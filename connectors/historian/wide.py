"""Exports with one column a tag: several header rows (tag, unit, description), and value and quality side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from connectors.historian.headers import DESCRIPTIONS, QUALITIES, TIMES, UNIT, UNITS, VALIDITY
from connectors.historian.quality import GOOD, Rule, by_evidence, may_be_quality
from connectors.historian.rows import Batch, TagInfo, finish, merged, refuse_damaged
from connectors.historian.stamps import StampReader
from connectors.historian.text import Sheet, plain
from fusion.errors import HistorianError

TIME_WORDS = {*TIMES, "tag", "tagname", "name", "index"}
_TAIL = re.compile(r"^(?P<base>.*?)[ ._:(\[-]+(?P<word>[^ ._:()\[\]-]+)[)\]]*$")
QUALITY_WORDS = frozenset({*QUALITIES, *VALIDITY} - {"flag"})
_VALUE_NAME = re.compile(r"(?i)[ ._(\[-]+(value|val|wert)[)\]]*$")
_UNIT_IN_NAME = re.compile(r"^(?P<name>.+?)\s*[\[(](?P<unit>[^\])]+)[\])]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class WidePlan:
    """``pairs`` is (value column, quality column or ""), ``names`` the tag of each value column."""

    pairs: tuple[tuple[str, str], ...]
    names: Mapping[str, str]
    rules: Mapping[str, Rule] = field(default_factory=dict)
    time: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The rows above the data, by what they say, one text per column."""

    tags: Sequence[str]
    units: Sequence[str] = ()
    descriptions: Sequence[str] = ()


def read_header(where: str, rows: Sequence[Sequence[str]], times: int) -> Header | None:
    """Tell tag, unit and description rows apart; ``times`` columns in front hold the stamp.

    Raises:
        HistorianError: where the row of tags names one twice.
    """
    rest = list(range(len(rows)))
    tags = _named(rows, rest, TIME_WORDS, lambda cells: _distinct(cells[times:], like_units=True))
    if tags is None:
        _not_twice(where, [rows[i][times:] for i in rest if rows[i] and plain(rows[i][0]) in TIME_WORDS])
        tags = next((i for i in rest if _distinct(rows[i][times:])), None)
    if tags is None:
        return None
    rest.remove(tags)
    units = _named(rows, rest, UNITS, lambda cells: True)
    if units is None:
        units = next((i for i in rest if _unit_like(rows[i][times:])), None)
    rest = [i for i in rest if i != units]
    described = _named(rows, rest, DESCRIPTIONS, lambda cells: True)
    if described is None:
        described = next((i for i in rest if any(c.strip() for c in rows[i][times:])), None)
    return Header(
        tags=rows[tags],
        units=rows[units] if units is not None else (),
        descriptions=rows[described] if described is not None else (),
    )


def _named(
    rows: Sequence[Sequence[str]], rest: Sequence[int], words: Collection[str], fits: Callable[[Sequence[str]], bool]
) -> int | None:
    return next((i for i in rest if rows[i] and plain(rows[i][0]) in words and fits(rows[i])), None)


def _distinct(cells: Sequence[str], *, like_units: bool = False) -> bool:
    """Whether cells can be names of tags: present and different, quality columns (empty or alike) aside."""
    names = [c.strip() for c in cells if c.strip() and not _is_quality(c)]
    different = bool(names) and len(set(names)) == len(names) and len(names) >= len(cells) / 2 - 1
    return different and (like_units or not _unit_like(names))


def _not_twice(where: str, rows: Sequence[Sequence[str]]) -> None:
    """Refuse a name that heads two of several columns; where all are called alike it is no row of tags."""
    for cells in rows:
        count = Counter(c.strip() for c in cells if c.strip() and not _is_quality(c))
        twice = [name for name, n in count.items() if n > 1]
        if twice and len(count) > 1:
            raise HistorianError(f"{where}: two columns are called {twice[0]!r}; a tag can have one column")


def _unit_like(cells: Sequence[str]) -> bool:
    some = [c.strip().strip("[]()") for c in cells if c.strip()]
    return bool(some) and sum(bool(UNIT.match(c)) for c in some) >= 0.5 * len(some)


def _is_quality(name: str) -> bool:
    return plain(name) in QUALITY_WORDS


def _base(name: str) -> str:
    """`A.Quality`, `A (Status)` and `A_q` without their last word, where that is one of quality."""
    tail = _TAIL.match(name)
    return tail["base"] if tail and _is_quality(tail["word"]) else name


def make_plan(
    header: Header, columns: Sequence[str], times: int, samples: Mapping[str, Sequence[str]]
) -> tuple[WidePlan, dict[str, TagInfo]]:
    """Columns of values with their quality columns, and what the header says of each tag."""
    titles = [_cell(header.tags, i) for i in range(len(columns))]
    seen = dict(zip(titles, (samples.get(column, ()) for column in columns), strict=True))
    apart = {value: title for value, title in _apart(titles[times:]).items() if may_be_quality(seen[title])}
    count = Counter(_named_unit(title)[0] for title in titles[times:])
    pairs: list[tuple[str, str]] = []
    names: dict[str, str] = {}
    infos: dict[str, TagInfo] = {}
    unread: list[str] = []
    for i in range(times, len(columns)):
        title = titles[i]
        if title in apart.values():
            continue
        if pairs and not pairs[-1][1] and _quality_of(title, names[pairs[-1][0]], samples.get(columns[i], ())):
            pairs[-1] = (pairs[-1][0], columns[i])
            continue
        if not title:
            if any(text.strip() for text in samples.get(columns[i], ())):
                unread.append(f"column {i + 1}, which has no name")
            continue
        name, unit = _named_unit(_VALUE_NAME.sub("", title) if title in apart else title)
        pairs.append((columns[i], columns[titles.index(apart[title])] if title in apart else ""))
        name = title if count[name] > 1 else name  # `A [bar]` and `A [°C]` are two tags
        names[columns[i]] = name
        infos[name] = TagInfo(
            unit=_cell(header.units, i).strip("[]()") or unit, description=_cell(header.descriptions, i)
        )
    pairs = _of_all(pairs, dict(zip(columns, titles, strict=True)))
    word = {
        c: title if _is_quality(title) else title.removeprefix(_base(title))
        for c, title in zip(columns, titles, strict=True)
    }
    rules = {q: by_evidence(samples.get(q, ()), valid=plain(word[q]) in VALIDITY) for _, q in pairs if q}
    made = WidePlan(pairs=tuple(pairs), names=names, rules=rules, time=tuple(columns[:times]), unread=tuple(unread))
    return made, infos


def _of_all(pairs: list[tuple[str, str]], titles: Mapping[str, str]) -> list[tuple[str, str]]:
    """A single column that is called quality and nothing else, behind all values, is that of the row."""
    found = {quality for _, quality in pairs if quality}
    if len(found) != 1 or not pairs[-1][1] or not _is_quality(titles[pairs[-1][1]]):
        return pairs
    return [(value, pairs[-1][1]) for value, _ in pairs]


def _apart(titles: Sequence[str]) -> dict[str, str]:
    """The quality column of each value column that has one by its name, wherever it stands."""
    bases = {_VALUE_NAME.sub("", title): title for title in titles if title and not _is_quality(title)}
    found = {}
    for title in titles:
        base = _base(title)
        if base and base != title and base in bases and bases[base] != title:
            found[bases[base]] = title
    return found


def _named_unit(title: str) -> tuple[str, str]:
    """`Flow [m3/h]` is a tag and its unit; other words in brackets belong to the name."""
    found = _UNIT_IN_NAME.match(title)
    return (found["name"], found["unit"]) if found and UNIT.match(found["unit"]) else (title, "")


def _quality_of(title: str, tag: str, samples: Sequence[str]) -> bool:
    """Whether a column is the quality of the tag before it: by its name, or unnamed with words of quality in it."""
    if _is_quality(title) or (title != tag and _base(title) == tag):
        return may_be_quality(samples)
    texts = {str(s).strip().lower() for s in samples if s}
    return (
        title in ("", tag)
        and bool(texts)
        and texts <= {"good", "bad", "uncertain", "questionable", "192", "0", "64", "g", "b", "u"}
    )


def _cell(row: Sequence[str], i: int) -> str:
    return row[i].strip() if i < len(row) else ""


@dataclass(slots=True)
class WideReader:
    """A text file with one column a tag."""

    sheet: Sheet
    plan: WidePlan
    clock: StampReader
    rows: int
    infos: Mapping[str, TagInfo] = field(default_factory=dict)
    format: str = "wide CSV"
    aside: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The file."""
        return self.sheet.name

    @property
    def unread(self) -> Sequence[str]:
        """Columns without a name that hold something."""
        return self.plan.unread

    def batches(self) -> Iterator[Batch]:
        """The rows in order of the file; a cell with nothing in it is no value, and is counted."""
        for frame in self.sheet.batches(max(1000, self.rows // max(1, len(self.plan.pairs)))):
            stamped = frame.with_columns(pl.concat_str(self.plan.time, separator=" ").alias("stamp"))
            yield wide_batch(
                stamped, self.plan, self.clock, self.name, self.infos, decimal_comma=self.sheet.decimal_comma
            )


def wide_batch(
    frame: pl.DataFrame,
    plan: WidePlan,
    clock: StampReader,
    where: str,
    infos: Mapping[str, TagInfo],
    *,
    decimal_comma: bool = False,
) -> Batch:
    """Rows of a table with ``line``, ``stamp`` and one column a tag, perhaps ``_more``."""
    stamped = refuse_damaged(clock.utc(frame))
    bad = stamped.filter(pl.col("why").is_not_null())
    first = plan.pairs[0][0]
    refused = bad.select(
        "line",
        "stamp",
        "t_ns",
        "why",
        pl.lit("*").alias("signal"),
        pl.col(first).cast(pl.String).alias("value"),
        GOOD.alias("quality"),
    )
    good = stamped.filter(pl.col("why").is_null()) if len(bad) else stamped
    long, empty = _numbers(good, plan) or _unpivoted(good, plan)
    done = finish(long, where, decimal_comma=decimal_comma)
    rejects = finish(refused, where).rejects if len(bad) else done.rejects
    return replace(done, rejects=rejects, tags=merged(infos, done.tags), empty=empty)


def _numbers(good: pl.DataFrame, plan: WidePlan) -> tuple[pl.DataFrame, int] | None:
    """One row a cell, line by line, where every cell is a number or empty, as nearly always; None where one is not."""
    columns = [value for value, quality in plan.pairs if not quality]
    if len(columns) < len(plan.pairs):
        return None
    cells = good.select(pl.col(columns).cast(pl.Float64, strict=False))
    empty = sum(good.select(columns).null_count().row(0))
    value = cells.to_numpy(order="c").ravel()
    seen = np.isfinite(value)
    if len(value) - np.count_nonzero(seen) != empty:
        return None
    signals = pl.Series(list(plan.names.values()), dtype=pl.Enum(list(plan.names.values())))
    row, column = np.divmod(np.flatnonzero(seen), len(columns))
    t_ns, why = good["t_ns"].gather(row), pl.lit(None, pl.String).alias("why")
    long = pl.DataFrame([t_ns, signals.gather(column).alias("signal"), pl.Series("value", value[seen])])
    return long.with_columns(why, GOOD.alias("quality")), empty


def _unpivoted(good: pl.DataFrame, plan: WidePlan) -> tuple[pl.DataFrame, int]:
    """One row a cell, in order of time; and how many cells were empty."""
    keep = ["line", "stamp", "t_ns", "why"]
    kinds = {good.schema[value] for value, _ in plan.pairs}
    one = next(iter(kinds)) if len(kinds) == 1 else (pl.Float64 if all(k.is_numeric() for k in kinds) else pl.String)
    if not any(quality for _, quality in plan.pairs):
        columns = [value for value, _ in plan.pairs]
        cells = good.select(*keep, pl.col(columns).cast(one))
        long = cells.unpivot(on=columns, index=keep, variable_name="signal", value_name="value")
        long = long.with_columns(pl.col("signal").replace_strict(dict(plan.names)), GOOD.alias("quality"))
    else:
        parts = [
            good.select(
                *keep,
                pl.lit(plan.names[value]).alias("signal"),
                pl.col(value).cast(one).alias("value"),
                (plan.rules[quality](pl.col(quality)) if quality else GOOD).alias("quality"),
            )
            for value, quality in plan.pairs
        ]
        long = pl.concat(parts)
    filled = long.filter(pl.col("value").is_not_null())
    return filled, len(long) - len(filled)
