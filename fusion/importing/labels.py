"""Columns that say what was true: where they are not zero something was wrong, an event of the recording."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl

from fusion.errors import HistorianError
from fusion.importing.spool import Ints, Spool
from fusion.importing.tag_quality import TagQuality
from fusion.plant import Plant
from fusion.recordings.normal import SETTLING_S
from fusion.recordings.recording import Event
from fusion.records import NS_PER_S

log = logging.getLogger(__name__)

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
    """From the first row that is not zero until the next that is, or until the rows pause.

    What is not zero on both sides of a pause in which a plant would not settle is one.
    """
    t_ns: Ints = rows["t_ns"].to_numpy()
    wrong = np.nan_to_num(rows["value"].to_numpy()) != 0.0
    step_ns = int(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 1
    paused = np.diff(t_ns, prepend=t_ns[:1]) > HELD_INTERVALS * step_ns
    still = wrong & np.append(False, wrong[:-1]) & (np.diff(t_ns, prepend=t_ns[:1]) < SETTLING_S * NS_PER_S)
    edges = np.flatnonzero((np.diff(wrong, prepend=False) != 0) | (paused & ~still))
    for first, after in pairwise([*edges, len(t_ns)]):
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


def separate(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The times [UTC ns] of files that share none, in order: runs by themselves; none where two files share some."""
    ordered = sorted((first_ns, last_ns + 1) for first_ns, last_ns in spans)
    apart = all(end <= start for (_, end), (start, _) in pairwise(ordered))
    return ordered if apart and len(ordered) > 1 else []


def suspected(tags: Sequence[TagQuality]) -> list[str]:
    """Tags that are no measurements by their name and by having no value but 0 and 1."""
    return [t.name for t in tags if LIKE_A_LABEL.fullmatch(t.name) and t.rows > t.bad and 0.0 <= t.low <= t.high <= 1.0]


def told(events: Sequence[Event]) -> Mapping[str, int]:
    """How many events each label made."""
    names = [event.name for event in events]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def tell(events: Sequence[Event], labels: Sequence[str], others: Sequence[str], plant: Plant) -> None:
    """What labels said, and what looks like one."""
    for name in labels:
        log.info("%s: %d events, the truth for fusion evaluate", name, told(events).get(name, 0))
    for name in others:
        if name not in plant.by_name:
            log.info("%s: only 0 and 1, and called like a label: left out of the proposed plant", name)
            continue
        log.warning(
            "%s: only 0 and 1, and called like a label: --label %s makes the truth of it; a model may not see it, so "
            "delete it from the plant otherwise and import with --again",
            name,
            name,
        )
