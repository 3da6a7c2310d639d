"""The daemon: supervise sources, tick the timeline, call inference, publish, report health, shut down.

One task per source, one for intake, one for inference (in a single worker thread), one for orders of operators (the
clerk), one for health. Sources, timeline, inference and publisher stop in that order, the order of the data, each with
a deadline. What an operator should know of is on disk before it is published.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from connectors.base import Source
from fusion.clock import CLOCK, Clock
from fusion.daemon.audit import Audit
from fusion.daemon.certificates import CertificateWatch
from fusion.daemon.clerk import Clerk
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.follower import Follower
from fusion.daemon.http import HttpConfig, serving
from fusion.daemon.inquiries import Inquiries
from fusion.daemon.memory import TickMemory
from fusion.daemon.outlet import Outlet
from fusion.daemon.peaks import Peaking
from fusion.daemon.progression import Progress
from fusion.daemon.seat import Seat
from fusion.daemon.status import Statistics, Status, Watched
from fusion.daemon.succession import Succession
from fusion.ending import dead_thread
from fusion.health import Health
from fusion.inference import Engine
from fusion.notify import notify
from fusion.outcome import Outcome
from fusion.plant import Plant
from fusion.prospects import Prospect, Question, Refusal, refused
from fusion.recordings.marks import alarm_mark
from fusion.recordings.recorder import Recorder
from fusion.recordings.recording import arrival_ns
from fusion.records import NS_PER_S, AnomalyState, Frame, Verdict
from fusion.timeline.timeline import Timeline

log = logging.getLogger(__name__)

T = TypeVar("T")

INTAKE_PERIOD_S = 0.05
QUESTIONS_PERIOD_S = 0.1
PATIENCE_S = 5.0
HEALTH_PERIOD_S = 2.0
FRAMES_WAITING = 8
STOP_DEADLINE_S = 3.0


class Daemon:
    """Sources in, records out; ``lossless`` (replay) waits for inference instead of skipping ticks.

    ``clock`` is the one by which sources stamp arrivals. ``desk`` keeps the alarms and ``memory`` the ticks that a
    later start goes on from; ``recorder`` keeps what arrives; ``succession`` brings new models. All are
    closed with the daemon. Of ``progress`` it is only asked what is in its way: the seat has it.
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
        progress: Progress | None = None,
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
        self._recorder, self._peaking = recorder, Peaking()
        self._succession = succession
        self._http = http or HttpConfig()
        self._lossless = lossless
        self._inquiries = Inquiries(whatif_per_minute, time.monotonic)
        self._clock = clock
        self._arrival_ns = 0
        self._frames: asyncio.Queue[tuple[Frame, int]] = asyncio.Queue(FRAMES_WAITING)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inference")
        follower = Follower(verifier_timeout_s)
        self._clerk = Clerk(engine, outlet, self._desk, self._audit, recorder, succession, follower, clock, self._work)
        self._noted_skips = 0
        self.statistics = Statistics()
        watched = Watched(sources=sources, timeline=timeline, engine=engine, outlet=outlet, desk=self._desk)
        keepers = [keeper for keeper in (memory, recorder, succession, progress, self._audit) if keeper is not None]
        self._status = Status(watched, self.statistics, keepers, certificates, clock, succession)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or, in replay, until every source has finished."""
        intake = asyncio.create_task(self._intake(stop), name="intake")
        inference = asyncio.create_task(self._inference(), name="inference")
        orders = asyncio.create_task(self._clerk.watch(), name="orders")
        health = asyncio.create_task(self._health(), name="health")
        questions = asyncio.create_task(self._questions(), name="questions")
        rest = [orders, health, questions]
        if self._succession is not None:
            rest.append(asyncio.create_task(self._succession.watch(), name="succession"))
        try:
            self._audit.note("started", model=self._engine.model_id)
            for alarm in self._desk.again():
                self._outlet.again(alarm, self._clock.now_ns())
                self._clerk.note(alarm, self._clock.now_ns())
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
            self._clerk.saving()()
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
                await self._clerk.kept("answer", id=answer.id, answer=answer.answer, reason=answer.reason, by=answer.by)
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
            if outcome.anomalies or changed or self._engine.notes != self._desk.notes:
                await self._clerk.save()
            await self._work(self._outlet.outcome, outcome)
            if (advice := outcome.recommendation) is not None and advice.verdict is Verdict.ADVISE:
                await self._clerk.kept("advice", id=advice.id, moves={m.signal: m.recommended for m in advice.moves})
            await self._clerk.tell(changed, outcome.frame.t_ns)
            for alarm in changed:
                await self._clerk.mark_called(alarm)
        if self._recorder is not None and (peaks := self._peaking.of(outcome, self._engine)) is not None:
            self._recorder.note(peaks)
        for anomaly in outcome.anomalies:
            if self._recorder is not None and anomaly.state is not AnomalyState.HELD:
                self._recorder.mark(alarm_mark(anomaly))
        return outcome

    async def _work(self, work: Callable[..., T], *given: Any) -> T:
        """Do something in the thread of the engine, after what it has been given before."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *given)

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

    async def _health(self) -> None:
        while True:
            health = self.health("online")
            self._outlet.health(health)
            notify(f"STATUS={health.plant_state}: {health.reason}", *(["WATCHDOG=1"] if self._status.flowing else []))
            await asyncio.sleep(HEALTH_PERIOD_S)
            self._desk.settle(self._outlet.settled)
            if self._desk.stale:
                await self._clerk.save()

    async def retarget(self, plant: Plant) -> None:
        """Take over the targets of a plant that is otherwise the one that runs.

        Raises:
            PlantMismatch: where it is another.
        """
        await self._clerk.retarget(plant)

    def health(self, state: str) -> Health:
        """The daemon as the operator should see it, now."""
        return self._status.health(state)


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
