"""What historians write where no number was: states by name, and what kind each is.

Sources: AVEVA PI system digital states 193-320 by name, DataLink and Excel error texts, SCADA exports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fusion.errors import HistorianError

OVER_RANGE, UNDER_RANGE, SHUTDOWN = "over_range", "under_range", "shutdown"
NO_DATA, INSTRUMENT, CALCULATION, NOT_A_NUMBER = "no_data", "instrument", "calculation", "not_a_number"
CLOCK_CHANGE, FOREIGN = "clock_change", "foreign_state"
ABSURD, SENTINEL = "absurd", "sentinel"

_NAMES: Mapping[str, tuple[str, ...]] = {
    OVER_RANGE: ("Over Range", "OverRange", "Over UCL"),
    UNDER_RANGE: ("Under Range", "UnderRange", "Under LCL"),
    SHUTDOWN: ("Shutdown", "Unit Down"),
    NO_DATA: (
        "No Data",
        "NoData",
        "Missing",
        "Pt Created",
        "Snapshot",
        "Arc Off-line",
        "Arc Offline",
        "No Sample",
        "No Result",
        "No events found.",
        "Resize to show all values",
        "Intf Shut",
        "Scan Off",
        "Scan Timeout",
        "Configure",
        "Access Denied",
        "None",
        "Null",
        "(null)",
        "<null>",
        "[null]",
        "-",
        "--",
        "---",
        "N/A",
        "NA",
        "#N/A",
    ),
    INSTRUMENT: (
        "Bad",
        "Bad Data",
        "Bad Input",
        "Bad Output",
        "Bad Total",
        "Bad Quality",
        "I/O Timeout",
        "Not Connect",
        "Not Connected",
        "Comm Fail",
        "Comm Error",
        "Out of Serv",
        "Out of Service",
        "Equip Fail",
        "DCS failed",
        "Set to Bad",
        "Coercion Failed",
        "Error",
        "Trace",
        "Doubtful",
        "Substituted",
    ),
    CALCULATION: (
        "Calc Failed",
        "Calc Off",
        "Calc Timeout",
        "Calc Overflow",
        "No Good Data For Calculation",
        "#REF!",
        "#VALUE!",
        "#DIV/0!",
        "#NUM!",
        "#NAME?",
    ),
    NOT_A_NUMBER: (
        "Invalid Float",
        "Invalid",
        "NaN",
        "-NaN",
        "1.#QNAN",
        "-1.#IND",
        "Inf",
        "+Inf",
        "-Inf",
        "Infinity",
        "-Infinity",
    ),
    CLOCK_CHANGE: ("DST Forward", "DST Back"),
}
STATES: Mapping[str, str] = {name.lower(): kind for kind, names in _NAMES.items() for name in names}
KINDS = (
    *(OVER_RANGE, UNDER_RANGE, SHUTDOWN, NO_DATA, INSTRUMENT, CALCULATION, NOT_A_NUMBER, CLOCK_CHANGE, FOREIGN),
    *(ABSURD, SENTINEL),
)
INFORMATIVE = (OVER_RANGE, UNDER_RANGE, SHUTDOWN)
"""States that say what the plant did, not that the historian failed."""


def state_of(text: pl.Expr) -> pl.Expr:
    """The kind of state that a text names, null where it names none; ``[-11059] ...`` is an error of a calculation."""
    name = text.str.strip_chars().str.to_lowercase()
    bare = name.str.replace(r"^\[-?\d+\]\s*", "")
    known = bare.replace_strict(STATES, default=None, return_dtype=pl.String)
    coded = pl.when(name.str.contains(r"^\[-\d+\]")).then(pl.lit(CALCULATION))
    return pl.coalesce(known, coded)


def load_state_sets(file: Path) -> dict[str, tuple[str, ...]]:
    """Digital state sets, each a tuple of names by code.

    Two forms are accepted: ``server,set,state0,state1,...`` with one set per line, or ``code,name`` lines of one set
    which is then called after the file.

    Raises:
        HistorianError: where a line is neither.
    """
    sets: dict[str, tuple[str, ...]] = {}
    coded: dict[int, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = [cell.strip().strip('"') for cell in line.split(",")]
        if not any(cells):
            continue
        if len(cells) == 2 and cells[0].isdigit():
            coded[int(cells[0])] = cells[1]
        elif len(cells) > 3:
            sets[cells[1]] = tuple(cells[2:])
        else:
            raise HistorianError(
                f"{file}: line {number} is no digital state set; looked for `server,set,state0,state1,...` or `0,Off`"
            )
    if coded:
        sets[file.stem] = tuple(coded.get(code, "") for code in range(max(coded) + 1))
    return sets


def codes_of(texts: Sequence[str], sets: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """A code for each state of a digital tag: from the smallest set that holds all, else in alphabetical order."""
    known = sorted((len(names), list(names)) for names in sets.values() if set(texts) <= set(names))
    names = known[0][1] if known else sorted(set(texts))
    return {name: names.index(name) for name in texts}
