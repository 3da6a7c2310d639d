"""What a model's own description says of it, in plain words: what it learned from, how well, and what it may steer."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from fusion.checkpoint import DESCRIPTION
from fusion.dashboard.panels import empty, table
from fusion.dashboard.words import figure, listed, percent, sense_text
from fusion.model_store import VERDICT
from fusion.plant import Role
from fusion.records import PROCESS

CONFIDENT_EVENTS = 3.0
"""No event in n hours excludes more than three in n hours, with 95 % confidence. Source: the rule of three."""
HORIZONS_S = {"1 min": 64.0, "10 min": 600.0}
ERROR = "forecast error in {}, of that of no change"
REASONS_SHOWN = 3
LEVELS = {
    "observe": "it watches, and plans nothing",
    "shadow": "it plans, and says nothing of it",
    "advise": "it says what it would move",
    "supervised": "what it says is done unless somebody objects",
}


class _Hours(msgspec.Struct):
    training: float
    held_out: float
    calibration: float


class _Right(msgspec.Struct):
    signal: str
    level: str
    reasons: list[str] = []


class _Licence(msgspec.Struct):
    level: str
    signals: list[_Right]
    reasons: list[str] = []


class _Card(msgspec.Struct):
    horizon_s: list[float]
    tags: list[str]
    skill: list[list[float | None]]
    coverage_90: list[list[float | None]]


class _Limits(msgspec.Struct):
    hours: float


class _Gauges(msgspec.Struct):
    step: int


class _Signal(msgspec.Struct):
    name: str
    modality: str = PROCESS
    role: str = Role.MEASURED


class _Plant(msgspec.Struct):
    signals: list[_Signal]


class _Meta(msgspec.Struct):
    hours: _Hours
    licence: _Licence
    card: _Card
    calibration: _Limits
    gauges: _Gauges
    withheld: list[str] = []


class _Facts(msgspec.Struct):
    model_id: str
    plant: _Plant
    meta: _Meta


class Trial(msgspec.Struct):
    """What the trial of a model found: false raises in ``hours`` kept back, and those of the model then in use."""

    taken: bool
    reason: str
    hours: float = 0.0
    raises: int | None = None
    raises_in_use: int | None = None


class Facts:
    """What is known of one model; its numbers are of recordings that it was not made of."""

    def __init__(self, read: _Facts) -> None:
        self._read, self._meta = read, read.meta

    @property
    def model_id(self) -> str:
        """The name by which a daemon that uses it calls it."""
        return self._read.model_id

    @property
    def hours(self) -> str:
        """What it was learned from."""
        hours = self._meta.hours
        return f"{hours.training:.1f} h, tried on {hours.held_out:.1f} h after them"

    @property
    def made(self) -> str:
        """How it was made."""
        step, withheld = self._meta.gauges.step, self._meta.withheld
        if not step:
            return "in closed form, without networks"
        return f"with networks, {step} steps" + (f"; doubtful: {'; '.join(withheld)}" if withheld else "")

    @property
    def limits_h(self) -> float:
        """Hours of normal operation behind its limits."""
        return self._meta.calibration.hours

    @property
    def senses(self) -> str:
        """What it knows of the plant."""
        counted = Counter(signal.modality for signal in self._read.plant.signals)
        tags = counted.pop(PROCESS, 0)
        return listed([f"{tags} tags", *(f"{n} x {sense_text(sense)}" for sense, n in counted.items())])

    def error(self, horizon_s: float) -> float | None:
        """Its forecast error as a share of that of "nothing changes", in the middle of the controlled tags, or all."""
        return self._middle(self._meta.card.skill, horizon_s, lambda skill: math.sqrt(max(0.0, 1.0 - skill)))

    @property
    def held(self) -> float | None:
        """The share of what came that lay within the bands of 90 %, at the longest horizon."""
        card = self._meta.card
        return self._middle(card.coverage_90, card.horizon_s[-1], float) if card.horizon_s else None

    def _middle(self, rows: list[list[float | None]], horizon_s: float, of: Any) -> float | None:
        card = self._meta.card
        nearest = min(range(len(card.horizon_s)), key=lambda i: abs(card.horizon_s[i] - horizon_s), default=None)
        if nearest is None or nearest >= len(rows):
            return None
        controlled = {s.name for s in self._read.plant.signals if s.role == Role.CONTROLLED}
        pairs = list(zip(card.tags, rows[nearest], strict=False))
        known = [v for name, v in pairs if v is not None and (name in controlled or not controlled & set(card.tags))]
        return statistics.median(map(of, known)) if known else None

    @property
    def level(self) -> str:
        """The most that it may do with some signal."""
        return self._meta.licence.level

    def rights(self) -> list[tuple[str, str, str]]:
        """What it may do with each signal that can be moved, and what of its own is missing for more."""
        return [(right.signal, right.level, self._own(right)) for right in self._meta.licence.signals]

    @property
    def reasons(self) -> list[str]:
        """What is missing for more with any signal."""
        return self._meta.licence.reasons

    def _own(self, right: _Right) -> str:
        own = [why.removeprefix(f"{right.signal}: ") for why in right.reasons if why not in self.reasons]
        return "; ".join(own[:REASONS_SHOWN])


def facts_of(folder: Path) -> Facts | None:
    """The facts of the model in a folder; None where its description is no such thing."""
    try:
        file = folder / DESCRIPTION
        stamp = file.stat()
        return _read(file, stamp.st_mtime_ns, stamp.st_size)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@lru_cache(maxsize=32)
def _read(file: Path, _changed_ns: int, _size: int) -> Facts:
    return Facts(msgspec.json.decode(file.read_bytes(), type=_Facts))


def trial_of(folder: Path) -> Trial | None:
    """What the trial of a model has found; None where there was none."""
    try:
        return msgspec.json.decode((folder / VERDICT).read_bytes(), type=Trial)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def may_text(level: str) -> str:
    """What a level of the licence allows, in words."""
    return f"{level} ({LEVELS[level]})" if level in LEVELS else level


def proof(hours: float | None) -> str:
    """How many hours of normal operation are behind the limits, and what that can prove."""
    if not hours:
        return "nothing yet"
    most = CONFIDENT_EVENTS / hours * 24
    return (
        f"{figure(hours)} h of normal operation; they cannot prove fewer than {figure(most)} false alarms a day (95 %)"
    )


def learned(facts: Facts | None) -> str:
    """What a model has learned, and what it may steer."""
    if facts is None:
        return empty("nothing is known of what it has learned: its folder is not among those that this page may read")
    rows = [
        ("learned from", facts.hours),
        ("knows", facts.senses),
        ("made", facts.made),
        *((ERROR.format(text), percent(facts.error(s))) for text, s in HORIZONS_S.items()),
        ("bands of 90 % held", percent(facts.held)),
    ]
    rights = facts.rights()
    if not rights:
        return table(("", ""), rows) + empty("this plant has nothing that it could steer")
    common = empty(f"missing for all: {'; '.join(facts.reasons)}") if facts.reasons else ""
    return table(("", ""), rows) + table(("may steer", "how far", "what is missing for more"), rights) + common


def compared(new: tuple[str, Facts | None, Trial | None], used: tuple[str, Facts | None]) -> str:
    """A model beside the one in use, each number with what it is; what a trial of both has found comes first."""
    (name, facts, trial), (other, present) = new, used
    found = f"<div><b>{_found(name, trial)}</b></div>"
    if facts is None or present is None:
        return found + empty("their numbers cannot be compared: a description cannot be read")
    rows = [
        ("learned from", facts.hours, present.hours),
        ("limits rest on", f"{facts.limits_h:.1f} h", f"{present.limits_h:.1f} h"),
        ("cannot prove fewer false alarms a day than", _least(facts), _least(present)),
        *((ERROR.format(t), percent(facts.error(s)), percent(present.error(s))) for t, s in HORIZONS_S.items()),
        ("may steer", facts.level, present.level),
    ]
    return found + table(("", f"{name}, new", f"{other}, in use"), rows)


def _least(facts: Facts) -> str:
    return figure(CONFIDENT_EVENTS / facts.limits_h * 24) if facts.limits_h else "-"


def _found(name: str, trial: Trial | None) -> str:
    if trial is None:
        return f"{name} was not tried against another."
    if trial.raises is None or trial.raises_in_use is None:
        return f"{name} had nothing to be tried against."
    than = trial.raises - trial.raises_in_use
    verdict = "as often as" if than == 0 else "less often than" if than < 0 else "more often than"
    return (
        f"In {figure(trial.hours)} h that neither had seen, {name} raised {trial.raises} false alarms and the one then "
        f"in use {trial.raises_in_use}: {verdict} that one."
    )
