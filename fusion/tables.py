"""What a daemon has written down, as tables: alarms from its recordings, acts and advice from its audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from fusion.alarms import MarkKind
from fusion.daemon.audit import AUDIT
from fusion.errors import ConfigError
from fusion.recordings.marks import marks_of
from fusion.recordings.recorder import MARKS
from fusion.records import NS_PER_S

UTC_TIME = pl.Datetime("ns", "UTC")
ALARMS = {
    "begin": pl.Int64,
    "end": pl.Int64,
    "id": pl.String,
    "verdict": pl.String,
    "signals": pl.String,
    "marked": pl.String,
}
ACTS = {"time": pl.Int64, "what": pl.String, "id": pl.String, "by": pl.String, "details": pl.String}
ADVICE = {
    "time": pl.Int64,
    "id": pl.String,
    "signal": pl.String,
    "recommended": pl.Float64,
    "answer": pl.String,
    "by": pl.String,
    "reason": pl.String,
}


def alarms(records: Path) -> pl.DataFrame:
    """Every alarm, oldest first, with what people marked while it stood.

    Raises:
        ConfigError: there is no journal of marks.
    """
    file = records / MARKS
    marks = list(marks_of(_text(file), str(file)).values())
    people = [mark for mark in marks if mark.kind is not MarkKind.ALARM]
    rows = [
        (
            mark.onset_ns,
            mark.end_ns,
            mark.name,
            mark.verdict,
            " ".join(mark.signals),
            "; ".join(f"{p.kind}: {p.name}" for p in people if p.overlaps(mark.onset_ns, mark.end_ns or mark.onset_ns)),
        )
        for mark in sorted(marks, key=lambda m: m.onset_ns)
        if mark.kind is MarkKind.ALARM
    ]
    return pl.DataFrame(rows, schema=ALARMS, orient="row").with_columns(pl.col("begin", "end").cast(UTC_TIME))


def acts(state: Path) -> pl.DataFrame:
    """Who did what and when, oldest first.

    Raises:
        ConfigError: there is no audit.
    """
    known = ("time", "what", "id", "name", "by", "hash")
    rows = [
        (
            _ns(said),
            said["what"],
            str(said.get("id") or said.get("name") or ""),
            str(said.get("by") or ""),
            json.dumps({key: value for key, value in said.items() if key not in known}),
        )
        for said in _audit(state)
    ]
    return pl.DataFrame(rows, schema=ACTS, orient="row").with_columns(pl.col("time").cast(UTC_TIME))


def advice(state: Path) -> pl.DataFrame:
    """Each move that was advised, oldest first, with the last answer to its advice.

    Raises:
        ConfigError: there is no audit.
    """
    told = _audit(state)
    answers = {said.get("id"): said for said in told if said["what"] == "answer"}
    rows = [
        (
            _ns(said),
            said.get("id"),
            signal,
            value,
            *(answers.get(said.get("id"), {}).get(k, "") for k in ("answer", "by", "reason")),
        )
        for said in told
        if said["what"] == "advice" and isinstance(said.get("moves"), dict)
        for signal, value in said["moves"].items()
    ]
    return pl.DataFrame(rows, schema=ADVICE, orient="row").with_columns(pl.col("time").cast(UTC_TIME))


def _audit(state: Path) -> list[Mapping[str, Any]]:
    """The lines of an audit that are whole."""
    found: list[Mapping[str, Any]] = []
    for line in _text(state / AUDIT).splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and {"time", "what"} <= said.keys():
            found.append(said)
    return found


def _ns(said: Mapping[str, Any]) -> int:
    return round(datetime.fromisoformat(str(said["time"])).timestamp() * 1000) * (NS_PER_S // 1000)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); expected a folder that a daemon writes") from error
