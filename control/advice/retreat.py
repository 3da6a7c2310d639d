"""Taking own moves back: where setpoints stood before advice whose effects are still to come.

Outside of what a model was trained on nothing that it foretells is sure, but the plant has been where it was before it
followed advice. Knows no model: entries of the ledger and present values come in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fusion.ledger import Entry, EntryState
from fusion.records import AdviceKind, Move

_NOT_FOLLOWED = (EntryState.REJECTED, EntryState.FAILED)


@dataclass(slots=True)
class _Way:
    """How far advice has taken one signal: from ``start``, by values from ``low`` to ``high``."""

    start: float
    low: float
    high: float


def before_advice(
    entries: Iterable[Entry], since_ns: int, now: Mapping[str, float], near: Mapping[str, float]
) -> dict[str, float]:
    """Values from before the advice given since a time, of signals that have moved its way and nobody moved elsewhere.

    ``now`` are the present values, ``near`` what counts as the same value; both name every signal that may be moved.
    What was rejected or failed is nobody's but the operator's. Where a return was asked for, it is where that leads.
    """
    ways: dict[str, _Way] = {}
    for entry in entries:
        if entry.t_ns >= since_ns and entry.state not in _NOT_FOLLOWED:
            for move in (m for m in entry.moves if m.signal in near):
                ways[move.signal] = _gone(ways.get(move.signal), move, near[move.signal], entry.kind)
    return {
        name: way.start
        for name, way in ways.items()
        if way.low - near[name] <= now[name] <= way.high + near[name] and abs(now[name] - way.start) >= near[name]
    }


def _gone(way: _Way | None, move: Move, near: float, kind: AdviceKind) -> _Way:
    """The way of a signal once a move was asked for; one that begins beside it is a new one."""
    low, high = sorted((move.current, move.recommended))
    if way is None or not way.low - near <= move.current <= way.high + near:
        way = _Way(move.current, low, high)
    whole = low - near <= way.start <= high + near  # a return may be asked for in parts
    start = move.recommended if kind is AdviceKind.RETURN and whole else way.start
    return _Way(start, min(way.low, low), max(way.high, high))
