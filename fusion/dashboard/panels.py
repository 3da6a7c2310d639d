"""Panels of text and tables as HTML; every value from the wire is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fusion.dashboard.board import Board
from fusion.dashboard.look import PLAIN, Look
from fusion.dashboard.words import (
    duration,
    figure,
    hold_text,
    milliseconds,
    signed,
    time_text,
    unit_text,
)
from fusion.publish.messages import Course, RecommendationMessage, SourceOut
from fusion.records import NS_PER_S, AdviceKind, HoldReason


def recommendation(board: Board, look: Look = PLAIN) -> str:
    """The current advice, or why there is none."""
    advice = board.advice
    if advice is None:
        return empty("no recommendation yet")
    left_s = (advice.valid_until_ns - board.now_ns) / NS_PER_S
    hold = advice.verdict == "hold"
    expiry = "expired" if left_s <= 0 else f"valid for {duration(int(left_s * NS_PER_S))}"
    back = advice.kind == AdviceKind.RETURN
    badge = _badge("HOLD" if hold else "RETURN" if back else "ADVISE", "good")
    about = f"{time_text(advice.t_ns, look.zone)}, {expiry}, no. {advice.sequence}"
    line = f'<div class="line">{badge}<span class="muted">{about}</span>'
    reason = f"<div class=reason>{escape(hold_text(advice.reason))}</div>" if hold else ""
    told = back or (hold and advice.reason != HoldReason.ANOMALY)
    text = f"<div>{escape(advice.text)}</div>" if told and advice.text else ""
    body = "" if hold else _moves(board, advice) + ("" if back else _gain(advice))
    stale = "" if left_s > 0 else " stale"
    rest = f"{reason}{text}{body}{_courses(board, advice)}{_conditions(advice)}"
    return f'<div class="advice{stale}">{line}</div>{rest}</div>'


def _moves(board: Board, advice: RecommendationMessage) -> str:
    rows = "".join(
        f"<tr><td><b>{escape(m.signal)}</b> {escape(board.description(m.signal))}</td>"
        f"<td class=num>{figure(m.current)}</td><td>&rarr;</td><td class=num><b>{figure(m.recommended)}</b></td>"
        f"<td>{escape(unit_text(m.unit))}</td>"
        f"<td class='num muted'>{figure(m.low)} .. {figure(m.high)}</td></tr>"
        for m in advice.moves
    )
    head = (
        "<tr><th>change</th><th class=num>from</th><th></th><th class=num>to</th><th></th><th class=num>range</th></tr>"
    )
    return f'<table class="moves">{head}{rows}</table>'


def _gain(advice: RecommendationMessage) -> str:
    gain = advice.gain
    return (
        f"<div>saves about <b>{figure(gain.expected)}</b> cost units an hour "
        f'<span class="muted">(90 %: {figure(gain.low)} .. {figure(gain.high)}; '
        "by the targets of the plant file)</span></div>"
    )


def _courses(board: Board, advice: RecommendationMessage) -> str:
    """Controlled signals now and at the end of the horizon, with and without the advice."""
    if not advice.if_nothing and not advice.if_applied:
        return ""
    applied = {c.signal: c for c in advice.if_applied}
    nothing = {c.signal: c for c in advice.if_nothing}
    rows = "".join(
        f"<tr><td><b>{escape(name)}</b></td><td class=num>{figure(board.value(name))}</td>"
        f"<td class=num>{_end(applied.get(name))}</td><td class=num>{_end(nothing.get(name))}</td>"
        f"<td>{escape(board.unit(name))}</td></tr>"
        for name in {**applied, **nothing}
    )
    horizon = duration(int((advice.horizon_s[-1] or 0) * NS_PER_S)) if advice.horizon_s else "-"
    head = (
        f"<tr><th>in {horizon}</th><th class=num>now</th><th class='num applied'>if applied</th>"
        "<th class='num nothing'>if nothing is done</th><th></th></tr>"
    )
    return f"<table>{head}{rows}</table>"


def _end(course: Course | None) -> str:
    if course is None or not course.mean:
        return "-"
    return f"{figure(course.mean[-1])} <small>{figure(course.low[-1])} .. {figure(course.high[-1])}</small>"


def _conditions(advice: RecommendationMessage) -> str:
    found = [("binding", advice.binding), ("stale", advice.stale)]
    if advice.verdict != "hold":
        found.append(("requires", advice.requires))
        found.append(("return to", [f"{name} {figure(value)}" for name, value in advice.rollback.items()]))
    return "".join(f'<div class="muted">{what}: {escape(", ".join(items))}</div>' for what, items in found if items)


def sources(board: Board, old: bool = False) -> str:
    """One line per source, then the daemon's own figures; ``old`` where the daemon is not heard now."""
    health = board.health
    if health is None:
        return empty("no health message yet")
    rows = "".join(_source(source, old) for source in health.sources)
    head = (
        "<tr><th>source</th><th>state</th><th class=num>rate Hz</th><th class=num>age s</th>"
        "<th class=num>dropped</th><th class=num>clock s</th></tr>"
    )
    lost = sum(health.delivery.dropped.values()) if health.delivery else 0
    waiting = health.delivery.waiting if health.delivery else 0
    up = duration(int((health.uptime_s or 0) * NS_PER_S))
    own = (
        f"daemon {'not heard now' if old else board.daemon or 'not seen'}, up {up}; results "
        f"{milliseconds(health.latency_p50_s)} after a tick (99 %: {milliseconds(health.latency_p99_s)}), "
        f"{health.ticks} ticks, {health.skipped_ticks} skipped; messages: {waiting} waiting, {lost} not sent; "
        f"model {health.model_id or 'none'}, limits from {figure(health.calibrated_hours)} h"
    )
    lately = board.skipped_lately
    overload = f"{lately} ticks skipped in the last minute: what needs every tick is judged late or not at all"
    trouble = health.delivery.message if health.delivery else ""
    note = f"<div>{_badge('delivery', 'bad')} {escape(trouble)}</div>" if trouble else ""
    late = f"<div>{_badge('overload', 'warn')} {overload}</div>" if lately else ""
    return f'<table>{head}{rows}</table>{late}<div class="muted">{own}</div>{note}'


def _source(source: SourceOut, old: bool) -> str:
    level = "good" if old or (source.alive and source.state == "live") else "bad"
    state = f"was {source.state}" if old else source.state
    dropped = sum(source.dropped.values())
    reasons = ", ".join(f"{name} {count}" for name, count in source.dropped.items())
    note = f'<tr><td colspan=6 class="muted">{escape(source.message)}</td></tr>' if source.message else ""
    return (
        f"<tr><td><b>{escape(source.name)}</b></td><td>{_badge(state, level)}</td>"
        f"<td class=num>{figure(source.rate_hz)} / {figure(source.expected_hz)}</td>"
        f"<td class=num>{_tenths(source.age_s)}</td><td class=num title='{escape(reasons)}'>{dropped}</td>"
        f"<td class=num>{signed(source.clock_offset_s)}</td></tr>{note}"
    )


def _tenths(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _badge(text: str, level: str) -> str:
    return f'<span class="badge {level}">{escape(text)}</span>'


def empty(text: str) -> str:
    """What is said where there is nothing to show."""
    return f'<div class="muted">{escape(text)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, escaped; a column whose head begins with # holds numbers."""
    kinds = [" class=num" if name.startswith("#") else "" for name in head]
    first = "".join(f"<th{kind}>{escape(name.lstrip('#'))}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(text)}</td>' for kind, text in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f"<table><tr>{first}</tr>{body}</table>"
