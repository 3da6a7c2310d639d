"""Trends of slow quantities as a message."""

from __future__ import annotations

import msgspec

from fusion.plant import Plant
from fusion.publish.base import Message, Number, head, number
from fusion.trends import DriftTrend, HiddenState, Progression, RemainingLife


class TrendOut(msgspec.Struct, kw_only=True, frozen=True):
    """A slow quantity that will reach a limit: it is at ``level`` [unit] and moves by ``per_day`` a day.

    ``kind`` is value (a tag as it reads), beside (a tag less what the others tell of it), balance (what a balance
    loses or gains) or condition (of ``states``); ``signal`` is the tag, or the name of the balance or state.
    ``limit_source`` is target, range (both of the plant file), alarm, the size that raises one, or fleet, the most
    worn of the plants that it learned from. ``days_to_limit`` counts from ``t_ns``; of it and of ``per_day``,
    ``_low`` and ``_high`` are the 90 % interval, null beyond what can be told. ``with_it`` drift as a consequence.
    """

    kind: str
    signal: str
    unit: str
    level: Number
    per_day: Number
    per_day_low: Number
    per_day_high: Number
    limit: Number
    limit_source: str
    days_to_limit: Number
    days_to_limit_low: Number
    days_to_limit_high: Number
    since_ns: int
    with_it: list[str]


class LifeOut(msgspec.Struct, kw_only=True, frozen=True):
    """How many hours what wears will last, with the 90 % interval; ``capped``: only that it is more than ``low_h``."""

    expected_h: Number
    low_h: Number
    high_h: Number
    capped: bool


class StateOut(msgspec.Struct, kw_only=True, frozen=True):
    """How far [unit] a hidden state is from what it was at first, the 90 % interval; ``changed`` if beyond doubt."""

    name: str
    unit: str
    value: Number
    low: Number
    high: Number
    changed: bool


class ProgressionMessage(Message, tag="fusion.progression/1", kw_only=True, frozen=True):
    """Where slow quantities go, the first to reach its limit first; no trend is good news.

    ``watched`` quantities are looked at, over at most ``seen_days``; ``more`` trends are left out. ``life`` is
    that of what wears, where an index of condition is known. ``states`` are hidden states as the fleet model tells
    them, each less what it was in the half hour until ``states_since_ns``; none where it does not know such plants.
    """

    trends: list[TrendOut]
    watched: int
    seen_days: Number
    more: int = 0
    life: LifeOut | None = None
    states: list[StateOut] = msgspec.field(default_factory=list)
    states_since_ns: int = 0


def progression_message(progression: Progression, plant: Plant, model_id: str = "") -> ProgressionMessage:
    """Trends with the units of what drifts."""
    return ProgressionMessage(
        **head(plant, progression.t_ns, model_id, "progression"),
        trends=[_trend(trend) for trend in progression.trends],
        watched=progression.watched,
        seen_days=number(progression.seen_days),
        more=progression.more,
        life=_life(progression.life),
        states=[_state(state) for state in progression.states],
        states_since_ns=progression.states_since_ns,
    )


def _state(state: HiddenState) -> StateOut:
    value, low, high = (number(v) for v in (state.value, state.low, state.high))
    return StateOut(name=state.name, unit=state.unit, value=value, low=low, high=high, changed=state.changed)


def _life(life: RemainingLife | None) -> LifeOut | None:
    if life is None:
        return None
    low, expected, high = (number(s / 3600.0) for s in (life.low_s, life.expected_s, life.high_s))
    return LifeOut(expected_h=expected, low_h=low, high_h=high, capped=life.capped)


def _trend(trend: DriftTrend) -> TrendOut:
    low, middle, high = (number(value) for value in trend.per_day)
    soonest, expected, latest = (number(value) for value in trend.days)
    return TrendOut(
        kind=trend.quantity.kind.value,
        signal=trend.quantity.signal,
        unit=trend.quantity.unit,
        level=number(trend.level),
        per_day=middle,
        per_day_low=low,
        per_day_high=high,
        limit=number(trend.limit),
        limit_source=trend.limit_source.value,
        days_to_limit=expected,
        days_to_limit_low=soonest,
        days_to_limit_high=latest,
        since_ns=trend.since_ns,
        with_it=list(trend.with_it),
    )
