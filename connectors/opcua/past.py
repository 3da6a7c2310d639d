"""What a source of an OPC UA server knows over all its connections: what was told last, and what was missed since."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fusion.records import NS_PER_S

EDGE_S = 60.0  # the clocks of a server and of its tags may differ by so much
MOST_STRETCHES = 100_000


class Stretch(NamedTuple):
    """A tag and the time stamps [UTC ns] between which, without these two, its history is wanted."""

    tag: str
    after_ns: int
    before_ns: int


@dataclass(slots=True)
class Past:
    """What is known over all connections of a source.

    ``newest`` is the last time stamp told of each tag, ``heard_ns`` when a server was last heard. ``wanted`` is what
    was missed and not read yet, the newest of it; ``without`` are the tags of each server that have no history.
    """

    newest: dict[str, int] = field(default_factory=dict)
    heard_ns: int = 0
    wanted: deque[Stretch] = field(default_factory=lambda: deque(maxlen=MOST_STRETCHES))
    without: dict[str, set[str]] = field(default_factory=dict)

    def resume(self, newest: Mapping[str, int], heard_ns: int) -> None:
        """Know what an earlier process has known last."""
        self.newest, self.heard_ns = dict(newest), heard_ns

    def missed(self, before: Past, first: Mapping[str, int], longest_s: float) -> None:
        """Want what lies between what was known ``before`` and the ``first`` stamps of a new connection."""
        for tag, first_ns in first.items():
            known_ns = before.newest.get(tag, first_ns)
            earliest_ns = max(before.heard_ns - round(EDGE_S * NS_PER_S), first_ns - round(longest_s * NS_PER_S))
            if known_ns < first_ns:
                self.wanted.append(Stretch(tag, max(known_ns, earliest_ns), first_ns))
