"""The daemon's health as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from fusion.alarms import AlarmState
from fusion.health import Health, PlantState
from fusion.publish.messages import Delivery

Labels = Mapping[str, str]
Row = tuple[str, str, Labels, float | None]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HELP = {
    "fusion_plant_state": "1 for the state the plant is in",
    "fusion_ticks_total": "ticks that were judged",
    "fusion_skipped_ticks_total": "ticks left out because inference was too slow",
    "fusion_tick_age_seconds": "time since the last tick was judged",
    "fusion_latency_seconds": "time from the close of a tick to its results",
    "fusion_uptime_seconds": "time since the start",
    "fusion_flag": "1 for what is not as it should be",
    "fusion_alarms": "alarms by state",
    "fusion_source_alive": "1 for a source that delivers",
    "fusion_source_rate_hertz": "values a second",
    "fusion_source_age_seconds": "time since the last value",
    "fusion_source_connections_total": "connections that were begun",
    "fusion_source_received_total": "values received",
    "fusion_source_dropped_total": "values dropped, by reason",
    "fusion_published_total": "messages the broker has, by kind",
    "fusion_dropped_total": "messages given up, by kind and reason",
    "fusion_outbox_waiting": "letters that the broker does not have yet",
    "process_resident_memory_bytes": "resident memory",
    "process_open_fds": "open descriptors",
    "process_cpu_seconds_total": "time of the processor, in user and system mode",
}


def metrics(health: Health, tick_age_s: float | None, delivery: Delivery | None) -> str:
    """Every figure; one that is not known is left out."""
    lines, named = [], ""
    for name, kind, labels, value in _rows(health, tick_age_s, delivery):
        if value is None:
            continue
        if name != named:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]
            named = name
        said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{said}}} {value:.10g}" if said else f"{name} {value:.10g}")
    return "\n".join(lines) + "\n"


def _rows(health: Health, tick_age_s: float | None, delivery: Delivery | None) -> Iterator[Row]:
    for state in PlantState:
        yield "fusion_plant_state", "gauge", {"state": state.value}, float(health.plant_state is state)
    yield "fusion_ticks_total", "counter", {}, health.ticks
    yield "fusion_skipped_ticks_total", "counter", {}, health.skipped_ticks
    yield "fusion_tick_age_seconds", "gauge", {}, tick_age_s
    for quantile, latency_s in (("0.5", health.latency_p50_s), ("0.99", health.latency_p99_s)):
        yield "fusion_latency_seconds", "gauge", {"quantile": quantile}, latency_s
    yield "fusion_uptime_seconds", "gauge", {}, health.uptime_s
    for flag in health.flags:
        yield "fusion_flag", "gauge", {"flag": flag}, 1.0
    states = [alarm.state(health.t_ns) for alarm in health.alarms]
    for alarm_state in AlarmState:
        yield "fusion_alarms", "gauge", {"state": alarm_state.value}, states.count(alarm_state)
    yield from _sources(health)
    if delivery is not None:
        for kind, count in sorted(delivery.published.items()):
            yield "fusion_published_total", "counter", {"kind": kind}, count
        for lost, count in sorted(delivery.dropped.items()):
            kind, _, reason = lost.partition(":")
            yield "fusion_dropped_total", "counter", {"kind": kind, "reason": reason}, count
        yield "fusion_outbox_waiting", "gauge", {}, delivery.waiting
    yield from _process()


def _sources(health: Health) -> Iterator[Row]:
    sources = [({"source": source.name}, source) for source in health.sources]
    for labels, source in sources:
        yield "fusion_source_alive", "gauge", labels, float(source.alive)
    for labels, source in sources:
        yield "fusion_source_rate_hertz", "gauge", labels, source.rate_hz
    for labels, source in sources:
        yield "fusion_source_age_seconds", "gauge", labels, source.age_s
    for labels, source in sources:
        yield "fusion_source_connections_total", "counter", labels, source.epoch
    for labels, source in sources:
        yield "fusion_source_received_total", "counter", labels, source.received
    for labels, source in sources:
        for reason, count in sorted(source.dropped.items()):
            yield "fusion_source_dropped_total", "counter", {**labels, "reason": reason}, count


def _process() -> Iterator[Row]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield "process_resident_memory_bytes", "gauge", {}, pages * os.sysconf("SC_PAGE_SIZE")
        yield "process_open_fds", "gauge", {}, len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened
    except OSError:
        pass
    yield "process_cpu_seconds_total", "counter", {}, used.ru_utime + used.ru_stime


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
