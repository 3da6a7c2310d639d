"""The plant at a glance: one word and why, of everything the daemon knows about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control.anomaly.detector import FOREIGN, STANDING, UNCALIBRATED
from fusion.alarms import ASIDE, Alarm
from fusion.daemon.seat import NO_MODEL
from fusion.health import PlantState, SourceHealth, SourceState
from fusion.inference import KNOWS_LITTLE
from models.operating.levels import NOT_JUDGED

LEAST_PATIENCE_S = 10.0
PATIENCE_STEPS = 5
WARMING_UP = ("warming up", "waiting for first values")
BROKEN = (SourceState.STALE, SourceState.DOWN, SourceState.REFUSED)
SENSES = {"video": "no picture", "audio": "no sound", "lidar": "no point cloud"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What the state of the plant is read from; ``tick_age_s`` is None before the first tick.

    ``skipped`` counts the ticks of the last minute. ``trouble`` is what stands in the way of results, in words.
    """

    t_ns: int
    step_s: float
    tick_age_s: float | None
    sources: Sequence[SourceHealth]
    alarms: Sequence[Alarm]
    skipped: int
    latency_p99_s: float
    flags: Sequence[str]
    trouble: Sequence[str]


def plant_state(signs: Signs) -> tuple[PlantState, str]:
    """The first state that applies, and the reason in words."""
    learning = [flag for flag in signs.flags if flag.startswith(NO_MODEL)]
    warming = [flag for flag in signs.flags if flag.startswith(WARMING_UP)]
    found = (
        (PlantState.NO_DATA, _no_data(signs)),
        (PlantState.ALARM, _alarm(signs)),
        (PlantState.DEGRADED, "; ".join(_degraded(signs))),
        (PlantState.LEARNING, "; ".join(learning)),
        (PlantState.WARMING_UP, "; ".join(warming)),
    )
    return next(((state, reason) for state, reason in found if reason), (PlantState.NORMAL, ""))


def _no_data(signs: Signs) -> str:
    if signs.sources and not any(source.alive for source in signs.sources):
        return "no source is alive: " + "; ".join(_named(source) for source in signs.sources)
    if signs.tick_age_s is None:
        return "no tick yet"
    late = signs.tick_age_s > patience_s(signs.step_s)
    return f"no tick for {signs.tick_age_s:.0f} s" if late else ""


def patience_s(step_s: float) -> float:
    """How long a tick may be in coming [s] in a plant of this step."""
    return max(LEAST_PATIENCE_S, PATIENCE_STEPS * step_s)


def _alarm(signs: Signs) -> str:
    speaking = [a for a in signs.alarms if a.active and a.state(signs.t_ns) not in ASIDE]
    if not speaking:
        return ""
    said = f"{len(speaking)} alarm{'s' if len(speaking) > 1 else ''}: " + ", ".join(name_of(a) for a in speaking)
    why = dict.fromkeys(a.anomaly.revision for a in speaking if a.anomaly.revision in (STANDING, FOREIGN))
    return "; ".join((said, *why))


def _degraded(signs: Signs) -> list[str]:
    said = [f"{signs.skipped} ticks skipped in the last minute"] if signs.skipped else []
    if signs.latency_p99_s > signs.step_s:
        said.append(f"results are {signs.latency_p99_s:.1f} s late")
    said += [f"source {_named(source)}" for source in signs.sources if source.state in BROKEN]
    said += [f"clock {flag.removeprefix('clock:')} is off" for flag in signs.flags if flag.startswith("clock:")]
    said += [f"the model {flag}" for flag in signs.flags if flag.startswith(KNOWS_LITTLE)]
    unlike = [flag.removeprefix(UNCALIBRATED) for flag in signs.flags if flag.startswith(UNCALIBRATED)]
    said += [
        f"{SENSES.get(sense, sense)} is judged: it is unlike all that the model was trained on" for sense in unlike
    ]
    said += ["nothing is judged in this operating state, of which too little was recorded"] * (
        NOT_JUDGED in signs.flags
    )
    return [*said, *signs.trouble]


def _named(source: SourceHealth) -> str:
    return f"{source.name} is {source.state}" + (f" ({source.message})" if source.message else "")


def name_of(alarm: Alarm) -> str:
    """What an operator calls an alarm: its kind and the signal that stands out most."""
    anomaly = alarm.anomaly
    shares = anomaly.by_modality
    what = anomaly.top_signals[0].signal if anomaly.top_signals else max(shares, key=lambda m: shares[m], default="")
    return f"{anomaly.kind} {what}".strip()
