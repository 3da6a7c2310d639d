"""Health: every source and the daemon as the operator should see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fusion.alarms import Alarm


class SourceState(StrEnum):
    """Where a source's connection stands."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALE = "stale"
    DOWN = "down"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHealth:
    """One source as the operator should see it; ``dropped`` counts by reason, ``epoch`` counts connections."""

    name: str
    state: SourceState
    alive: bool
    rate_hz: float
    expected_hz: float
    age_s: float | None
    received: int
    dropped: Mapping[str, int]
    epoch: int
    clock_offset_s: float | None = None
    message: str = ""


class PlantState(StrEnum):
    """The plant at a glance: the first of these that applies."""

    NO_DATA = "no_data"
    ALARM = "alarm"
    DEGRADED = "degraded"
    LEARNING = "learning"
    WARMING_UP = "warming_up"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The daemon as a whole: sources, latency from tick close to publish, skipped ticks, uptime, model licence.

    ``mode`` is what the operator asks of advice. ``plant_state`` is the plant at a glance and ``reason`` why in words;
    ``alarms`` are all that are not normal. ``learning`` is what is being learned, or when the next model is due.
    """

    t_ns: int
    state: str
    sources: tuple[SourceHealth, ...]
    latency_p50_s: float
    latency_p99_s: float
    ticks: int
    skipped_ticks: int
    uptime_s: float
    model_id: str
    calibrated_hours: float
    flags: tuple[str, ...] = ()
    licence: str = ""
    mode: str = ""
    plant_state: PlantState = PlantState.NO_DATA
    reason: str = ""
    alarms: tuple[Alarm, ...] = ()
    learning: str = ""
