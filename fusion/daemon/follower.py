"""Whether anybody can be heard who follows advice unasked: supervised is left where the verifier falls silent.

Nothing brings it back but somebody's order. Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from control.advice.licence import Level

OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Heard:
    """What the verifier said last of itself, and when."""

    state: str
    at_s: float


class Follower:
    """Counts from the order to be supervised, so that a verifier may be started after it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since_s: float | None = None

    def lost(self, mode: Level, heard: Heard | None, now_s: float) -> str:
        """Why supervised is to be left, "" while it may stand."""
        if mode != Level.SUPERVISED:
            self._since_s = None
            return ""
        self._since_s = now_s if self._since_s is None else self._since_s
        last_s = self._since_s if heard is None else max(heard.at_s, self._since_s)
        if heard is not None and heard.state == OFFLINE and heard.at_s >= self._since_s:
            return "the verifier went offline"
        if now_s - last_s > self._timeout_s:
            return f"nothing was heard of the verifier for {self._timeout_s:g} s"
        return ""
