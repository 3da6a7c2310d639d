"""How the page says things: figures, times, units and the words for what has a name on the wire."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal

from fusion.publish.messages import AnomalyMessage, BlameOut
from fusion.records import NS_PER_S, PROCESS, AnomalyKind, HoldReason

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
KIND_WORDS = {
    AnomalyKind.PROCESS: "process",
    AnomalyKind.SENSOR: "instrument",
    AnomalyKind.UNKNOWN: "process or instrument",
}
FLAG_TEXTS = {
    "settling": "settling after a setpoint move",
    "transition": "passing from one operating state to another",
    "state not judged": "in an operating state of which too little was recorded to judge it",
    "warming_up": "warming up",
    "clock:host": "the daemon's computer had its clock stepped",
}
FLAG_FAMILIES = {
    "uncalibrated": "{} not judged: unlike all that the model was trained on",
    "relieved": "{} is judged by a level that was accepted as normal",
    "clock": "the clock of {} is off",
    "knows little": "the model can tell little: {}",
    "certificate": "a certificate ends soon: {}",
}
SPREADS = "spreads"
SENSE_TEXTS = {"process": "tags", "video": "camera", "audio": "sound", "lidar": "LiDAR"}
FAMILY_TEXTS = {
    "innovation": "the tags did not go where they were forecast to go",
    "state": "the plant is in a state it has not been in while normal",
    "discarded": "the tags move in a way they do not while normal",
    "unexplained": "the recent course of the tags is like none that was normal",
    "redundancy": "tags that always move together have come apart",
    "joint": "all tags together fit nothing that was normal",
    "cross": "{about} and the other senses contradict each other",
    "feature": "a detail of {about} contradicts the other senses",
    "cell": "one place in {about} does not fit the rest of it",
    "band": "one pitch in {about} does not fit the rest of it",
    "spot": "one spot in {about} does not fit the rest of it",
    "perception": "one place in {about} looks like nothing that it showed while normal",
    "relation": "a tag contradicts the tags that it goes with",
    "accumulation": "a balance of the tags does not close: something is lost, added or measured wrongly",
    "conditional": "what two signals together say of {about} does not hold: an interlock, a mode or a phase is broken",
    "lagged": "tags no longer follow each other as they do while normal",
    "balance": "the balance of {about} does not close{window}: something is lost, added or measured wrongly",
    "health": "{about} looks frozen or dead",
    "replay": "{about} repeats what it read before, value by value",
    "resolution": "{about} reads in coarser steps than it did",
    "noise": "{about} shakes more than it did",
    "foresight": "the senses together did not go where they were forecast to go",
    "shell": "the senses together are in a state they have not been in while normal",
    "disagreement": "{about} and the learned picture of the other senses differ",
    "masked": "a tag is not what the learned picture makes of the others",
}
SIGNS_OF_LIFE = ("health", "replay", "resolution", "noise")
LEARNED = {"innovation": "foresight"}
"""What the networks call a family by the name that another has."""
OTHER_CHECK = "a check that this page does not know"
UCUM = {
    r"\bCel\b": "\N{DEGREE SIGN}C",
    r"\[degF\]": "\N{DEGREE SIGN}F",
    r"\bdeg\b": "\N{DEGREE SIGN}",
    r"\[pH\]": "pH",
    r"\bOhm\b": "\N{GREEK CAPITAL LETTER OMEGA}",
    r"\bu(?=[A-Za-z])": "\N{MICRO SIGN}",
    r"(?<=[A-Za-z])2\b": "\N{SUPERSCRIPT TWO}",
    r"(?<=[A-Za-z])3\b": "\N{SUPERSCRIPT THREE}",
    r"\{(.*?)\}": r"\1",
    r"^/": "1/",
}
LEAST_WRITTEN, MOST_WRITTEN = 1e-8, 1e8
REVISED = re.compile(r"(\w+) at (.+?) -> (\w+) at (.+?): (\S+) rose to (\S+) times its limit")


def kind_text(kind: str) -> str:
    """What kind of event it is, as the head of a sentence."""
    return {known.value: text for known, text in KIND_TEXTS.items()}.get(kind, KIND_TEXTS[AnomalyKind.UNKNOWN])


def kind_word(kind: str) -> str:
    """What an event is of, in a word or two."""
    return {known.value: text for known, text in KIND_WORDS.items()}.get(kind, kind)


def hold_text(reason: str | None) -> str:
    """Why there is no advice."""
    known = {hold.value: text for hold, text in HOLD_TEXTS.items()}
    return known.get(reason or "", reason or "no reason given")


def flag_text(flag: str) -> str:
    """A flag of the daemon in words."""
    family, _, rest = flag.partition(":")
    if flag in FLAG_TEXTS or family not in FLAG_FAMILIES or not rest:
        return FLAG_TEXTS.get(flag, flag.replace("_", " "))
    return FLAG_FAMILIES[family].format(SENSE_TEXTS.get(rest, rest.replace("_", " ")))


@dataclass(frozen=True, slots=True)
class Check:
    """One judged number by its name on the wire: its family, what it is about, and its window in words."""

    family: str
    about: str = ""
    window: str = ""

    def text(self, named: Callable[[str], str] = str) -> str:
        """What it has found, as half a sentence; ``named`` gives a signal with what it is."""
        tags = "a tag" if self.family in SIGNS_OF_LIFE else "the tags"
        about = tags if self.about == PROCESS else named(self.about)
        return FAMILY_TEXTS.get(self.family, OTHER_CHECK).format(about=about, window=self.window)


def check_of(name: str) -> Check:
    """What an energy is, from its name such as ``cross.camera.0.1`` or ``balance.tank.120s``."""
    found = re.fullmatch(r"(net\.)?([a-z]+)(?:\.(.*?))??(?:\.(shift|\d+(?:\.\d+)?s?))?", name)
    if not found:
        return Check("")
    family = LEARNED.get(found[2], found[2]) if found[1] else found[2]
    window = found[4] or ""
    return Check(family, found[3] or "", f" over {_whole(int(window[:-1]))}" if window.endswith("s") else "")


def _whole(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def revision_text(revision: str) -> str:
    """Why an event was judged anew, without names that are only known inside."""
    found = REVISED.fullmatch(revision)
    if not found:
        return revision
    before, first, now, then, energy, factor = found.groups()
    return (
        f"first {_verdict(before, first)}, then {_verdict(now, then)}, because {check_of(energy).text()} "
        f"({factor} times the limit)"
    )


def _verdict(kind: str, signal: str) -> str:
    what = {"process": "the process", "sensor": "an instrument"}.get(kind, "something")
    return f"{what} at {signal}"


def sense_text(modality: str) -> str:
    """A modality as people call it."""
    return SENSE_TEXTS.get(modality, modality)


def unit_text(unit: str) -> str:
    """A UCUM unit as people write it: Cel is a degree sign, a plain number has none."""
    if unit == "1":
        return ""
    for code, text in UCUM.items():
        unit = re.sub(code, text, unit)
    return unit


def with_unit(text: str, unit: str) -> str:
    """A figure and its unit."""
    return f"{text} {unit_text(unit)}".rstrip()


def blame_text(blame: BlameOut, named: str, where: str = "") -> str:
    """What one signal shows, in half a sentence; ``named`` is the signal with its description, ``where`` in words."""
    off = f"{spreads(blame.residual)} off"
    if blame.unit == SPREADS:
        return f"{named}: {where} is {off}" if where else f"{named} is {off}"
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


def time_text(t_ns: int, zone: tzinfo = UTC) -> str:
    """Time of day."""
    return f"{_local(t_ns, zone):%H:%M:%S}"


def when_text(t_ns: int, now_ns: int, zone: tzinfo = UTC) -> str:
    """Time of day, and the day where it is not today."""
    then = _local(t_ns, zone)
    return f"{then:%H:%M:%S}" if then.date() == _local(now_ns, zone).date() else f"{then:%Y-%m-%d %H:%M:%S}"


def clock_text(t_ns: int, zone: tzinfo = UTC) -> str:
    """Day, time and the name of the zone."""
    return f"{_local(t_ns, zone):%Y-%m-%d %H:%M:%S %Z}"


def _local(t_ns: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(t_ns // NS_PER_S, zone)


def duration(span_ns: int) -> str:
    """A span of time in its two largest units."""
    seconds = max(0, span_ns // NS_PER_S)
    hours, minutes, seconds = seconds // 3600, seconds % 3600 // 60, seconds % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def figure(value: float | None) -> str:
    """Three digits; whole thousands."""
    return "-" if value is None else _digits(value, 3) if abs(value) < 1000 else f"{value:.0f}"


def reading(value: float | None) -> str:
    """Four digits, as the trends show; whole ten thousands."""
    return "-" if value is None else _digits(value, 4) if abs(value) < 10000 else f"{value:.0f}"


def signed(value: float | None) -> str:
    """Three digits with a sign."""
    return "-" if value is None else _digits(value, 3, "+")


def _digits(value: float, digits: int, sign: str = "-") -> str:
    """So many digits; written out where a power of ten would need no more than eight zeros."""
    text = f"{value:{sign}.{digits}g}"
    return f"{Decimal(text):{sign}f}" if "e" in text and LEAST_WRITTEN <= abs(value) < MOST_WRITTEN else text


def listed(words: list[str]) -> str:
    """Words as one would say them: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def percent(value: float | None) -> str:
    """A share of one."""
    return "-" if value is None else f"{100 * value:.0f} %"


def milliseconds(value: float | None) -> str:
    """Seconds, said in thousandths."""
    return "-" if value is None else f"{1000 * value:.0f} ms"
