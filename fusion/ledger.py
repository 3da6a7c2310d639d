"""What became of each advice: an entry of the ledger, promised beside delivered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fusion.records import AdviceKind, Move


class EntryState(StrEnum):
    """Where an advice stands: what was last answered, or seen in the setpoints, or that another took its place."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    APPLIED = "applied"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"

    @property
    def standing(self) -> bool:
        """Whether it may still be followed."""
        return self in (EntryState.OPEN, EntryState.ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One advice: the saving that was promised per hour with its 90 % interval, and what was delivered.

    ``delivered`` is the same saving with the course that came in the place of the promised one; None until the horizon
    has passed since the first move, ``note`` says why where it stays so. ``within`` is the share of what came that lay
    inside the promised 90 % bands.
    """

    id: str
    t_ns: int
    valid_until_ns: int
    mode: str
    moves: tuple[Move, ...]
    gain: float
    gain_low: float
    gain_high: float
    kind: AdviceKind = AdviceKind.PLAN
    state: EntryState = EntryState.OPEN
    by: str = ""
    reason: str = ""
    t_answer_ns: int | None = None
    t_applied_ns: int | None = None
    delivered: float | None = None
    within: float | None = None
    note: str = ""
