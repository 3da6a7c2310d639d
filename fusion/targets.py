"""What the economics want of signals: setpoints and their schedule, prices, and limits that advice must respect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from fusion.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setpoint that is known to change: ``setpoint`` [unit] holds from ``at`` on, a time with its zone (ISO 8601)."""

    at: str
    setpoint: float

    @property
    def t_s(self) -> float:
        """The time as UTC seconds since 1970."""
        return datetime.fromisoformat(self.at).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the economics want of a signal: a setpoint or a price, and limits that advice must respect.

    ``weight`` scales the squared deviation from ``setpoint`` in units of ``scale`` [unit]; ``price`` is a linear
    cost per unit and hour. ``schedule`` says when the setpoint will be another one. ``low`` and ``high`` are operating
    limits, ``backoff`` the margin kept from them [unit].
    """

    signal: str
    setpoint: float | None = None
    scale: float = 1.0
    weight: float = 0.0
    price: float = 0.0
    low: float | None = None
    high: float | None = None
    backoff: float = 0.0
    schedule: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        """Reject what contradicts itself."""
        where = f"targets: {self.signal!r}"
        if self.scale <= 0 or self.weight < 0 or self.backoff < 0:
            raise ConfigError(f"{where}: scale must be positive, weight and backoff not negative")
        low = -math.inf if self.low is None else self.low + self.backoff
        high = math.inf if self.high is None else self.high - self.backoff
        if not low < high:
            raise ConfigError(f"{where}: low {self.low} and high {self.high} with backoff {self.backoff} contradict")
        if self.weight and self.setpoint is None:
            raise ConfigError(f"{where}: weight {self.weight:g} without a setpoint weighs nothing; expected a setpoint")
        if self.schedule:
            self._check_schedule(f"{where}: schedule")

    def _check_schedule(self, where: str) -> None:
        if self.setpoint is None:
            raise ConfigError(f"{where} without a setpoint; expected the one that holds before the first change")
        for change in self.schedule:
            if not _with_zone(change.at):
                raise ConfigError(
                    f"{where}: at {change.at!r} is no time with a zone; expected one such as 2026-11-30T06:00:00Z"
                )
        if late := [b.at for a, b in pairwise(self.schedule) if b.t_s <= a.t_s]:
            raise ConfigError(f"{where}: {late[0]} is not after the change before it; expected rising times")

    def setpoint_at(self, t_s: float) -> float | None:
        """The setpoint that holds at a time [s, UTC]."""
        past = [change.setpoint for change in self.schedule if change.t_s <= t_s]
        return past[-1] if past else self.setpoint

    @property
    def setpoints(self) -> tuple[float, ...]:
        """Every setpoint that holds at some time."""
        first = () if self.setpoint is None else (self.setpoint,)
        return (*first, *(change.setpoint for change in self.schedule))


def _with_zone(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def check_agreement(targets: Sequence[Target], lowest: float | None, highest: float | None) -> None:
    """Reject targets of one signal, with the ends of its range, that no value meets.

    Several setpoints, limits or a range without a common part are refused. A setpoint may lie beyond an operating
    limit, an aim that is not to be reached, but not beyond the signal's range.
    """
    where = f"targets: {targets[0].signal!r}"
    if len(setpoints := [t.setpoint for t in targets if t.setpoint is not None]) > 1:
        raise ConfigError(f"{where}: has setpoints {', '.join(f'{s:g}' for s in setpoints)}; expected one")
    low = max((t.low for t in targets if t.low is not None), default=-math.inf)
    high = min((t.high for t in targets if t.high is not None), default=math.inf)
    if not low < high:
        raise ConfigError(f"{where}: low {low:g} and high {high:g} of its targets contradict")
    bottom = -math.inf if lowest is None else lowest
    top = math.inf if highest is None else highest
    if not (low < top and bottom < high):
        raise ConfigError(f"{where}: low {low:g} and high {high:g} exclude its range, {bottom:g} to {top:g}")
    for setpoint in (s for t in targets for s in t.setpoints):
        if not bottom <= setpoint <= top:
            raise ConfigError(f"{where}: setpoint {setpoint:g} is outside its range, {bottom:g} to {top:g}")
