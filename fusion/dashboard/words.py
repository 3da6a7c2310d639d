"""How the page says things: figures, times, units and the words for what has a name on the wire."""

from __future__ import annotations

import re

from fusion.clock import iso_time
from fusion.publish.messages import AnomalyMessage, BlameOut
from fusion.records import NS_PER_S, AnomalyKind, HoldReason

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
KIND_TEXTS = {
    AnomalyKind.PROCESS: "Process departs from normal",
    AnomalyKind.SENSOR: "Instrument is doubtful",
    AnomalyKind.UNKNOWN: "Something departs from normal",
}
FLAG_TEXTS = {
    "settling": "settling after a setpoint move",
    "warming_up": "warming up",
    "clock:host": "the daemon's computer had its clock stepped",
}
FLAG_FAMILIES = {
    "uncalibrated": "{} is outside its calibrated range",
    "relieved": "{} is judged by a level that was accepted as normal",
    "clock": "the clock of {} is off",
    "certificate": "a certificate ends soon: {}",
}
SPREADS = "spreads"


def kind_text(kind: str) -> str:
    """What kind of event it is, as the head of a sentence."""
    return {known.value: text for known, text in KIND_TEXTS.items()}.get(kind, KIND_TEXTS[AnomalyKind.UNKNOWN])


def hold_text(reason: str | None) -> str:
    """Why there is no advice."""
    known = {hold.value: text for hold, text in HOLD_TEXTS.items()}
    return known.get(reason or "", reason or "no reason given")


def flag_text(flag: str) -> str:
    """A flag of the daemon in words."""
    family, _, rest = flag.partition(":")
    if flag in FLAG_TEXTS or family not in FLAG_FAMILIES or not rest:
        return FLAG_TEXTS.get(flag, flag.replace("_", " "))
    return FLAG_FAMILIES[family].format(rest.replace("_", " "))


def unit_text(unit: str) -> str:
    """A UCUM unit as people write it: Cel is a degree sign, a plain number has none."""
    return "" if unit == "1" else re.sub(r"\bCel\b", "\N{DEGREE SIGN}C", unit)


def with_unit(text: str, unit: str) -> str:
    """A figure and its unit."""
    return f"{text} {unit_text(unit)}".rstrip()


def blame_text(blame: BlameOut, named: str) -> str:
    """What one signal shows, in half a sentence; ``named`` is the signal with its description."""
    if blame.unit == SPREADS:
        place = f" ({blame.where})" if blame.where else ""
        return f"{named}{place} is {spreads(blame.residual)} from what is expected"
    if blame.seen is not None and blame.expected is not None:
        seen, expected = (with_unit(reading(value), blame.unit) for value in (blame.seen, blame.expected))
        return f"{named} reads {seen}, expected {expected}"
    if blame.residual is None:
        return named
    side = "above" if blame.residual > 0 else "below"
    return f"{named} is {with_unit(figure(abs(blame.residual)), blame.unit)} {side} what is expected"


def spreads(residual: float | None) -> str:
    """How far a medium is from what is expected."""
    return f"{figure(None if residual is None else abs(residual))} normal spreads"


def signals_text(anomaly: AnomalyMessage) -> str:
    """The signals that an anomaly blames most."""
    return ", ".join(b.signal for b in anomaly.top_signals[:3]) or "-"


def time_text(t_ns: int) -> str:
    """Time of day, UTC."""
    return iso_time(t_ns)[11:19]


def when_text(t_ns: int, now_ns: int) -> str:
    """Time of day, and the day where it is not today, UTC."""
    day = iso_time(t_ns)[:10]
    return time_text(t_ns) if day == iso_time(now_ns)[:10] else f"{day} {time_text(t_ns)}"


def duration(span_ns: int) -> str:
    """A span of time in its two largest units."""
    seconds = max(0, span_ns // NS_PER_S)
    hours, minutes, seconds = seconds // 3600, seconds % 3600 // 60, seconds % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def figure(value: float | None) -> str:
    """Three digits; whole thousands."""
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def reading(value: float | None) -> str:
    """Four digits, as the trends show; whole ten thousands."""
    return "-" if value is None else f"{value:.4g}" if abs(value) < 10000 else f"{value:.0f}"


def signed(value: float | None) -> str:
    """Three digits with a sign."""
    return "-" if value is None else f"{value:+.3g}"


def percent(value: float | None) -> str:
    """A share of one."""
    return "-" if value is None else f"{100 * value:.0f} %"


def milliseconds(value: float | None) -> str:
    """Seconds, said in thousandths."""
    return "-" if value is None else f"{1000 * value:.0f} ms"
