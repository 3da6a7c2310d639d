"""The clerk: does what people order of alarms, marks, advice and models, and has it on disk before it is told.

An order that cannot be done is counted, kept in the audit with who gave it, and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from control.advice.licence import Level
from fusion.alarms import Alarm, AlarmOrder, MarkKind, MarkOrder, ModelOrder, ModeOrder, OrderKind
from fusion.clock import Clock, iso_time
from fusion.daemon.audit import Audit
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.follower import Follower
from fusion.daemon.glance import name_of
from fusion.daemon.outlet import Outlet
from fusion.daemon.seat import Seat
from fusion.daemon.succession import Succession
from fusion.errors import ConfigError, PlantMismatch
from fusion.inference import Engine
from fusion.plain import plain
from fusion.plant import Plant
from fusion.plant_difference import difference
from fusion.recordings.marks import Mark, called_mark
from fusion.recordings.recorder import Recorder

log = logging.getLogger(__name__)

T = TypeVar("T")

ORDERS_PERIOD_S = 0.25
CALLS = (OrderKind.NORMAL, OrderKind.FAULT, OrderKind.MAINTENANCE)


class Work(Protocol):
    """Does something in the thread of the engine, after what it has been given before."""

    async def __call__(self, work: Callable[..., T], *given: Any) -> T:
        """The outcome of ``work``."""


class Clerk:
    """Between people and the daemon's engine, desk, recorder and models; ``work`` runs in the engine's thread."""

    def __init__(
        self,
        engine: Engine | Seat,
        outlet: Outlet,
        desk: AlarmDesk,
        audit: Audit,
        recorder: Recorder | None,
        succession: Succession | None,
        follower: Follower,
        clock: Clock,
        work: Work,
    ) -> None:
        self._engine, self._outlet, self._desk, self._audit = engine, outlet, desk, audit
        self._recorder, self._succession, self._follower = recorder, succession, follower
        self._clock, self._work = clock, work

    async def save(self) -> None:
        """Put the alarm list as it now is on the disk."""
        await self._work(self.saving())

    def saving(self) -> Callable[[], None]:
        """What puts the alarm list as it now is on the disk."""
        alarms, untold = self._desk.log.alarms, frozenset(self._desk.untold)
        return lambda: self._desk.save(alarms, untold, self._engine.sequence, self._engine.notes)

    async def watch(self) -> None:
        """Do what operators say, whether ticks come or not, for ever."""
        while True:
            with self._desk.telling(self._outlet.settled):
                now_ns = self._clock.now_ns()
                changed = list(self._desk.unshelve_due(now_ns))
                for order in self._outlet.orders():
                    if isinstance(order, MarkOrder):
                        await self._marked(order)
                    elif isinstance(order, ModeOrder):
                        await self._moded(order)
                    elif isinstance(order, ModelOrder):
                        await self._chosen(order)
                    else:
                        changed += await self._obeyed(order, now_ns)
                if changed:
                    await self.save()
                    await self.tell(changed, now_ns)
                await self._followed()
            await asyncio.sleep(ORDERS_PERIOD_S)

    async def _followed(self) -> None:
        """Leave supervised where nobody can be heard who follows; nothing but an order brings it back."""
        if lost := self._follower.lost(self._engine.mode, self._outlet.verifier, time.monotonic()):
            await self._work(self._engine.order, str(Level.ADVISE))
            await self.kept("mode", mode=str(Level.ADVISE), by="daemon", reason=lost)
            await self.save()
            log.warning("advice is in mode %s: %s", Level.ADVISE, lost)

    async def _obeyed(self, order: AlarmOrder, t_ns: int) -> list[Alarm]:
        """The alarm that an order has changed, if any."""
        try:
            alarm = self._desk.obey(order, t_ns)
        except ConfigError as error:
            self._outlet.refused("order:refused")
            await self.kept("refused", id=order.id, order=order.order, by=order.by)
            log.warning("order to %s by %s is refused: %s", order.order, order.by or "nobody", error)
            return []
        await self.kept("order", id=order.id, order=order.order, by=order.by, for_s=order.for_s)
        if alarm is None:
            return []
        if order.order is OrderKind.NORMAL:
            await self._work(self._engine.accept, order.id)
        if order.order in CALLS:
            await self.mark_called(alarm)
        return [alarm]

    async def _moded(self, order: ModeOrder) -> None:
        """Have advice do what an operator asks."""
        try:
            changed = await self._work(self._engine.order, order.mode)
        except ConfigError as error:
            self._outlet.refused("mode:refused")
            await self.kept("refused", mode=order.mode, by=order.by)
            log.warning("order by %s is refused: %s", order.by or "nobody", error)
            return
        if changed:
            await self.kept("mode", mode=order.mode, by=order.by)
            await self.save()
            log.info("advice is in mode %s, says %s", order.mode, order.by or "nobody")

    async def _chosen(self, order: ModelOrder) -> None:
        """Have a model put to use that somebody chooses."""
        try:
            if self._succession is None:
                raise ConfigError("no models are kept here; say learn.models")
            await asyncio.to_thread(self._succession.choose, order)
        except ConfigError as error:
            self._outlet.refused("model:refused")
            await self.kept("refused", model=order.model, by=order.by, reason=str(error))
            log.warning("order by %s is refused: %s", order.by, error)
        else:
            await self.kept("model", model=order.model, by=order.by)

    async def retarget(self, plant: Plant) -> None:
        """Take over the targets of a plant that is otherwise the one that runs.

        Raises:
            PlantMismatch: where it is another.
        """
        if plant.fingerprint != self._engine.plant.fingerprint:
            raise PlantMismatch(f"more than targets has changed: {difference(self._engine.plant, plant)}; start again")
        await self._work(self._engine.retarget, plant)
        await self.kept("targets", targets=plain(plant.targets))
        log.info("targets of plant %s are taken over", plant.name)

    async def _marked(self, order: MarkOrder) -> None:
        """Keep what somebody says of a stretch of time."""
        try:
            if self._recorder is None:
                raise ConfigError("nothing is recorded here; say record.folder")
            mark = self._recorder.obey(order)
        except ConfigError as error:
            self._outlet.refused("mark:refused")
            log.warning("mark by %s is refused: %s", order.by or "nobody", error)
        else:
            said = {"kind": mark.kind, "by": mark.by, "since": mark.onset_ns, "until": mark.end_ns}
            await self.kept("mark", name=mark.name, **said)
            await self._maintained(mark)

    async def mark_called(self, alarm: Alarm) -> None:
        """Mark the time of an alarm as what somebody called it; what is taken for normal is so until now."""
        mark = called_mark(alarm)
        if mark is None or self._recorder is None:
            return
        if mark.kind is MarkKind.GOOD:
            mark = replace(mark, end_ns=mark.end_ns or self._clock.now_ns())
        self._recorder.mark(mark)
        await self._maintained(mark)

    async def _maintained(self, mark: Mark) -> None:
        """Have what follows slow drifts forget what was before a maintenance had ended."""
        if mark.kind is MarkKind.MAINTENANCE and isinstance(self._engine, Seat):
            await self._work(self._engine.maintained, mark.end_ns or self._clock.now_ns())

    async def tell(self, changed: Sequence[Alarm], t_ns: int) -> None:
        """Say what became of alarms, to everyone and in the log."""
        for alarm in changed:
            await self._work(self._outlet.alarm, alarm, t_ns)
            await self._work(self.note, alarm, t_ns)
            log.info("alarm %s (%s) at %s: %s", alarm.anomaly.id, name_of(alarm), iso_time(t_ns), _said(alarm, t_ns))

    async def kept(self, what: str, **details: Any) -> None:
        """Keep for good what was done, before anything follows from it."""
        await self._work(partial(self._audit.note, what, **details))

    def note(self, alarm: Alarm, t_ns: int) -> None:
        """Keep for good where an alarm stands."""
        self._audit.note("alarm", id=alarm.anomaly.id, name=name_of(alarm), said=_said(alarm, t_ns))


def _said(alarm: Alarm, t_ns: int) -> str:
    """Where an alarm stands, who has seen, shelved or accepted it, and why it is none."""
    said = [str(alarm.state(t_ns))]
    if alarm.acknowledged_ns is not None:
        said.append(f"acknowledged by {alarm.acknowledged_by} at {iso_time(alarm.acknowledged_ns)}")
    if alarm.shelved_until_ns is not None:
        said.append(f"shelved by {alarm.shelved_by} until {iso_time(alarm.shelved_until_ns)}")
    if alarm.accepted_by:
        said.append(f"taken for normal by {alarm.accepted_by}")
    elif alarm.called is not None:
        said.append(f"called a {alarm.called} by {alarm.called_by}")
    if alarm.suppressed_by:
        said.append(f"no alarm while {alarm.suppressed_by}")
    return ", ".join(said)
