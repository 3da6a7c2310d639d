"""A plant description proposed from history: units, step, periods, roles and limits, for an engineer to correct."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from connectors.historian.rows import TagInfo
from fusion.importing.tag_quality import TagQuality
from fusion.plant import Plant, Role, Signal

STEPS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
MARGIN = 0.1
STALE_INTERVALS = 3.0
LEAST_STALE_S = 5.0
SETPOINT = re.compile(r"(?i)(^|[._\- /])(sp|spt|setpoint|set_point|soll|sollwert|cv_?out|op|mv)$")
MEASURED = re.compile(r"(?i)(^|[._\- /])(pv|me|meas|measured|ist|istwert)$")
UCUM: Mapping[str, str] = {
    "": "1",
    "-": "1",
    "°c": "Cel",
    "degc": "Cel",
    "deg c": "Cel",
    "c": "Cel",
    "°f": "[degF]",
    "degf": "[degF]",
    "deg f": "[degF]",
    "m³/h": "m3/h",
    "nm3/h": "m3/h",
    "l/min": "L/min",
    "l/s": "L/s",
    "l/h": "L/h",
    "barg": "bar",
    "bara": "bar",
    "psi": "[psi]",
    "psig": "[psi]",
    "psia": "[psi]",
    "rpm": "/min",
    "1/min": "/min",
    "ph": "[pH]",
    "ppm": "[ppm]",
    "ppb": "[ppb]",
    "kg/hr": "kg/h",
    "t/hr": "t/h",
    "amps": "A",
    "amp": "A",
    "volts": "V",
    "sec": "s",
    "hr": "h",
}


def ucum(unit: str) -> str:
    """A unit as UCUM writes it, where it is a well-known other spelling."""
    return UCUM.get(unit.strip().lower(), unit.strip())


def propose(
    name: str,
    tags: Sequence[TagQuality],
    infos: Mapping[str, TagInfo],
    states: Mapping[str, Mapping[str, int]],
    step_s: float | None,
) -> Plant:
    """A plant of these tags; ``states`` are the codes of digital ones."""
    usable = [tag for tag in tags if tag.rows > tag.bad]
    step = step_s or nice_step(usable)
    names = {tag.name for tag in usable}
    signals = tuple(
        _signal(tag, infos.get(tag.name, TagInfo()), states.get(tag.name, {}), names, step) for tag in usable
    )
    return Plant(name=name, step_s=step, signals=signals)


def nice_step(tags: Sequence[TagQuality]) -> float:
    """The round step nearest to what a quick tag gives: the lower quartile of the tags' median intervals."""
    if not tags:
        return 1.0
    quick = float(np.quantile([tag.interval_s() for tag in tags], 0.25))
    return min(STEPS_S, key=lambda step: abs(np.log(step / quick)))


def _signal(tag: TagQuality, info: TagInfo, states: Mapping[str, int], names: set[str], step_s: float) -> Signal:
    low, high = _limits(tag, info, digital=bool(states))
    listed = ", ".join(f"{code}={state}" for state, code in sorted(states.items(), key=lambda item: item[1]))
    text = "; ".join(part for part in (info.description, listed) if part)
    signal = Signal(
        name=tag.name,
        unit=ucum(info.unit),
        period_s=_round(max(step_s, tag.interval_s())),
        stale_after_s=_round(stale_after_s(tag, step_s)),
        low=low,
        high=high,
        description=text,
    )
    return replace(signal, role=suggested_role(tag, names))


def suggested_role(tag: TagQuality, names: set[str]) -> Role:
    """MANIPULATED by a setpoint's or output's name, CONTROLLED where a tag has a setpoint of its own, else MEASURED."""
    if SETPOINT.search(tag.name):
        return Role.MANIPULATED
    stem = MEASURED.sub("", tag.name)
    has_setpoint = any(SETPOINT.search(other) and SETPOINT.sub("", other) in (stem, tag.name) for other in names)
    return Role.CONTROLLED if has_setpoint else Role.MEASURED


def stale_after_s(tag: TagQuality, step_s: float) -> float:
    """How long a value counts: thrice the rare interval; where only changes were archived, twice the longest one."""
    rare = STALE_INTERVALS * tag.interval_s(0.99)
    if tag.compressed or tag.rows < 50:
        rare = max(rare, 2.0 * tag.interval_s(1.0))
    return max(LEAST_STALE_S, STALE_INTERVALS * step_s, rare)


def _limits(tag: TagQuality, info: TagInfo, *, digital: bool) -> tuple[float, float]:
    """Declared limits, else what nearly all values kept to with a margin; of a digital tag its codes."""
    if info.low is not None and info.high is not None and info.low < info.high:
        return info.low, info.high
    low, high = tag.quantiles(0.001, 0.999) if not digital else (tag.low, tag.high)
    margin = 0.0 if digital else MARGIN * (high - low)
    low, high = _round(low - margin), _round(high + margin)
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def _round(value: float) -> float:
    return float(f"{value:.4g}")
