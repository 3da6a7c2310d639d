"""An event in progress, as the detector follows it. Shape letters: E energies, G signals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from control.anomaly.evidence import Finding
from fusion.records import Anomaly, AnomalyKind

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Event:
    """An event in progress: the senses and signals [G] it covers, and averages of its evidence.

    ``best`` is how far it stood out at most, ``loud`` whether fast energies were above their limit, ``dead`` whether it
    is of a sense that has died, which is an event of its own whatever else stands; ``explained`` names the signal that
    such an event, or a clock, has shown to be at fault: while that is blamed first, the event is the instrument's.
    """

    anomaly: Anomaly
    groups: set[str]
    raised_ns: int
    told_ns: int
    seen_ns: int
    signals: Bools | None = None
    factor: Floats | None = None
    blame: Floats | None = None
    best: float = 0.0
    loud: bool = False
    dead: bool = False
    explained: str = ""
    below_since_ns: int | None = None


def told(event: Event, found: Finding) -> Anomaly:
    """The anomaly of an event with the kind and blame that were found."""
    anomaly = event.anomaly
    said = replace(
        anomaly,
        kind=found.kind,
        by_modality=found.by_modality,
        top_signals=found.top_signals or anomaly.top_signals,
        energies=found.energies,
    )
    return replace(said, kind=AnomalyKind.SENSOR) if first_blamed(said) == event.explained else said


def first_blamed(anomaly: Anomaly) -> str:
    """The signal blamed most, or the strongest sense where none is."""
    if anomaly.top_signals:
        return anomaly.top_signals[0].signal
    return max(anomaly.by_modality, key=lambda name: anomaly.by_modality[name], default="nothing")


def blend(old: Floats | None, new: Floats, alpha: float) -> Floats:
    """A running average with ``alpha`` of the new; it begins with that, and anew where the width is another."""
    return new if old is None or len(old) != len(new) else np.asarray(old + alpha * (new - old))
