"""What of a stretch of time is normal: all but its faults and what is marked otherwise, and the time after each.

One rule for what a labelled recording is learned from and for where a raise counts as false.
"""

from __future__ import annotations

from collections.abc import Iterable

from fusion.recordings.recording import FAULT, NORMAL, Event, Recording
from fusion.records import NS_PER_S

SETTLING_S = 300.0


def spans(start_ns: int, end_ns: int, events: Iterable[Event]) -> list[tuple[int, int]]:
    """Stretches [UTC ns] from ``start_ns`` to ``end_ns`` without faults; nuisances are normal."""
    found, faults = [], [event for event in events if not event.nuisance]
    for event in sorted(faults, key=lambda e: e.onset_ns):
        if event.onset_ns > start_ns:
            found.append((start_ns, min(event.onset_ns, end_ns)))
        over_ns = end_ns if event.end_ns is None else event.end_ns
        start_ns = max(start_ns, over_ns + round(SETTLING_S * NS_PER_S))
    return [span for span in (*found, (start_ns, end_ns)) if span[0] < span[1]]


def of(recording: Recording) -> list[tuple[int, int]]:
    """Stretches [UTC ns] of a recording that may be learned from."""
    if recording.kind == FAULT:
        return []
    return spans(*recording.span_ns, () if recording.kind == NORMAL else recording.events)


def hours(recordings: Iterable[Recording]) -> float:
    """How long the stretches are that may be learned from [h]."""
    return sum(end - start for recording in recordings for start, end in of(recording)) / NS_PER_S / 3600
