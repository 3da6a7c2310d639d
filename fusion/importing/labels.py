"""Columns that say what was true: where they are not zero something was wrong, an event of the recording."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from fusion.errors import HistorianError
from fusion.importing.spool import Ints, Spool
from fusion.importing.tag_quality import TagQuality
from fusion.recordings.recording import Event

HELD_INTERVALS = 10  # of its rows: a label that says nothing for longer no longer holds
LIKE_A_LABEL = re.compile(
    r"(?i)(is_?)?(anomal(y|ies|ous)|label|labels|change_?points?|(att|attack)(_?flag)?|faults?|faulty|ground_?truth)"
)


def labelled(spool: Spool, names: Sequence[str]) -> list[Event]:
    """The stretches in which labels are not zero, each an event by the name of its label, in order of time.

    Raises:
        HistorianError: a label that is no column of the files, or that holds anything but numbers.
    """
    found: list[Event] = []
    for name in names:
        if name not in spool.names:
            some = ", ".join(sorted(spool.names)[:10])
            raise HistorianError(f"--label {name}: no column is called so; expected one of {some}")
        rows = spool.of(spool.names[name])
        if rows["value"].null_count():
            raise HistorianError(f"--label {name}: holds texts; expected numbers, 0 where all was well")
        found += [Event(name=name, onset_ns=start, end_ns=end) for start, end in _stretches(rows)]
    return sorted(found, key=lambda event: event.onset_ns)


def _stretches(rows: pl.DataFrame) -> Iterator[tuple[int, int]]:
    """From the first row that is not zero until the next that is, or until the rows pause."""
    t_ns: Ints = rows["t_ns"].to_numpy()
    wrong = np.nan_to_num(rows["value"].to_numpy()) != 0.0
    step_ns = int(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 1
    paused = np.diff(t_ns, prepend=t_ns[:1]) > HELD_INTERVALS * step_ns
    edges = np.flatnonzero((np.diff(wrong, prepend=False) != 0) | paused)
    for first, after in zip(edges, [*edges[1:], len(t_ns)], strict=True):
        if wrong[first]:
            held_ns = int(t_ns[after - 1]) + step_ns
            yield int(t_ns[first]), min(held_ns, int(t_ns[after])) if after < len(t_ns) else held_ns


def within(events: Sequence[Event], start_ns: int, end_ns: int) -> tuple[Event, ...]:
    """What of events lies in a stretch of time."""
    return tuple(
        replace(event, onset_ns=max(event.onset_ns, start_ns), end_ns=min(event.end_ns or end_ns, end_ns))
        for event in events
        if event.onset_ns < end_ns and (event.end_ns or end_ns) > start_ns
    )


def suspected(tags: Sequence[TagQuality]) -> list[str]:
    """Tags that are no measurements by their name and by having no value but 0 and 1."""
    return [t.name for t in tags if LIKE_A_LABEL.fullmatch(t.name) and t.rows > t.bad and 0.0 <= t.low <= t.high <= 1.0]


def told(events: Sequence[Event]) -> Mapping[str, int]:
    """How many events each label made."""
    names = [event.name for event in events]
    return {name: names.count(name) for name in dict.fromkeys(names)}
