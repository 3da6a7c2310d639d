"""The daemon: supervise sources, tick the timeline, call inference, publish, report health, shut down.

One task per source, one for intake, one for inference (in a single worker thread), one for orders of operators, one
for health. Sources, timeline, inference and publisher stop in that order, the order of the data, each with a deadline.
What an operator should know of is on disk before it is published.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from connectors.base import Source
from control.advice.licence import Level
from fusion.alarms import Alarm, AlarmOrder, MarkKind, MarkOrder, ModelOrder, ModeOrder, OrderKind
from fusion.clock import CLOCK, Clock, iso_time
from fusion.daemon.audit import Audit
from fusion.daemon.certificates import CertificateWatch
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.follower import Follower
from fusion.daemon.glance import name_of
from fusion.daemon.http import HttpConfig, serving
from fusion.daemon.inquiries import Inquiries
from fusion.daemon.memory import TickMemory
from fusion.daemon.outlet import Outlet
from fusion.daemon.seat import Seat
from fusion.daemon.status import Statistics, Status, Watched
from fusion.daemon.succession import Succession
from fusion.ending import dead_thread
from fusion.errors import ConfigError, PlantMismatch
from fusion.health import Health
from fusion.inference import Engine, Outcome
from fusion.notify import notify
from fusion.plain import plain
from fusion.plant import Plant, difference
from fusion.prospects import Prospect, Question, Refusal, refused
from fusion.recordings.marks import Mark, alarm_mark
from fusion.recordings.recorder import Recorder
from fusion.recordings.recording import arrival_ns
from fusion.records import NS_PER_S, AnomalyState, Frame, Verdict
from fusion.timeline.timeline import Timeline

log = logging.getLogger(__name__)

T = TypeVar("T")

INTAKE_PERIOD_S = 0.05
ORDERS_PERIOD_S = 0.25
QUESTIONS_PERIOD_S = 0.1
PATIENCE_S = 5.0
HEALTH_PERIOD_S = 2.0
FRAMES_WAITING = 8
STOP_DEADLINE_S = 3.0


class Daemon:
    """Sources in, records out; ``lossless`` (replay) waits for inference instead of skipping ticks.

    ``clock`` is the one by which sources stamp arrivals. ``desk`` keeps the alarms and ``memory`` the ticks that a
    later start goes on from; ``recorder`` keeps what arrives; ``succession`` brings new models. All are
    closed with the daemon.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        timeline: Timeline,
        engine: Engine | Seat,
        outlet: Outlet,
        *,
        desk: AlarmDesk | None = None,
        memory: TickMemory | None = None,
        audit: Audit | None = None,
        recorder: Recorder | None = None,
        succession: Succession | None = None,
        certificates: CertificateWatch | None = None,
        http: HttpConfig | None = None,
        lossless: bool = False,
        whatif_per_minute: int = 30,
        verifier_timeout_s: float = 10.0,
        clock: Clock = CLOCK,
    ) -> None:
        self._sources = sources
        self._timeline = timeline
        self._engine = engine
        self._outlet = outlet
        self._desk = desk or AlarmDesk()
        self._memory = memory
        self._audit = audit or Audit()
        self._recorder = recorder
        self._succession = succession
        self._http = http or HttpConfig()
        self._lossless = lossless
        self._follower = Follower(verifier_timeout_s)
        self._inquiries = Inquiries(whatif_per_minute, time.monotonic)
        self._clock = clock
        self._arrival_ns = 0
        self._frames: asyncio.Queue[tuple[Frame, int]] = asyncio.Queue(FRAMES_WAITING)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._noted_skips = 0
        self.statistics = Statistics()
        watched = Watched(sources=sources, timeline=timeline, engine=engine, outlet=outlet, desk=self._desk)
        keepers = [keeper for keeper in (memory, recorder, succession, self._audit) if keeper is not None]
        self._status = Status(watched, self.statistics, keepers, certificates, clock)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or, in replay, until every source has finished."""
        intake = asyncio.create_task(self._intake(stop), name="intake")
        inference = asyncio.create_task(self._inference(), name="inference")
        orders = asyncio.create_task(self._orders(), name="orders")
        health = asyncio.create_task(self._health(), name="health")
        questions = asyncio.create_task(self._questions(), name="questions")
        rest = [orders, health, questions]
        if self._succession is not None:
            rest.append(asyncio.create_task(self._succession.watch(), name="succession"))
        try:
            self._audit.note("started", model=self._engine.model_id)
            for alarm in self._desk.again():
                self._outlet.again(alarm, self._clock.now_ns())
                self._note(alarm, self._clock.now_ns())
            if self._recorder is not None:
                await asyncio.to_thread(self._recorder.start)
                told = await asyncio.to_thread(self._recorder.told)
                for source in self._sources:
                    source.resume(*told)
            for source in self._sources:
                await source.start()
            async with serving(self._http, self._status.answer):
                notify("READY=1")
                with dead_thread() as dead:
                    await _first_failure_or_done(intake, inference, *rest, dead)
        finally:
            await self._shut_down(intake, inference, *rest)

    async def _shut_down(
        self, intake: asyncio.Task[None], inference: asyncio.Task[None], *rest: asyncio.Task[None]
    ) -> None:
        notify("STOPPING=1")
        await _bounded(asyncio.gather(*(source.stop() for source in self._sources)), "sources")
        await _cancel(intake)
        await _bounded(self._frames.join(), "inference") if not inference.done() else None
        await _cancel(inference, *rest)
        self._worker.shutdown(wait=True, cancel_futures=True)
        if isinstance(self._engine, Seat):
            self._engine.close()
        try:
            self._desk.settle(self._outlet.settled)
            self._saving()()
            if self._memory is not None:
                self._memory.close()
        finally:
            self._outlet.close()
            self._audit.note("stopped")
            self._desk.close()
            if self._succession is not None:
                await self._succession.close()
            if self._recorder is not None:
                await asyncio.to_thread(self._recorder.close)

    async def _intake(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._take()
            if self._finished():
                await self._hand_over(self._timeline.flush())
                await self._frames.join()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.0 if self._lossless else INTAKE_PERIOD_S)

    async def _take(self) -> None:
        """Move what arrived into the timeline and hand over the ticks that this closed."""
        for source in self._sources:
            for gap in source.gaps():
                await self._work(self._outlet.gap, gap)
            for item in source.drain():
                self._timeline.push(item)
                if self._recorder is not None:
                    self._recorder.add(item)
                if self._lossless:
                    await self._advance_to(arrival_ns(item))
        if not self._lossless:
            await self._hand_over(self._timeline.advance(self._clock.now_ns()))

    async def _advance_to(self, arrival_ns: int) -> None:
        if arrival_ns > self._arrival_ns:
            self._arrival_ns = arrival_ns
            await self._hand_over(self._timeline.advance(arrival_ns))

    def _finished(self) -> bool:
        return self._lossless and all(getattr(source, "finished", False) for source in self._sources)

    async def _hand_over(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if self._frames.full() and not self._lossless:
                self._frames.get_nowait()
                self._frames.task_done()
                self.statistics.skip()
            await self._frames.put((frame, time.monotonic_ns()))

    async def _inference(self) -> None:
        while True:
            frame, closed_ns = await self._frames.get()
            newest = self._frames.empty()
            for answer in self._outlet.answers():
                await self._kept("answer", id=answer.id, answer=answer.answer, reason=answer.reason, by=answer.by)
                await self._work(self._engine.answer, answer)
            if self._noted_skips < self.statistics.skipped_ticks:
                self._noted_skips = self.statistics.skipped_ticks
                self._engine.note_skipped()
            outcome = await self._work(self._engine.step, frame, newest)
            outcome = await self._published(outcome)
            if self._memory is not None and outcome.ticks is not None:
                self._memory.add(outcome.ticks)
            if self._succession is not None:
                await self._succession.seat_successor(self._work)
            self.statistics.ticks += 1
            self.statistics.tick_ns = time.monotonic_ns()
            self.statistics.latency_s.append((self.statistics.tick_ns - closed_ns) / NS_PER_S)
            self._frames.task_done()

    async def _published(self, outcome: Outcome) -> Outcome:
        """Put on the disk what a tick changed, then publish all of it."""
        with self._desk.telling(self._outlet.settled):
            outcome, changed = self._desk.take(outcome)
            if outcome.anomalies or self._engine.notes != self._desk.notes:
                await self._save()
            await self._work(self._outlet.outcome, outcome)
            if (advice := outcome.recommendation) is not None and advice.verdict is Verdict.ADVISE:
                await self._kept("advice", id=advice.id, moves={m.signal: m.recommended for m in advice.moves})
            await self._tell(changed, outcome.frame.t_ns)
        for anomaly in outcome.anomalies:
            if self._recorder is not None and anomaly.state is not AnomalyState.HELD:
                self._recorder.mark(alarm_mark(anomaly))
        return outcome

    async def _work(self, work: Callable[..., T], *given: Any) -> T:
        """Do something in the thread of the engine, after what it has been given before."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *given)

    async def _save(self) -> None:
        """Put the alarm list as it now is on the disk."""
        await self._work(self._saving())

    def _saving(self) -> Callable[[], None]:
        alarms, untold = self._desk.log.alarms, frozenset(self._desk.untold)
        return lambda: self._desk.save(alarms, untold, self._engine.sequence, self._engine.notes)

    async def _orders(self) -> None:
        """Do what operators say, whether ticks come or not."""
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
                    await self._save()
                    await self._tell(changed, now_ns)
                await self._followed()
            await asyncio.sleep(ORDERS_PERIOD_S)

    async def _followed(self) -> None:
        """Leave supervised where nobody can be heard who follows; nothing but an order brings it back."""
        if lost := self._follower.lost(self._engine.mode, self._outlet.verifier, time.monotonic()):
            await self._work(self._engine.order, str(Level.ADVISE))
            await self._kept("mode", mode=str(Level.ADVISE), by="daemon", reason=lost)
            await self._save()
            log.warning("advice is in mode %s: %s", Level.ADVISE, lost)

    async def _questions(self) -> None:
        """Answer what is asked about the future."""
        while True:
            for question in self._outlet.questions():
                await self._work(self._outlet.prospect, await self._foreseen(question))
            await asyncio.sleep(QUESTIONS_PERIOD_S)

    async def _foreseen(self, question: Question) -> Prospect:
        """The answer to a question, for which no tick waits."""
        now_ns = self._clock.now_ns()
        if (too_many := self._inquiries.refusal(question, now_ns)) is not None:
            return too_many
        try:
            await asyncio.wait_for(self._frames.join(), PATIENCE_S)
        except TimeoutError:
            text = f"ticks have been waiting for {PATIENCE_S:g} s; they come first"
            return refused(question, now_ns, Refusal.BUSY, text, self._engine.model_id)
        return await self._work(self._engine.whatif, question)

    async def _obeyed(self, order: AlarmOrder, t_ns: int) -> list[Alarm]:
        """The alarm that an order has changed, if any."""
        try:
            alarm = self._desk.obey(order, t_ns)
        except ConfigError as error:
            self._outlet.refused("order:refused")
            await self._kept("refused", id=order.id, order=order.order, by=order.by)
            log.warning("order to %s by %s is refused: %s", order.order, order.by or "nobody", error)
            return []
        await self._kept("order", id=order.id, order=order.order, by=order.by, for_s=order.for_s)
        if alarm is not None and order.order is OrderKind.NORMAL:
            await self._work(self._engine.accept, order.id)
            self._note_good(alarm, order.by)
        return [] if alarm is None else [alarm]

    async def _moded(self, order: ModeOrder) -> None:
        """Have advice do what an operator asks."""
        try:
            changed = await self._work(self._engine.order, order.mode)
        except ConfigError as error:
            self._outlet.refused("mode:refused")
            await self._kept("refused", mode=order.mode, by=order.by)
            log.warning("order by %s is refused: %s", order.by or "nobody", error)
            return
        if changed:
            await self._kept("mode", mode=order.mode, by=order.by)
            await self._save()
            log.info("advice is in mode %s, says %s", order.mode, order.by or "nobody")

    async def _chosen(self, order: ModelOrder) -> None:
        """Have a model put to use that somebody chooses."""
        try:
            if self._succession is None:
                raise ConfigError("no models are kept here; say learn.models")
            await asyncio.to_thread(self._succession.choose, order)
        except ConfigError as error:
            self._outlet.refused("model:refused")
            await self._kept("refused", model=order.model, by=order.by)
            log.warning("order by %s is refused: %s", order.by, error)
        else:
            await self._kept("model", model=order.model, by=order.by)

    async def retarget(self, plant: Plant) -> None:
        """Take over the targets of a plant that is otherwise the one that runs.

        Raises:
            PlantMismatch: where it is another.
        """
        if plant.fingerprint != self._engine.plant.fingerprint:
            raise PlantMismatch(f"more than targets has changed: {difference(self._engine.plant, plant)}; start again")
        await self._work(self._engine.retarget, plant)
        await self._kept("targets", targets=plain(plant.targets))
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
            await self._kept("mark", name=mark.name, **said)

    def _note_good(self, alarm: Alarm, by: str) -> None:
        """What an operator takes for normal is learned from."""
        if self._recorder is not None:
            since_ns, now_ns = alarm.anomaly.t_onset_ns, self._clock.now_ns()
            name = f"{alarm.anomaly.id} good"
            self._recorder.mark(Mark(name=name, kind=MarkKind.GOOD, onset_ns=since_ns, end_ns=now_ns, by=by))

    async def _tell(self, changed: Sequence[Alarm], t_ns: int) -> None:
        """Say what became of alarms, to everyone and in the log."""
        for alarm in changed:
            await self._work(self._outlet.alarm, alarm, t_ns)
            await self._work(self._note, alarm, t_ns)
            log.info("alarm %s (%s) at %s: %s", alarm.anomaly.id, name_of(alarm), iso_time(t_ns), _said(alarm, t_ns))

    async def _health(self) -> None:
        while True:
            health = self.health("online")
            self._outlet.health(health)
            notify(f"STATUS={health.plant_state}: {health.reason}", *(["WATCHDOG=1"] if self._status.flowing else []))
            await asyncio.sleep(HEALTH_PERIOD_S)
            self._desk.settle(self._outlet.settled)
            if self._desk.stale:
                await self._save()

    async def _kept(self, what: str, **details: Any) -> None:
        """Keep for good what was done, before anything follows from it."""
        await self._work(partial(self._audit.note, what, **details))

    def _note(self, alarm: Alarm, t_ns: int) -> None:
        """Keep for good where an alarm stands."""
        self._audit.note("alarm", id=alarm.anomaly.id, name=name_of(alarm), said=_said(alarm, t_ns))

    def health(self, state: str) -> Health:
        """The daemon as the operator should see it, now."""
        return self._status.health(state)


def _said(alarm: Alarm, t_ns: int) -> str:
    """Where an alarm stands, and who has seen, shelved or accepted it."""
    said = [str(alarm.state(t_ns))]
    if alarm.acknowledged_ns is not None:
        said.append(f"acknowledged by {alarm.acknowledged_by} at {iso_time(alarm.acknowledged_ns)}")
    if alarm.shelved_until_ns is not None:
        said.append(f"shelved by {alarm.shelved_by} until {iso_time(alarm.shelved_until_ns)}")
    if alarm.accepted_by:
        said.append(f"taken for normal by {alarm.accepted_by}")
    return ", ".join(said)


async def _first_failure_or_done(intake: asyncio.Task[None], *others: asyncio.Future[None]) -> None:
    """Wait for the intake to end; a failure of anything is raised here and ends the daemon."""
    done, _ = await asyncio.wait((intake, *others), return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _bounded(work: Awaitable[object], what: str) -> None:
    try:
        await asyncio.wait_for(work, STOP_DEADLINE_S)
    except TimeoutError:
        log.warning("%s did not stop within %.0f s", what, STOP_DEADLINE_S)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
