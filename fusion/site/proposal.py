"""Signals proposed from what was found: roles, limits, periods, each with its reason and its doubts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fusion.importing.proposal import LEAST_STALE_S, MARGIN, STALE_INTERVALS, STEPS_S
from fusion.plant import Gain, Role, Signal
from fusion.site.found import FoundSignal, FoundTag, Kind, Seen
from fusion.site.loops import Judged, Part, judge

LEAST_STEP_S = 1.0
FROZEN_VALUES = 3
NEAR = 0.15
FEWEST_STEPS = 5
ADDS_UP = ("kW.h", "MW.h", "W.h", "J", "kJ", "h")  # a level may be of m3 and a scale of kg; these only add up
COUNTER = re.compile(
    r"(?i)(count|total|zähl|zaehl|menge gesamt|compteur|cumul|contador|счётчик|счетчик|итог|计数|累计|累積|積算"
    r"|running hour|run ?time|betriebsstunde|heures de marche|horas de|наработк|运行时间|watchdog|heart ?beat)"
    r"|(?<![A-Z])[FJ]Q[IT]?(?![a-z])"
)


def step_of(tags: Sequence[FoundTag]) -> float:
    """The round step nearest to what a quick tag gives, a second or more: the lower quartile of their intervals."""
    intervals = [tag.seen.interval_s for tag in tags if tag.seen.interval_s]
    quick = float(np.quantile(intervals, 0.25)) if intervals else LEAST_STEP_S
    return max(LEAST_STEP_S, min(STEPS_S, key=lambda step: abs(np.log(step / quick))))


def propose(tags: Sequence[FoundTag], step_s: float, seconds: float) -> tuple[list[FoundSignal], list[Gain]]:
    """A signal for every tag, heard for some ``seconds``, and the gains of loops that follow their setpoint."""
    judged = judge(tags)
    by_name = {tag.name: tag for tag in tags}
    alike = _units_of_own_names(tags)
    signals = [_signal(tag, judged[tag.name], by_name, alike, step_s, seconds) for tag in tags]
    units = {found.signal.name: found.signal for found in signals}
    loops = [(name, own.loop) for name, own in judged.items() if own.role is Role.MANIPULATED and own.loop]
    gains = [
        Gain(manipulated=name, controlled=loop, sign=1)
        for name, loop in loops
        if units[name].role is Role.MANIPULATED
        and units[loop].role is Role.CONTROLLED
        and units[name].unit == units[loop].unit
    ]
    return signals, gains


def _units_of_own_names(tags: Sequence[FoundTag]) -> dict[str, str]:
    """The unit of all tags of one own name in several folders that have one, where it is the same."""
    found: dict[str, set[str]] = {}
    for tag in tags:
        if tag.unit:
            found.setdefault(tag.path[-1], set()).add(tag.unit)
    return {name: min(units) for name, units in found.items() if len(units) == 1}


def counts(tag: FoundTag) -> bool:
    """Whether a tag is a total: it grew at each change, of a quantity that adds up or by a name that says so.

    A whole number that grows in small steps and falls in great ones is a counter that wraps.
    """
    if tag.kind is Kind.WHOLE and tag.seen.wraps:
        return True
    if not tag.seen.grows or tag.seen.count < FEWEST_STEPS:
        return False
    said = " ".join((tag.path[-1], tag.description))
    return tag.unit in ADDS_UP or bool(COUNTER.search(said))


def _signal(
    tag: FoundTag, own: Judged, tags: Mapping[str, FoundTag], alike: Mapping[str, str], step_s: float, seconds: float
) -> FoundSignal:
    loop = tags.get(own.loop)
    unit, unit_doubt = _unit(tag, own, loop, alike)
    low, high, doubt = _limits(tag, unit, loop if own.role is Role.MANIPULATED else None, seconds)
    doubts = [*tag.doubts, own.doubt, unit_doubt, doubt, _resting(tag, own, seconds)]
    role, auto_tag = own.role, own.auto_tag
    if role is Role.MANIPULATED and (low is None or high is None):
        role, auto_tag = Role.MEASURED, ""
        doubts.append("manipulated, once you know low and high")
    signal = Signal(
        name=tag.name,
        unit=unit or "1",
        period_s=_period_s(tag.seen, step_s),
        stale_after_s=_stale_after_s(tag.seen, step_s, seconds),
        role=role,
        low=low,
        high=high,
        description="; ".join(text for text in (tag.description, _words(tag.states)) if text),
        machine=own.machine,
        auto_tag=auto_tag,
    )
    return FoundSignal(signal=signal, why=own.why, doubts=tuple(dict.fromkeys(d for d in doubts if d)))


def _words(states: Mapping[int, str]) -> str:
    """An enumeration as recordings write it."""
    return ", ".join(f"{number}={word}" for number, word in states.items())


def _unit(tag: FoundTag, own: Judged, loop: FoundTag | None, alike: Mapping[str, str]) -> tuple[str, str]:
    """What is served, else that of what belongs together with it; and what is unsure."""
    if tag.unit or tag.kind is Kind.TRUTH or tag.states or own.part in (Part.AUTO, Part.MANUAL):
        return tag.unit, ""
    if loop is not None and loop.unit:
        return loop.unit, f"unit of {loop.name}, for it has none"
    if own.part is Part.OUTPUT and (tag.low, tag.high) == (0.0, 100.0):
        return "%", "no unit is served: an output of 0 to 100"
    if own.part is None and tag.path[-1] in alike:
        return alike[tag.path[-1]], f"unit of others that are called {tag.path[-1]}, for it has none"
    return "", "no unit is served"


def _limits(tag: FoundTag, unit: str, loop: FoundTag | None, seconds: float) -> tuple[float | None, float | None, str]:
    """Declared limits, else those of what a setpoint sets, else what was seen with a margin; and what is unsure."""
    if tag.low is not None and tag.high is not None and tag.low < tag.high:
        return tag.low, tag.high, _outside(tag)
    if tag.kind is Kind.TRUTH:
        return 0.0, 1.0, ""
    if len(tag.states) > 1:
        return float(min(tag.states)), float(max(tag.states)), ""
    if loop is not None and loop.low is not None and loop.high is not None and loop.low < loop.high:
        return loop.low, loop.high, f"low and high are those of {loop.name}"
    if not tag.seen.count or tag.seen.constant:
        return None, None, "no limits are served and nothing moved"
    if unit == "%" and tag.seen.low >= 0.0 and tag.seen.high <= 100.0:
        return 0.0, 100.0, "low and high are those of a share: none are served"
    margin = MARGIN * (tag.seen.high - tag.seen.low)
    digits = 2 - math.floor(math.log10(tag.seen.high - tag.seen.low))  # of the span, not of the value
    low, high = round(tag.seen.low - margin, digits), round(tag.seen.high + margin, digits)
    return low, high, f"low and high are what {seconds:g} s showed, widened"


def _outside(tag: FoundTag) -> str:
    assert tag.low is not None  # noqa: S101 - asked before
    assert tag.high is not None  # noqa: S101
    if tag.seen.count and not (tag.low <= tag.seen.low and tag.seen.high <= tag.high):
        return f"seen {_round(tag.seen.low):g} to {_round(tag.seen.high):g}, outside of its limits"
    return ""


def _resting(tag: FoundTag, own: Judged, seconds: float) -> str:
    """What a value that did not move may mean."""
    if not tag.seen.count:
        return "only bad values came" if tag.seen.bad else f"no value came in {seconds:g} s"
    resting = own.rests or own.role is Role.MANIPULATED or own.machine or tag.kind is not Kind.REAL or bool(tag.states)
    if resting or not tag.seen.constant:
        return ""
    if tag.seen.count >= FROZEN_VALUES:
        return f"{tag.seen.count} times the same value: frozen?"
    return f"did not change in {seconds:g} s: a constant, or frozen?"


def _period_s(seen: Seen, step_s: float) -> float:
    interval_s = seen.interval_s
    if not interval_s:
        return step_s
    nice = min(STEPS_S, key=lambda step: abs(np.log(step / interval_s)))
    return nice if abs(nice / interval_s - 1.0) < NEAR else _round(interval_s)


def _stale_after_s(seen: Seen, step_s: float, seconds: float) -> float:
    rare_s = seen.longest_s if seen.interval_s else seconds
    return _round(max(LEAST_STALE_S, STALE_INTERVALS * step_s, STALE_INTERVALS * rare_s))


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def unsure(found: FoundSignal, doubt: str) -> FoundSignal:
    """The same with one more doubt."""
    return replace(found, doubts=(*found.doubts, doubt))
