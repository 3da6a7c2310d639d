"""The slow quantities of a plant, in engineering units, and where each has its limit.

Tags that have limits; each tag less what its neighbours tell of it; what balances that were declared or found lose in
an hour. Nothing is computed twice: residuals are what the monitors have just left behind.
Shape letters: Q quantities, S tags, E energies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant, Signal
from fusion.trends import LimitSource, Quantity, QuantityKind
from models.monitors.accumulation import SETTLED, Accumulations
from models.monitors.balance import BalanceMonitor, Laws, energy_name
from models.monitors.monitors import MonitorCarry, Monitors
from models.monitors.relations import SETTLED_TICKS, Relations
from models.scaling import Bools, Floats
from models.ticks import Ticks

HOUR_S = 3600.0
Alarms = Mapping[str, float]
"""The raw energy at which each raises an alarm, by name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits [Q] of the quantities, infinite where there is none, and whose they are."""

    low: Floats
    high: Floats
    source: tuple[LimitSource, ...]


class Group(Protocol):
    """Quantities of one kind."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What they are."""

    @property
    def needs(self) -> Bools:
        """The tags [Q, S] without which one is not known."""

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """Each [Q] after one tick; NaN where it is not known."""

    def limits(self, alarms: Alarms) -> Limits:
        """Where each has its limits now."""


class Quantities:
    """All quantities of a plant, with those that need ``monitors`` where there are some; ``basis`` is their model.

    ``others`` are told elsewhere.
    """

    def __init__(
        self, plant: Plant, monitors: Monitors | None = None, basis: str = "", others: Sequence[Group] = ()
    ) -> None:
        groups: list[Group] = [Values.of(plant), *others]
        for number, other in enumerate(() if monitors is None else monitors.others):
            scale = monitors.core.scaling.tags.scale if monitors is not None else np.ones(0)
            if isinstance(other, Relations):
                groups.append(Beside.of(other, number, scale, basis))
            elif isinstance(other, Accumulations):
                groups.append(Found.of(other, number, scale, basis))
            elif isinstance(other, Laws):
                groups.append(Declared.of(other, number, basis))
        self._groups = groups
        self.all = tuple(quantity for group in groups for quantity in group.quantities)
        self._needs = np.concatenate([group.needs for group in groups])
        self._column = {tag.name: i for i, tag in enumerate(plant.tags)}

    def __len__(self) -> int:
        return len(self.all)

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """Each quantity [Q] after one tick; NaN where it is not known."""
        made = np.concatenate([group.values(ticks, carry) for group in self._groups])
        made[(self._needs & ~ticks.observed[-1]).any(1)] = np.nan
        return made

    def limits(self, alarms: Alarms) -> Limits:
        """Where each has its limits now."""
        found = [group.limits(alarms) for group in self._groups]
        source = tuple(source for limits in found for source in limits.source)
        return Limits(np.concatenate([f.low for f in found]), np.concatenate([f.high for f in found]), source)

    def akin(self, one: int, other: int) -> bool:
        """Whether of two that are reckoned from several tags each or one is reckoned from the other's own."""
        a, b = self.all[one], self.all[other]
        if QuantityKind.VALUE in (a.kind, b.kind):
            return False
        told = (self._needs[i, self._column[q.signal]] for i, q in ((one, b), (other, a)) if q.signal in self._column)
        return any(bool(needed) for needed in told)


@dataclass(frozen=True, slots=True)
class Values:
    """Tags that have limits: those of the targets, else of their range."""

    quantities: tuple[Quantity, ...]
    needs: Bools
    column: NDArray[np.int64]
    own: Limits

    @classmethod
    def of(cls, plant: Plant) -> Values:
        """The tags of a plant."""
        rows = [(column, signal, _own(plant, signal)) for column, signal in enumerate(plant.tags)]
        kept = [row for row in rows if math.isfinite(row[2][0]) or math.isfinite(row[2][1])]
        quantities = tuple(
            Quantity(name=f"value.{signal.name}", kind=QuantityKind.VALUE, signal=signal.name, unit=signal.unit)
            for _, signal, _ in kept
        )
        limits = Limits(
            np.array([low for *_, (low, _, _) in kept], np.float64),
            np.array([high for *_, (_, high, _) in kept], np.float64),
            tuple(source for *_, (_, _, source) in kept),
        )
        column = np.array([column for column, *_ in kept], np.int64)
        return cls(quantities, _needs([[c] for c in column], plant), column, limits)

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """As they read."""
        return np.array(ticks.tags[-1, self.column], np.float64)

    def limits(self, alarms: Alarms) -> Limits:
        """Those of the plant file."""
        return self.own


def _own(plant: Plant, signal: Signal) -> tuple[float, float, LimitSource]:
    mine = [target for target in plant.targets if target.signal == signal.name]
    lows, highs = [t.low for t in mine if t.low is not None], [t.high for t in mine if t.high is not None]
    if lows or highs:
        return max(lows, default=-math.inf), min(highs, default=math.inf), LimitSource.TARGET
    low = -math.inf if signal.low is None else signal.low
    return low, math.inf if signal.high is None else signal.high, LimitSource.RANGE


def _needs(columns: Sequence[Sequence[int]], plant: Plant) -> Bools:
    made = np.zeros((len(columns), len(plant.tags)), bool)
    for row, needed in enumerate(columns):
        made[row, list(needed)] = True
    return made


def _alarming(names: Sequence[str], unit: Floats, alarms: Alarms) -> Limits:
    """To both sides as far as raises an alarm by the energy of each; ``unit`` [Q] is the size of an energy of one."""
    energy = np.array([alarms.get(name, np.inf) for name in names], np.float64)
    size = np.where((energy > 0) & np.isfinite(energy), energy * unit, np.inf)
    return Limits(-size, size, (LimitSource.ALARM,) * len(names))


@dataclass(frozen=True, slots=True)
class Beside:
    """Each tag less what its neighbours tell: of its relations the first, which is to all of them where that holds."""

    quantities: tuple[Quantity, ...]
    needs: Bools
    number: int
    rows: NDArray[np.int64]
    scale: Floats
    energy: str
    upper: Floats

    @classmethod
    def of(cls, relations: Relations, number: int, scale: Floats, basis: str) -> Beside:
        """The relations at place ``number`` among the monitors; ``scale`` [S] is the unit of scaled tags."""
        first: dict[int, int] = {}
        for row, relation in enumerate(relations.relations):
            first.setdefault(relation.tag, row)
        tags, rows = list(first), np.array(list(first.values()), np.int64)
        signals = [relations.plant.tags[tag] for tag in tags]
        quantities = tuple(
            Quantity(name=f"beside.{s.name}", kind=QuantityKind.BESIDE, signal=s.name, unit=s.unit, basis=basis)
            for s in signals
        )
        needs = [[t, *(v for v in relations.relations[r].values if v < len(scale))] for t, r in first.items()]
        slowest = min((e for e in relations.energies if not e.relative), key=lambda e: e.speed, default=None)
        upper = np.full(len(rows), np.inf) if slowest is None else relations.limits.upper[slowest.speed][rows]
        name = "" if slowest is None else slowest.name
        return cls(quantities, _needs(needs, relations.plant), number, rows, scale[tags], name, upper)

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """The residuals of the last tick [unit of the tag]."""
        left = carry.others[self.number]
        if left.ticks <= SETTLED_TICKS or left.averages.recent is None:
            return np.full(len(self.rows), np.nan)
        return np.asarray(left.averages.recent[-1, self.rows] * self.scale)

    def limits(self, alarms: Alarms) -> Limits:
        """What the slowest average raises an alarm at."""
        return _alarming([self.energy] * len(self.rows), self.upper * self.scale, alarms)


@dataclass(frozen=True, slots=True)
class Found:
    """What tags that accumulate gain in an hour beyond what the averages of others tell."""

    quantities: tuple[Quantity, ...]
    needs: Bools
    number: int
    settled: float
    per_hour: Floats
    energy: str
    upper: Floats

    @classmethod
    def of(cls, found: Accumulations, number: int, scale: Floats, basis: str) -> Found:
        """The balances found at place ``number`` among the monitors."""
        signals = [found.plant.tags[one.tag] for one in found.found]
        quantities = tuple(
            Quantity(
                name=f"found.{s.name}", kind=QuantityKind.BALANCE, signal=s.name, unit=_hourly(s.unit), basis=basis
            )
            for s in signals
        )
        per_hour = scale[[one.tag for one in found.found]] / (found.memory * found.plant.step_s) * HOUR_S
        needs = _needs([[one.tag, *one.inputs] for one in found.found], found.plant)
        energy = found.energies[0]
        settled = SETTLED * found.memory
        return cls(quantities, needs, number, settled, per_hour, energy.name, found.limits.upper[energy.speed])

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """The residuals of the last tick, by the hour."""
        left = carry.others[self.number]
        if left.age is None or left.averages.recent is None:
            return np.full(len(self.per_hour), np.nan)
        young = (self.needs & (left.age <= self.settled)).any(1)
        return np.asarray(np.where(young, np.nan, left.averages.recent[-1] * self.per_hour))

    def limits(self, alarms: Alarms) -> Limits:
        """What their average raises an alarm at."""
        return _alarming([self.energy] * len(self.per_hour), self.upper * self.per_hour, alarms)


@dataclass(frozen=True, slots=True)
class Declared:
    """What declared balances gain over their longest windows: in an hour, or without a level in % of the throughput."""

    quantities: tuple[Quantity, ...]
    needs: Bools
    number: int
    monitors: tuple[BalanceMonitor, ...]
    column: tuple[int, ...]
    factor: Floats
    energies: tuple[str, ...]

    @classmethod
    def of(cls, laws: Laws, number: int, basis: str) -> Declared:
        """The laws at place ``number`` among the monitors."""
        column = tuple(int(np.argmax(monitor.balance.window_s)) for monitor in laws.monitors)
        place = {tag.name: i for i, tag in enumerate(laws.plant.tags)}
        quantities, factor, needs, energies = [], [], [], []
        for monitor, longest in zip(laws.monitors, column, strict=True):
            law = monitor.balance
            unit = "%" if law.level is None else _hourly(laws.plant.by_name[law.level].unit)
            quantities.append(
                Quantity(name=f"balance.{law.name}", kind=QuantityKind.BALANCE, signal=law.name, unit=unit, basis=basis)
            )
            factor.append(100.0 if law.level is None else HOUR_S / law.capacity)
            needs.append([place[name] for name in law.signals if name in place])
            energies.append(energy_name(law, law.window_s[longest]))
        return cls(
            tuple(quantities), _needs(needs, laws.plant), number, laws.monitors, column, np.array(factor),
            tuple(energies),
        )  # fmt: skip

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """The imbalance over the longest window."""
        left = carry.others[self.number]
        found = [
            np.nan if begun is None else monitor.lately(begun, column)
            for monitor, column, begun in zip(self.monitors, self.column, left, strict=True)
        ]
        return np.array(found, np.float64) * self.factor

    def limits(self, alarms: Alarms) -> Limits:
        """What that window raises an alarm at."""
        spread = np.array(
            [monitor.spread[c] for monitor, c in zip(self.monitors, self.column, strict=True)], np.float64
        )
        return _alarming(self.energies, spread * np.abs(self.factor), alarms)


@dataclass(frozen=True, slots=True)
class Stated:
    """Hidden states as the fleet model told them last: ``now`` [Q] is written by whoever tells them."""

    quantities: tuple[Quantity, ...]
    needs: Bools
    own: Limits
    now: Floats

    @classmethod
    def of(cls, quantities: Sequence[Quantity], worst: Floats, plant: Plant) -> Stated:
        """Those of which the ``worst`` [Q, 2], below and above, is known; on a side where it is no change, no limit."""
        limits = Limits(
            np.where(worst[:, 0] < 0, worst[:, 0], -np.inf),
            np.where(worst[:, 1] > 0, worst[:, 1], np.inf),
            (LimitSource.FLEET,) * len(quantities),
        )
        return cls(tuple(quantities), _needs([[]] * len(quantities), plant), limits, np.full(len(quantities), np.nan))

    def values(self, ticks: Ticks, carry: MonitorCarry) -> Floats:
        """As they were told last."""
        return self.now

    def limits(self, alarms: Alarms) -> Limits:
        """The most worn of the plants that the fleet model learned from."""
        return self.own


def _hourly(unit: str) -> str:
    return "1/h" if unit in ("", "1") else f"{unit}/h"
