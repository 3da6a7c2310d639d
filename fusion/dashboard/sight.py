"""Which stretch of time one open page looks at, and what is fetched for it beside the page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from nicegui import background_tasks

from fusion.records import NS_PER_S

T = TypeVar("T")

SHORTEST_S, LONGEST_S = 60.0, 86_400.0
AHEAD = 0.25
"""Share of the stretch that is shown after the moment that is looked at."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The last ``length_s``, or those up to ``until_ns`` where that stands; then pictures are those of ``at_ns``."""

    length_s: float
    until_ns: int | None = None
    at_ns: int | None = None

    @property
    def live(self) -> bool:
        """Whether it follows the plant."""
        return self.until_ns is None

    def span_ns(self, now_ns: int) -> tuple[int, int]:
        """Beginning and end of the past that is shown."""
        until_ns = now_ns if self.until_ns is None else self.until_ns
        return until_ns - round(self.length_s * NS_PER_S), until_ns

    def paused(self, now_ns: int) -> Sight:
        """The same stretch, standing still."""
        return replace(self, until_ns=now_ns, at_ns=now_ns) if self.live else self

    def followed(self) -> Sight:
        """The plant again."""
        return replace(self, until_ns=None, at_ns=None)

    def at(self, at_ns: int, now_ns: int) -> Sight:
        """This moment; the stretch moves where it does not hold it."""
        at_ns = min(at_ns, now_ns)
        since_ns, until_ns = self.span_ns(now_ns)
        if not since_ns <= at_ns <= until_ns:
            until_ns = min(now_ns, at_ns + round(AHEAD * self.length_s * NS_PER_S))
        return replace(self, until_ns=until_ns, at_ns=at_ns)

    def between(self, since_ns: int, until_ns: int, now_ns: int) -> Sight:
        """This stretch, as near as there is one."""
        until_ns = min(until_ns, now_ns)
        length_s = min(LONGEST_S, max(SHORTEST_S, (until_ns - since_ns) / NS_PER_S))
        at_ns = until_ns if self.at_ns is None else min(max(self.at_ns, since_ns), until_ns)
        return Sight(length_s, until_ns, at_ns)

    def long(self, length_s: float, now_ns: int) -> Sight:
        """A longer or shorter stretch around the same moment."""
        length_s = min(LONGEST_S, max(SHORTEST_S, length_s))
        if self.until_ns is None:
            return replace(self, length_s=length_s)
        at_ns = self.until_ns if self.at_ns is None else self.at_ns
        share = (self.until_ns - at_ns) / (self.length_s * NS_PER_S)
        return Sight(length_s, min(now_ns, at_ns + round(share * length_s * NS_PER_S)), at_ns)

    def moved(self, share: float, now_ns: int) -> Sight:
        """Earlier or later by a share of the stretch; what would reach beyond now follows the plant."""
        by_ns = round(share * self.length_s * NS_PER_S)
        until_ns = self.span_ns(now_ns)[1] + by_ns
        if until_ns >= now_ns:
            return self.followed()
        at_ns = until_ns if self.at_ns is None else self.at_ns + by_ns
        return replace(self, until_ns=until_ns, at_ns=at_ns)


class Fetch(Generic[T]):
    """One thing that takes time, made in a thread; the newest wish counts, and ``done`` is called when it is there."""

    def __init__(self, nothing: T, done: Callable[[], None]) -> None:
        self.value = nothing
        self._nothing, self._done = nothing, done
        self._key: Hashable = None
        self._wish: tuple[Hashable, Callable[[], T]] | None = None
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return self._busy

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What belongs to a key, or until that is made what was made last."""
        if key != self._key:
            self._wish = key, make
            if not self._busy:
                self._busy = True
                background_tasks.create(self._work(), name="look back")
        return self.value

    def drop(self) -> None:
        """Forget what was made: it is not wanted now."""
        self._key, self._wish, self.value = None, None, self._nothing

    async def _work(self) -> None:
        try:
            while self._wish is not None:
                (key, make), self._wish = self._wish, None
                value = await asyncio.to_thread(make)
                self._key, self.value = key, value
        finally:
            self._busy = False
        self._done()
