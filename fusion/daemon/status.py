"""What the daemon says of itself: health, the plant at a glance, whether ticks flow, and what HTTP serves of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol

import numpy as np

from connectors.base import Source
from fusion.clock import Clock
from fusion.daemon.certificates import CertificateWatch
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.glance import Signs, patience_s, plant_state
from fusion.daemon.http import Answer
from fusion.daemon.metrics import CONTENT_TYPE, metrics
from fusion.daemon.outlet import Outlet
from fusion.daemon.seat import Seat
from fusion.health import Health, PlantState, SourceHealth
from fusion.inference import Engine
from fusion.publish.encoding import full_health
from fusion.publish.messages import encode, moved
from fusion.records import NS_PER_S
from fusion.timeline.timeline import Timeline, TimelineHealth

HOST_STEP_S = 2.0
LATELY_S = 60.0


@dataclass(slots=True)
class Statistics:
    """What the daemon counts about itself; latencies [s] run from tick close to publish, times are monotonic."""

    started_ns: int = field(default_factory=time.monotonic_ns)
    ticks: int = 0
    skipped_ticks: int = 0
    tick_ns: int | None = None
    skipped_ns: deque[int] = field(default_factory=lambda: deque(maxlen=10_000))
    latency_s: deque[float] = field(default_factory=lambda: deque(maxlen=300))

    def skip(self) -> None:
        """A tick has been left out."""
        self.skipped_ticks += 1
        self.skipped_ns.append(time.monotonic_ns())

    def skipped_lately(self) -> int:
        """Ticks left out in the last minute."""
        since_ns = time.monotonic_ns() - round(LATELY_S * NS_PER_S)
        while self.skipped_ns and self.skipped_ns[0] < since_ns:
            self.skipped_ns.popleft()
        return len(self.skipped_ns)

    def latency(self, percentile: float) -> float:
        """A percentile of the recent latencies [s]; zero before the first tick."""
        return float(np.percentile(self.latency_s, percentile)) if self.latency_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The parts of a daemon that are asked how they are."""

    sources: Sequence[Source]
    timeline: Timeline
    engine: Engine | Seat
    outlet: Outlet
    desk: AlarmDesk


class Keeper(Protocol):
    """What writes to a disk or a broker, and says in words what is in its way."""

    @property
    def trouble(self) -> str:
        """Empty where all is well."""


class Learns(Protocol):
    """What makes models of what is recorded."""

    @property
    def learning(self) -> str:
        """What is being learned, or when the next model is due, in words."""


class Status:
    """How a daemon is, now."""

    def __init__(
        self,
        watched: Watched,
        statistics: Statistics,
        keepers: Sequence[Keeper],
        certificates: CertificateWatch | None,
        clock: Clock,
        learner: Learns | None = None,
    ) -> None:
        self._learner = learner
        self._watched, self._statistics, self._keepers, self._clock = watched, statistics, keepers, clock
        self._certificates = certificates or CertificateWatch({})
        self._flowing_ns = time.monotonic_ns()

    def health(self, state: str) -> Health:
        """The daemon as the operator should see it, now."""
        clocks, now_ns, counted = self._watched.timeline.health(), self._clock.now_ns(), self._statistics
        watched, flags = self._watched, {*self._certificates.flags, *self._host_clock()}
        flags |= {*watched.engine.flags, *watched.desk.flags, *watched.outlet.flags}
        bare = Health(
            t_ns=now_ns,
            state=state,
            sources=tuple(_with_clock(source.health(), source.signals, clocks) for source in self._watched.sources),
            latency_p50_s=counted.latency(50),
            latency_p99_s=counted.latency(99),
            ticks=counted.ticks,
            skipped_ticks=counted.skipped_ticks,
            uptime_s=(time.monotonic_ns() - counted.started_ns) / NS_PER_S,
            model_id=self._watched.engine.model_id,
            calibrated_hours=self._watched.engine.calibrated_hours,
            licence=str(self._watched.engine.level),
            mode=str(self._watched.engine.mode),
            flags=tuple(sorted({*flags, *(f"clock:{name}" for name in clocks.skewed)})),
            alarms=self._watched.desk.log.standing(now_ns),
            learning="" if self._learner is None else self._learner.learning,
        )
        glance, reason = plant_state(self._signs(bare))
        return replace(bare, plant_state=glance, reason=reason)

    @property
    def tick_age_s(self) -> float | None:
        """Time since the last tick was judged [s]; None before the first."""
        tick_ns = self._statistics.tick_ns
        return None if tick_ns is None else (time.monotonic_ns() - tick_ns) / NS_PER_S

    @property
    def flowing(self) -> bool:
        """Whether ticks are judged as they should; while no source is alive there are none to judge."""
        if not any(source.health().alive for source in self._watched.sources):
            self._flowing_ns = time.monotonic_ns()
        since_ns = max(self._flowing_ns, self._statistics.tick_ns or 0)
        return time.monotonic_ns() - since_ns < patience_s(self._watched.engine.plant.step_s) * NS_PER_S

    def answer(self, path: str) -> Answer | None:
        """What is served over HTTP."""
        health = self.health("online")
        ready = health.plant_state is not PlantState.NO_DATA
        match path:
            case "/livez":
                return _said_ok(self.flowing, "" if self.flowing else "no tick is judged, though data arrive")
            case "/readyz":
                return _said_ok(ready, health.reason)
            case "/health":
                said = encode(full_health(health, self._watched.engine.plant, self._watched.outlet.delivery))
                return Answer(HTTPStatus.OK, "application/json", moved(said, self._clock.step_ns()).decode())
            case "/metrics":
                return Answer(
                    HTTPStatus.OK, CONTENT_TYPE, metrics(health, self.tick_age_s, self._watched.outlet.delivery)
                )
        return None

    def _signs(self, health: Health) -> Signs:
        watched = self._watched
        keepers: list[Keeper] = [watched.outlet, watched.desk, *self._keepers, self._certificates]
        trouble = [keeper.trouble for keeper in keepers]
        return Signs(
            t_ns=health.t_ns,
            step_s=self._watched.engine.plant.step_s,
            tick_age_s=self.tick_age_s,
            sources=health.sources,
            alarms=health.alarms,
            skipped=self._statistics.skipped_lately(),
            latency_p99_s=health.latency_p99_s,
            flags=health.flags,
            trouble=[text for text in trouble if text],
        )

    def _host_clock(self) -> tuple[str, ...]:
        """A step of the system's clock since the start: our stamps and others' differ by it until we start again."""
        return ("clock:host",) if abs(self._clock.stepped_s()) > HOST_STEP_S else ()


def _said_ok(good: bool, reason: str) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, "text/plain; charset=utf-8", f"{'ok' if good else reason}\n")


def _with_clock(health: SourceHealth, signals: Sequence[str], timeline: TimelineHealth) -> SourceHealth:
    """A source's health with the offset of the clock its samples carry, where that is known."""
    clocks = [timeline.clock_of[name] for name in signals if name in timeline.clock_of]
    offsets = [timeline.clock_offset_s[clock] for clock in clocks if clock in timeline.clock_offset_s]
    return replace(health, clock_offset_s=offsets[0] if offsets else None)
