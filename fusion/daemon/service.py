"""The daemon: supervise sources, tick the timeline, call inference, publish, report health, shut down.

One task per source, one for intake, one for inference (in a single worker thread), one for health. Sources, timeline,
inference and publisher stop in that order, the order of the data, each with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from connectors.base import Source
from connectors.kinds import source_of
from connectors.replay import ReplayConfig, replay_source
from fusion.checkpoint import load_checkpoint
from fusion.clock import CLOCK, Clock
from fusion.command import stop_on_signals
from fusion.daemon.outlet import FileOutlet, MqttOutlet, Outlet, Outlets
from fusion.daemon.settings import DaemonConfig
from fusion.errors import FusionError
from fusion.files import check_place
from fusion.inference import Cadence, Engine
from fusion.plant import Plant
from fusion.plant_file import load_plant
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.recordings.recording import Recording, arrival_ns
from fusion.records import NS_PER_S, Frame, Health, SourceHealth
from fusion.timeline.timeline import Timeline, TimelineHealth

log = logging.getLogger(__name__)

INTAKE_PERIOD_S = 0.05
HEALTH_PERIOD_S = 2.0
FRAMES_WAITING = 8
STOP_DEADLINE_S = 3.0
HOST_STEP_S = 2.0


@dataclass(slots=True)
class Statistics:
    """What the daemon counts about itself; latencies [s] run from tick close to publish."""

    started_ns: int = field(default_factory=time.monotonic_ns)
    ticks: int = 0
    skipped_ticks: int = 0
    latency_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def latency(self, percentile: float) -> float:
        """A percentile of the recent latencies [s]; zero before the first tick."""
        return float(np.percentile(self.latency_s, percentile)) if self.latency_s else 0.0


class Daemon:
    """Sources in, records out; ``lossless`` (replay) waits for inference instead of skipping ticks.

    ``clock`` is the one by which sources stamp arrivals.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        timeline: Timeline,
        engine: Engine,
        outlet: Outlet,
        *,
        lossless: bool = False,
        clock: Clock = CLOCK,
    ) -> None:
        self._sources = sources
        self._timeline = timeline
        self._engine = engine
        self._outlet = outlet
        self._lossless = lossless
        self._clock = clock
        self._arrival_ns = 0
        self._frames: asyncio.Queue[tuple[Frame, int]] = asyncio.Queue(FRAMES_WAITING)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self.statistics = Statistics()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or, in replay, until every source has finished."""
        intake = asyncio.create_task(self._intake(stop), name="intake")
        inference = asyncio.create_task(self._inference(), name="inference")
        health = asyncio.create_task(self._health(), name="health")
        try:
            for source in self._sources:
                await source.start()
            await _first_failure_or_done(intake, inference, health)
        finally:
            await self._shut_down(intake, inference, health)

    async def _shut_down(
        self, intake: asyncio.Task[None], inference: asyncio.Task[None], *rest: asyncio.Task[None]
    ) -> None:
        await _bounded(asyncio.gather(*(source.stop() for source in self._sources)), "sources")
        await _cancel(intake)
        await _bounded(self._frames.join(), "inference") if not inference.done() else None
        await _cancel(inference, *rest)
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._outlet.close()

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
                self._outlet.gap(gap)
            for item in source.drain():
                self._timeline.push(item)
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
                self.statistics.skipped_ticks += 1
            await self._frames.put((frame, time.monotonic_ns()))

    async def _inference(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame, closed_ns = await self._frames.get()
            newest = self._frames.empty()
            for answer in self._outlet.answers():
                await loop.run_in_executor(self._worker, self._engine.answer, answer)
            outcome = await loop.run_in_executor(self._worker, self._engine.step, frame, newest)
            self._outlet.outcome(outcome)
            self.statistics.ticks += 1
            self.statistics.latency_s.append((time.monotonic_ns() - closed_ns) / NS_PER_S)
            self._frames.task_done()

    async def _health(self) -> None:
        while True:
            self._outlet.health(self.health("online"))
            await asyncio.sleep(HEALTH_PERIOD_S)

    def health(self, state: str) -> Health:
        """The daemon as the operator should see it, now."""
        clocks = self._timeline.health()
        return Health(
            t_ns=self._clock.now_ns(),
            state=state,
            sources=tuple(_with_clock(source.health(), source.signals, clocks) for source in self._sources),
            latency_p50_s=self.statistics.latency(50),
            latency_p99_s=self.statistics.latency(99),
            ticks=self.statistics.ticks,
            skipped_ticks=self.statistics.skipped_ticks,
            uptime_s=(time.monotonic_ns() - self.statistics.started_ns) / NS_PER_S,
            model_id=self._engine.model_id,
            calibrated_hours=self._engine.calibrated_hours,
            licence=str(self._engine.level),
            flags=tuple(
                sorted({*self._engine.flags, *(f"clock:{name}" for name in clocks.skewed), *self._host_clock()})
            ),
        )

    def _host_clock(self) -> tuple[str, ...]:
        """A step of the system's clock since the start: our stamps and others' differ by it until we start again."""
        return ("clock:host",) if abs(self._clock.stepped_s()) > HOST_STEP_S else ()


def _with_clock(health: SourceHealth, signals: Sequence[str], timeline: TimelineHealth) -> SourceHealth:
    """A source's health with the offset of the clock its samples carry, where that is known."""
    clocks = [timeline.clock_of[name] for name in signals if name in timeline.clock_of]
    offsets = [timeline.clock_offset_s[clock] for clock in clocks if clock in timeline.clock_offset_s]
    return replace(health, clock_offset_s=offsets[0] if offsets else None)


async def _first_failure_or_done(intake: asyncio.Task[None], *others: asyncio.Task[None]) -> None:
    """Wait for the intake to end; a failure of any task is raised here and ends the daemon."""
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


def run(config: DaemonConfig) -> None:
    """`fusion run`: the daemon on the sources of a configuration, until asked to stop."""
    plant = load_plant(Path(config.plant))
    checkpoint = load_checkpoint(Path(config.model), plant)
    cadence = Cadence(
        forecast_every_s=config.forecast_every_s, advise_every_s=config.advise_every_s, advise=config.advise
    )
    sources = [_source(connector, plant, name) for name, connector in config.connectors.items()]

    def build() -> Daemon:
        engine = Engine(
            checkpoint, detector=config.detector, advisor=config.advisor, cadence=cadence, clock_ns=CLOCK.now_ns
        )
        outlet = MqttOutlet(MqttPublisher(config.publish, plant, engine.model_id, clock=CLOCK.now_ns), engine)
        return Daemon(sources, Timeline(plant, config.timeline), engine, outlet)

    asyncio.run(_until_stopped(build))


def _source(connector: Any, plant: Plant, name: str) -> Source:
    """A source, or the reason why there is none with the key of its connector."""
    try:
        return source_of(connector, plant, name)
    except FusionError as error:
        raise type(error)(f"connectors.{name}: {error}") from error


def replay(
    recording: Path, model: Path, speed: float, publish: PublisherConfig | None, lines: Path | None
) -> Statistics:
    """`fusion replay`: a recording through the daemon path; returns what the daemon counted."""
    if lines is not None:
        check_place("--json", lines)
    plant = Recording(recording).plant
    checkpoint = load_checkpoint(model, plant)
    daemons: list[Daemon] = []

    def build() -> Daemon:
        engine = Engine(checkpoint)
        outlets: list[Outlet] = [FileOutlet(lines, plant, engine.model_id)] if lines is not None else []
        if publish is not None:
            outlets.append(MqttOutlet(MqttPublisher(publish, plant, engine.model_id, clock=engine.now_ns), engine))
        player = replay_source(ReplayConfig(path=str(recording), speed=speed), plant)
        daemons.append(Daemon([player], Timeline(plant), engine, Outlets(outlets), lossless=True))
        return daemons[0]

    asyncio.run(_until_stopped(build))
    statistics = daemons[0].statistics
    log.info("%s: %d ticks, latency p99 %.0f ms", recording, statistics.ticks, 1000 * statistics.latency(99))
    return statistics


async def _until_stopped(build: Callable[[], Daemon]) -> None:
    """Build a daemon inside the loop and run it until a signal asks it to stop."""
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await build().run(stop)
