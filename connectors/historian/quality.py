"""What each historian calls the quality of a value, as GOOD, UNCERTAIN or BAD; the convention is told by evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import polars as pl

from fusion.records import Quality

GOOD, UNCERTAIN, BAD = (pl.lit(int(q), pl.UInt8) for q in (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD))
Rule = Callable[[pl.Expr], pl.Expr]

_BY_QUALITY: Mapping[Quality, tuple[str, ...]] = {
    Quality.GOOD: (
        *("good", "g", "ok", "valid", "true", "yes", "y"),
        *("gut", "gültig", "gueltig", "ja", "j", "wahr", "bon", "bonne", "valide", "oui", "vrai"),
        *("bueno", "buena", "válido", "sí", "verdadero", "buono", "buona", "valido", "vero", "bom"),
        *("goed", "geldig", "dobry", "dobra", "god", "хорошее", "хорошо", "да", "良", "良好", "有效", "正常"),
    ),
    Quality.UNCERTAIN: (
        *("uncertain", "questionable", "substituted", "doubtful", "weak", "manual", "u", "q", "s"),
        *("unsicher", "fraglich", "ersatzwert", "incertain", "douteux", "incierto", "dudoso", "incerto"),
        *("onzeker", "niepewny", "неопределенное", "可疑"),
    ),
    Quality.BAD: (
        *("bad", "b", "invalid", "false", "no", "n", "bad data", "nodata", "error", "fault", "failed"),
        *("schlecht", "ungültig", "ungueltig", "nein", "falsch", "fehler", "störung"),
        *("mauvais", "mauvaise", "invalide", "non", "non valide", "faux", "erreur", "défaut"),
        *("malo", "mala", "inválido", "falso", "fallo", "cattivo", "non valido", "errore", "ruim"),
        *("slecht", "ongeldig", "zły", "zła", "dålig", "плохое", "плохо", "нет", "不良", "坏", "无效"),
    ),
}
_WORDS: Mapping[str, Quality] = {word: quality for quality, words in _BY_QUALITY.items() for word in words}
_FIRST = re.compile(r"good|bad|uncertain|[^\W\d_]+")
_QARTOD = frozenset({1, 2, 3, 4, 9})
_OPC_DA = frozenset({192, 216, 64, 68, 80, 84, 88, 0, 4, 8, 12, 16, 20, 24, 28})


def words(column: pl.Expr) -> pl.Expr:
    """Good, Questionable, Bad...; also ``Good, 192`` and ``Good - Local Override``; an unknown word is uncertain."""
    word = column.cast(pl.String).str.to_lowercase().str.strip_chars()
    first = word.str.extract(r"^(good|bad|uncertain|\p{L}+)")
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
    """OPC UA StatusCode of 32 bits or by name, severity in the two highest; missing is good."""
    severity = (_number(column) & 0xFFFFFFFF) // 2**30
    told = pl.when(severity == 0).then(GOOD).when(severity == 1).then(UNCERTAIN).when(severity > 1).then(BAD)
    return pl.coalesce(told, words(column))


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


def validity(column: pl.Expr) -> pl.Expr:
    """A number that says whether a value is valid: above zero valid, zero and below not; missing is good."""
    code = _number(column)
    return pl.when(code.is_null() | (code > 0)).then(GOOD).otherwise(BAD)


def qartod(column: pl.Expr) -> pl.Expr:
    """Flags of QARTOD: 1 good, 2 not evaluated, 3 suspect, 4 bad, 9 missing."""
    code = _number(column)
    return pl.when(code.is_null() | (code == 1)).then(GOOD).when(code.is_in([2, 3])).then(UNCERTAIN).otherwise(BAD)


def by_evidence(samples: Iterable[str | int | None], *, valid: bool = False) -> Rule:
    """The convention that some values of a column of quality follow; ``valid``: its name says that it is validity."""
    numbers = []
    for sample in samples:
        text = "" if sample is None else str(sample).strip()
        if not text:
            continue
        if text.lower().startswith("0x"):
            return opc_ua
        if not text.lstrip("-").replace(".0", "").isdigit():
            return words
        numbers.append(int(float(text)))
    if numbers and (
        valid or set(numbers) == {1} or (set(numbers) <= {-1, 0, 1} and 2 * numbers.count(1) > len(numbers))
    ):
        return validity
    if set(numbers) <= _QARTOD and 2 * numbers.count(1) > len(numbers):
        return qartod
    if not numbers or set(numbers) == {0} or max(numbers) >= 2**30 or min(numbers) < 0:
        return opc_ua
    if max(numbers) == 100:
        return percent
    return opc_da if max(numbers) > 7 else pi_status


def like_quality(samples: Iterable[str]) -> bool:
    """Whether a column whose name says nothing holds words of quality, or codes of OPC classic."""
    texts = {text for sample in samples if (text := sample.strip().lower())}
    if not texts:
        return False
    if all(text.isdigit() for text in texts):
        return {int(text) for text in texts} <= _OPC_DA and "192" in texts
    return texts <= _WORDS.keys() - {"true", "false", "yes", "no", "ok"} and max(map(len, texts)) > 1


def may_be_quality(samples: Iterable[str]) -> bool:
    """Whether a column that is called quality can be it: numbers or words of quality, mostly, or nothing yet."""
    texts = [text for sample in samples if (text := sample.strip().lower())]
    return 2 * sum(map(_says_quality, texts)) >= len(texts)


def _says_quality(text: str) -> bool:
    number = text.removeprefix("-").removeprefix("0x").removesuffix(".0")
    first = _FIRST.match(text)
    return number.isdigit() or text.startswith("0x") or (first is not None and first[0] in _WORDS)


def worst(rules: Iterable[pl.Expr]) -> pl.Expr:
    """The worst of several opinions; good where there is none."""
    opinions = list(rules)
    return pl.min_horizontal(*opinions) if opinions else GOOD


def _number(column: pl.Expr) -> pl.Expr:
    """Whole numbers, also as `0x80340000`."""
    hexadecimal = column.cast(pl.String).str.extract(r"^\s*0[xX]([0-9a-fA-F]+)\s*$")
    number = column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    return pl.coalesce(number, hexadecimal.str.to_integer(base=16, strict=False, dtype=pl.Int64))


def _truth(column: pl.Expr) -> pl.Expr:
    word = column.cast(pl.String).str.to_lowercase().str.strip_chars()
    return (
        pl.when(word.is_in(["true", "1", "yes", "t"]))
        .then(True)
        .when(word.is_in(["false", "0", "no", "f"]))
        .then(False)
    )
