"""Panels of text and tables as HTML; every value from the wire is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fusion.clock import iso_time
from fusion.dashboard.board import SILENT_AFTER_S, Board
from fusion.publish.messages import AnomalyMessage, Course, RecommendationMessage, SourceOut
from fusion.records import NS_PER_S, HoldReason

HOLD_TEXTS = {
    HoldReason.STALE_DATA: "data are stale or missing",
    HoldReason.OUT_OF_REGION: "the plant is outside the region the model was trained in",
    HoldReason.NO_LICENCE: "the model has no licence to advise",
    HoldReason.ANOMALY: "an anomaly is open",
    HoldReason.CONSTRAINT: "a constraint is within its back-off",
    HoldReason.SMALL_GAIN: "the gain is smaller than its uncertainty",
    HoldReason.MODEL_FAILED: "the model is late or its result not finite",
    HoldReason.OPERATOR_MODE: "the operator has the loop",
    HoldReason.RATE_LIMITED: "the last advice was too recent",
}
GOOD_STATES = ("online", "running", "live")
SIGNALS_SHOWN = 6
ENERGIES_SHOWN = 4


def header(board: Board) -> str:
    """Plant, daemon, licence and model."""
    health = board.health
    state = health.state if health else "no daemon seen"
    state = "silent" if state in GOOD_STATES and silence(board) else state
    licence = (health.licence if health else "") or (board.advice.licence if board.advice else "") or "unknown"
    model = health.model_id if health else ""
    parts = [
        f'<span class="plant">{escape(board.name or "no plant yet")}</span>',
        _badge(state, "good" if state in GOOD_STATES else "bad"),
        f"<span>licence <b>{escape(licence)}</b></span>",
        f'<span class="muted">model {escape(model[:16])}</span>' if model else "",
        *(_badge(flag.replace("_", " "), "warn") for flag in (health.flags if health else [])[:4]),
    ]
    return "".join(parts)


def clock(board: Board) -> str:
    """The daemon's time."""
    return iso_time(board.now_ns)[:19].replace("T", " ") + " UTC"


def silence(board: Board) -> str:
    """A sentence when the daemon is not heard, else ""."""
    if board.health and board.health.state == "offline":
        return "The daemon is offline: what is shown is the last that was known."
    if board.silent_s is not None and board.silent_s > SILENT_AFTER_S:
        return f"The daemon has been silent for {board.silent_s:.0f} s: what is shown is old."
    return ""


def anomalies(board: Board) -> str:
    """Open anomalies with their evidence, then those that cleared."""
    if board.health is None and not board.anomalies:
        return _empty("no message from the daemon yet")
    ranked = sorted(board.anomalies.values(), key=lambda a: -a.t_onset_ns)
    opened = "".join(_anomaly(board, anomaly) for anomaly in ranked) or '<div class="calm">No open anomaly</div>'
    gone = "".join(
        f"<tr><td>{escape(_time(a.t_onset_ns))}</td><td>{escape(a.kind)}</td><td>{escape(_names(a))}</td>"
        f"<td class=num>{_duration(a.t_ns - a.t_onset_ns)}</td></tr>"
        for a in board.cleared
    )
    head = "<tr><th>cleared: onset</th><th>kind</th><th>signals</th><th class=num>lasted</th></tr>"
    return opened + (f'<table class="quiet">{head}{gone}</table>' if gone else "")


def _anomaly(board: Board, anomaly: AnomalyMessage) -> str:
    rows = "".join(
        f"<tr><td><b>{escape(b.signal)}</b> {escape(board.description(b.signal))}</td>"
        f"<td class=num>{_signed(b.residual)} {escape(b.unit if b.unit != '1' else '')}</td>"
        f"<td class=num>{_percent(b.share)}</td></tr>"
        for b in anomaly.top_signals[:SIGNALS_SHOWN]
    )
    energies = ", ".join(f"{escape(e.name)} x{_figure(e.factor)}" for e in anomaly.energies[:ENERGIES_SHOWN])
    return (
        f'<div class="anomaly"><div class="line">{_badge(anomaly.state, "bad")}'
        f"<b>{escape(_kind_text(anomaly.kind))}</b>"
        f'<span class="muted">since {_time(anomaly.t_onset_ns)} ({_duration(board.now_ns - anomaly.t_onset_ns)}), '
        f"p {_figure(anomaly.p_value)}</span></div>{_shares(anomaly)}"
        f"<table><tr><th>signal</th><th class=num>residual</th><th class=num>share</th></tr>{rows}</table>"
        f'<div class="muted">raised by {energies or "-"}</div></div>'
    )


def _shares(anomaly: AnomalyMessage) -> str:
    """Modality shares as bars, largest first."""
    ranked = sorted(anomaly.by_modality.items(), key=lambda item: -(item[1] or 0))
    return (
        '<div class="shares">'
        + "".join(
            f"<span>{escape(name)}</span><div class=bar><i style='width:{100 * min(1.0, share or 0):.0f}%'></i></div>"
            f"<span class=num>{_percent(share)}</span>"
            for name, share in ranked
        )
        + "</div>"
    )


def recommendation(board: Board) -> str:
    """The current advice, or why there is none."""
    advice = board.advice
    if advice is None:
        return _empty("no recommendation yet")
    left_s = (advice.valid_until_ns - board.now_ns) / NS_PER_S
    hold = advice.verdict == "hold"
    expiry = "expired" if left_s <= 0 else f"valid for {_duration(int(left_s * NS_PER_S))}"
    badge = _badge("HOLD", "warn") if hold else _badge("ADVISE", "good" if left_s > 0 else "warn")
    line = f'<div class="line">{badge}<span class="muted">{_time(advice.t_ns)}, {expiry}, no. {advice.sequence}</span>'
    reason = f"<div class=reason>{escape(_hold_text(advice))}</div>" if hold else ""
    text = f"<div>{escape(advice.text)}</div>" if advice.text else ""
    body = "" if hold else _moves(board, advice) + _gain(advice)
    stale = "" if left_s > 0 else " stale"
    rest = f"{reason}{text}{body}{_courses(board, advice)}{_conditions(advice)}"
    return f'<div class="advice{stale}">{line}</div>{rest}</div>'


def _hold_text(advice: RecommendationMessage) -> str:
    known = {reason.value: text for reason, text in HOLD_TEXTS.items()}
    return known.get(advice.reason or "", advice.reason or "no reason given")


def _moves(board: Board, advice: RecommendationMessage) -> str:
    rows = "".join(
        f"<tr><td><b>{escape(m.signal)}</b> {escape(board.description(m.signal))}</td>"
        f"<td class=num>{_figure(m.current)}</td><td>&rarr;</td><td class=num><b>{_figure(m.recommended)}</b></td>"
        f"<td>{escape(m.unit if m.unit != '1' else '')}</td>"
        f"<td class='num muted'>{_figure(m.low)} .. {_figure(m.high)}</td></tr>"
        for m in advice.moves
    )
    head = (
        "<tr><th>change</th><th class=num>from</th><th></th><th class=num>to</th><th></th><th class=num>range</th></tr>"
    )
    return f'<table class="moves">{head}{rows}</table>'


def _gain(advice: RecommendationMessage) -> str:
    gain = advice.gain
    return (
        f"<div>expected gain <b>{_figure(gain.expected)}</b> "
        f'<span class="muted">(90 %: {_figure(gain.low)} .. {_figure(gain.high)})</span></div>'
    )


def _courses(board: Board, advice: RecommendationMessage) -> str:
    """Controlled signals now and at the end of the horizon, with and without the advice."""
    if not advice.if_nothing and not advice.if_applied:
        return ""
    applied = {c.signal: c for c in advice.if_applied}
    nothing = {c.signal: c for c in advice.if_nothing}
    rows = "".join(
        f"<tr><td><b>{escape(name)}</b></td><td class=num>{_figure(board.value(name))}</td>"
        f"<td class=num>{_end(applied.get(name))}</td><td class=num>{_end(nothing.get(name))}</td>"
        f"<td>{escape(board.unit(name))}</td></tr>"
        for name in {**applied, **nothing}
    )
    horizon = _duration(int((advice.horizon_s[-1] or 0) * NS_PER_S)) if advice.horizon_s else "-"
    head = (
        f"<tr><th>in {horizon}</th><th class=num>now</th><th class='num applied'>if applied</th>"
        "<th class='num nothing'>if nothing is done</th><th></th></tr>"
    )
    return f"<table>{head}{rows}</table>"


def _end(course: Course | None) -> str:
    if course is None or not course.mean:
        return "-"
    return f"{_figure(course.mean[-1])} <small>{_figure(course.low[-1])} .. {_figure(course.high[-1])}</small>"


def _conditions(advice: RecommendationMessage) -> str:
    found = [("binding", advice.binding), ("stale", advice.stale)]
    if advice.verdict != "hold":
        found.append(("requires", advice.requires))
        found.append(("return to", [f"{name} {_figure(value)}" for name, value in advice.rollback.items()]))
    return "".join(f'<div class="muted">{what}: {escape(", ".join(items))}</div>' for what, items in found if items)


def sources(board: Board) -> str:
    """One line per source, then the daemon's own figures."""
    health = board.health
    if health is None:
        return _empty("no health message yet")
    rows = "".join(_source(source) for source in health.sources)
    head = (
        "<tr><th>source</th><th>state</th><th class=num>rate Hz</th><th class=num>age s</th>"
        "<th class=num>dropped</th><th class=num>clock s</th></tr>"
    )
    lost = sum(health.delivery.dropped.values()) if health.delivery else 0
    waiting = health.delivery.waiting if health.delivery else 0
    own = (
        f"latency p50 {_ms(health.latency_p50_s)} p99 {_ms(health.latency_p99_s)}, ticks {health.ticks}, "
        f"skipped {health.skipped_ticks}, up {_duration(int((health.uptime_s or 0) * NS_PER_S))}, "
        f"calibrated {_figure(health.calibrated_hours)} h, outbox {waiting}, not sent {lost}"
    )
    trouble = health.delivery.message if health.delivery else ""
    note = f"<div>{_badge('delivery', 'bad')} {escape(trouble)}</div>" if trouble else ""
    return f'<table>{head}{rows}</table><div class="muted">{own}</div>{note}'


def _source(source: SourceOut) -> str:
    level = "good" if source.alive and source.state == "live" else "bad"
    dropped = sum(source.dropped.values())
    reasons = ", ".join(f"{name} {count}" for name, count in source.dropped.items())
    note = f'<tr><td colspan=6 class="muted">{escape(source.message)}</td></tr>' if source.message else ""
    return (
        f"<tr><td><b>{escape(source.name)}</b></td><td>{_badge(source.state, level)}</td>"
        f"<td class=num>{_figure(source.rate_hz)} / {_figure(source.expected_hz)}</td>"
        f"<td class=num>{_figure(source.age_s)}</td><td class=num title='{escape(reasons)}'>{dropped}</td>"
        f"<td class=num>{_signed(source.clock_offset_s)}</td></tr>{note}"
    )


def _badge(text: str, level: str) -> str:
    return f'<span class="badge {level}">{escape(text)}</span>'


def _empty(text: str) -> str:
    return f'<div class="muted">{escape(text)}</div>'


def _kind_text(kind: str) -> str:
    return {"process": "process anomaly", "sensor": "sensor anomaly"}.get(kind, "anomaly of unknown kind")


def _names(anomaly: AnomalyMessage) -> str:
    return _join(b.signal for b in anomaly.top_signals[:3])


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "-"


def _time(t_ns: int) -> str:
    return iso_time(t_ns)[11:19]


def _duration(span_ns: int) -> str:
    seconds = max(0, span_ns // NS_PER_S)
    hours, minutes, seconds = seconds // 3600, seconds % 3600 // 60, seconds % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f} ms"
