"""Where slow quantities of a plant go: what is tracked, the trends worth a word, and when they reach a limit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class QuantityKind(StrEnum):
    """What a slow quantity is."""

    VALUE = "value"
    """A tag as it reads."""
    BESIDE = "beside"
    """A tag less what the others tell of it."""
    BALANCE = "balance"
    """What a balance loses or gains in an hour."""
    CONDITION = "condition"
    """A hidden state less what it was at first, as the fleet model tells it."""


class LimitSource(StrEnum):
    """Whose limit it is."""

    TARGET = "target"
    """An operating limit of the plant file's targets."""
    RANGE = "range"
    """An end of the signal's range in the plant file."""
    ALARM = "alarm"
    """The size that raises an alarm."""
    FLEET = "fleet"
    """As far off as the most worn of the plants that the fleet model learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A slow quantity of one ``signal``, or of the balance or state of that name, in ``unit``; ``name`` is unique.

    ``basis`` is the model that it is reckoned by, "" for what is measured: what another model reckons is not the same.
    """

    name: str
    kind: QuantityKind
    signal: str
    unit: str
    basis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftTrend:
    """A quantity is at ``level`` [unit], moves by ``per_day``, and is at ``limit`` in so many ``days``.

    Of both the low, the middle and the high end of the 90 % interval; days are infinite beyond what can be told. It has
    been stated since ``since_ns``. ``with_it`` are signals that drift as a consequence.
    """

    quantity: Quantity
    level: float
    per_day: tuple[float, float, float]
    limit: float
    limit_source: LimitSource
    days: tuple[float, float, float]
    since_ns: int
    with_it: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemainingLife:
    """How long [s] what wears will last: the low, the middle and the high end of the 90 % interval.

    ``capped`` where the end is so far that nobody can tell more than the low end.
    """

    low_s: float
    expected_s: float
    high_s: float
    capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenState:
    """How far [unit] a state that no instrument reads is from what it was at first, with its 90 % interval.

    ``changed`` where that is beyond what is told of plants on which nothing has changed.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Progression:
    """All that is to be said of slow quantities at a time: ``trends``, the first to reach its limit first.

    ``watched`` quantities have been looked at, over at most ``seen_days``; ``more`` trends are left out. ``life``
    where lives that have ended are known and this one is like one of them. ``states`` are hidden ones since
    ``states_since_ns``, none where the fleet model does not know plants of this kind.
    """

    t_ns: int
    trends: tuple[DriftTrend, ...]
    watched: int
    seen_days: float
    more: int = 0
    life: RemainingLife | None = None
    states: tuple[HiddenState, ...] = ()
    states_since_ns: int = 0
