"""What an advisor must know at a tick beside the world model's view of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fusion.ledger import Entry
from fusion.records import Anomaly


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What else the advisor must know at a tick: open anomalies, stale signals, the operator's mode.

    ``available`` says of a manipulated signal whether its loop takes a setpoint now; one not named does. ``given`` is
    the ledger, oldest first. ``accepted`` says that an anomaly still stands and is none because somebody accepted it.
    """

    t_ns: int
    anomalies: tuple[Anomaly, ...] = ()
    stale: tuple[str, ...] = ()
    available: Mapping[str, bool] = field(default_factory=dict)
    hands_off: bool = False
    accepted: bool = False
    given: tuple[Entry, ...] = ()
