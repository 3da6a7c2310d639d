"""Signals proposed from what was found: roles, limits, periods, each with its reason and its doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fusion.importing.proposal import LEAST_STALE_S, MARGIN, STALE_INTERVALS, STEPS_S
from fusion.plant import Gain, Role, Signal
from fusion.site.found import FoundSignal, FoundTag, Kind, Seen
from fusion.site.loops import Judged, judge

LEAST_STEP_S = 1.0
FROZEN_VALUES = 3
NEAR = 0.15


def step_of(tags: Sequence[FoundTag]) -> float:
    """The round step nearest to what a quick tag gives, a second or more: the lower quartile of their intervals."""
    intervals = [tag.seen.interval_s for tag in tags if tag.seen.interval_s]
    quick = float(np.quantile(intervals, 0.25)) if intervals else LEAST_STEP_S
    return max(LEAST_STEP_S, min(STEPS_S, key=lambda step: abs(np.log(step / quick))))


def propose(tags: Sequence[FoundTag], step_s: float, seconds: float) -> tuple[list[FoundSignal], list[Gain]]:
    """A signal for every tag, heard for some ``seconds``, and the gains of loops that follow their setpoint."""
    judged = judge(tags)
    by_name = {tag.name: tag for tag in tags}
    signals = [_signal(tag, judged[tag.name], by_name, step_s, seconds) for tag in tags]
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


def _signal(tag: FoundTag, own: Judged, tags: Mapping[str, FoundTag], step_s: float, seconds: float) -> FoundSignal:
    loop = tags.get(own.loop)
    low, high, doubt = _limits(tag, loop if own.role is Role.MANIPULATED else None, seconds)
    doubts = [*tag.doubts, own.doubt, doubt, _resting(tag, own, seconds)]
    unit = tag.unit
    if not unit and loop is not None and loop.unit:
        unit = loop.unit
        doubts.append(f"unit of {loop.name}, for it has none")
    elif not unit and tag.kind is not Kind.TRUTH:
        doubts.append("no unit is served")
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
        description=tag.description,
        machine=own.machine,
        auto_tag=auto_tag,
    )
    return FoundSignal(signal=signal, why=own.why, doubts=tuple(dict.fromkeys(d for d in doubts if d)))


def _limits(tag: FoundTag, loop: FoundTag | None, seconds: float) -> tuple[float | None, float | None, str]:
    """Declared limits, else those of what a setpoint sets, else what was seen with a margin; and what is unsure."""
    if tag.low is not None and tag.high is not None and tag.low < tag.high:
        return tag.low, tag.high, _outside(tag)
    if tag.kind is Kind.TRUTH:
        return 0.0, 1.0, ""
    if loop is not None and loop.low is not None and loop.high is not None and loop.low < loop.high:
        return loop.low, loop.high, f"low and high are those of {loop.name}"
    if not tag.seen.count or tag.seen.constant:
        return None, None, "no limits are served and nothing moved"
    margin = MARGIN * (tag.seen.high - tag.seen.low)
    low, high = _round(tag.seen.low - margin), _round(tag.seen.high + margin)
    return (
        low,
        (high if high > low else low + max(1.0, abs(low))),
        f"low and high are what {seconds:g} s showed, widened",
    )


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
    resting = own.rests or own.role is Role.MANIPULATED or own.machine or tag.kind is not Kind.REAL
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
