"""What each historian calls the quality of a value, as GOOD, UNCERTAIN or BAD; the convention is told by evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import polars as pl

from fusion.records import Quality

GOOD, UNCERTAIN, BAD = (pl.lit(int(q), pl.UInt8) for q in (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD))
Rule = Callable[[pl.Expr], pl.Expr]

_WORDS: Mapping[str, Quality] = {
    "good": Quality.GOOD,
    "g": Quality.GOOD,
    "ok": Quality.GOOD,
    "valid": Quality.GOOD,
    "true": Quality.GOOD,
    "uncertain": Quality.UNCERTAIN,
    "questionable": Quality.UNCERTAIN,
    "substituted": Quality.UNCERTAIN,
    "doubtful": Quality.UNCERTAIN,
    "weak": Quality.UNCERTAIN,
    "manual": Quality.UNCERTAIN,
    "u": Quality.UNCERTAIN,
    "q": Quality.UNCERTAIN,
    "s": Quality.UNCERTAIN,
    "bad": Quality.BAD,
    "b": Quality.BAD,
    "invalid": Quality.BAD,
    "false": Quality.BAD,
    "bad data": Quality.BAD,
    "nodata": Quality.BAD,
}


def words(column: pl.Expr) -> pl.Expr:
    """Good, Questionable, Bad...; also ``Good, 192`` and ``Good - Local Override``; an unknown word is uncertain."""
    word = column.cast(pl.String).str.to_lowercase().str.strip_chars()
    first = word.str.extract(r"^([a-z]+)")
    table = {name: int(quality) for name, quality in _WORDS.items()}
    known = pl.coalesce(
        word.replace_strict(table, default=None, return_dtype=pl.UInt8),
        first.replace_strict(table, default=None, return_dtype=pl.UInt8),
    )
    return pl.when(word.is_null() | (word == "")).then(GOOD).otherwise(pl.coalesce(known, UNCERTAIN))


def opc_da(column: pl.Expr) -> pl.Expr:
    """OPC classic: 0-63 bad, 64-191 uncertain, 192 and more good."""
    code = _number(column) & 0xFF
    return pl.when(code.is_null() | (code >= 192)).then(GOOD).when(code >= 64).then(UNCERTAIN).otherwise(BAD)


def opc_ua(column: pl.Expr) -> pl.Expr:
    """OPC UA StatusCode of 32 bits, severity in the two highest; missing is good."""
    severity = (_number(column) & 0xFFFFFFFF) // 2**30
    return pl.when(severity.is_null() | (severity == 0)).then(GOOD).when(severity == 1).then(UNCERTAIN).otherwise(BAD)


def pi_status(column: pl.Expr) -> pl.Expr:
    """Questionable + 2 * (not Good) + 4 * Substituted."""
    code = _number(column)
    bad, doubt = (code & 2) != 0, (code & 5) != 0
    return pl.when(code.is_null()).then(GOOD).when(bad).then(BAD).when(doubt).then(UNCERTAIN).otherwise(GOOD)


def ignition(column: pl.Expr) -> pl.Expr:
    """Ignition: as OPC classic below 256, then 256-511 uncertain, 512 and more bad or an error."""
    code = _number(column)
    return pl.when(code >= 512).then(BAD).when(code >= 256).then(UNCERTAIN).otherwise(opc_da(column))


def percent(column: pl.Expr) -> pl.Expr:
    """Proficy's share of good raw samples: 100 good, 0 bad, what lies between uncertain."""
    code = _number(column)
    return pl.when(code.is_null() | (code >= 100)).then(GOOD).when(code > 0).then(UNCERTAIN).otherwise(BAD)


def aveva(column: pl.Expr) -> pl.Expr:
    """AVEVA Historian ``Quality``: 0 good, 16 doubtful, 133 initial value, all else bad."""
    code = _number(column)
    good = code.is_null() | code.is_in([0, 133])
    return pl.when(good).then(GOOD).when(code == 16).then(UNCERTAIN).otherwise(BAD)


def aveva_detail(column: pl.Expr) -> pl.Expr:
    """AVEVA ``QualityDetail``: 192 good (and 202, 212 with a limit), 64 doubtful; 249 is not a number."""
    code = _number(column)
    good = code.is_null() | code.is_in([192, 202, 212])
    return pl.when(good).then(GOOD).when(code.is_in([64, 65, 68])).then(UNCERTAIN).otherwise(BAD)


def flag_good(column: pl.Expr) -> pl.Expr:
    """A column that is true where the value is good."""
    return pl.when(_truth(column).fill_null(value=True)).then(GOOD).otherwise(BAD)


def flag_doubt(column: pl.Expr) -> pl.Expr:
    """A column that is true where the value is questionable, substituted or entered by hand."""
    return pl.when(_truth(column).fill_null(value=False)).then(UNCERTAIN).otherwise(GOOD)


def flag_bad(column: pl.Expr) -> pl.Expr:
    """A column that is true where the value is invalid."""
    return pl.when(_truth(column).fill_null(value=False)).then(BAD).otherwise(GOOD)


def by_evidence(samples: Iterable[str | int | None]) -> Rule:
    """The convention that some values of a quality column follow."""
    numbers = []
    for sample in samples:
        text = "" if sample is None else str(sample).strip()
        if not text:
            continue
        if not text.lstrip("-").replace(".0", "").isdigit():
            return words
        numbers.append(int(float(text)))
    if not numbers or set(numbers) == {0} or max(numbers) >= 2**30 or min(numbers) < 0:
        return opc_ua
    if max(numbers) == 100:
        return percent
    return opc_da if max(numbers) > 7 else pi_status


def worst(rules: Iterable[pl.Expr]) -> pl.Expr:
    """The worst of several opinions; good where there is none."""
    opinions = list(rules)
    return pl.min_horizontal(*opinions) if opinions else GOOD


def _number(column: pl.Expr) -> pl.Expr:
    return column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)


def _truth(column: pl.Expr) -> pl.Expr:
    word = column.cast(pl.String).str.to_lowercase().str.strip_chars()
    return (
        pl.when(word.is_in(["true", "1", "yes", "t"]))
        .then(True)
        .when(word.is_in(["false", "0", "no", "f"]))
        .then(False)
    )
