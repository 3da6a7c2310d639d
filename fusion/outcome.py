"""What one tick produced, as the engine tells it to whoever publishes, records or counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from control.anomaly.calibration import Surprise
from fusion.ledger import Entry
from fusion.records import Anomaly, Forecast, Frame, Recommendation
from fusion.trends import Progression
from models.ticks import Ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one tick produced: ``anomalies`` are changes, ``open_anomalies`` what stands, advice what is new.

    ``ticks`` is what the model was given, None where the tick was not judged; ``ledger`` the advices where one changed;
    ``manual`` the share of the last day in which the loop of a signal took no setpoint, told with them; ``progression``
    where slow quantities go, once an hour.
    """

    frame: Frame
    surprise: Surprise | None
    anomalies: tuple[Anomaly, ...]
    open_anomalies: tuple[Anomaly, ...]
    forecast: Forecast | None
    recommendation: Recommendation | None
    flags: tuple[str, ...]
    ticks: Ticks | None = None
    ledger: tuple[Entry, ...] | None = None
    manual: Mapping[str, float] = field(default_factory=dict)
    progression: Progression | None = None

    @classmethod
    def empty(cls, frame: Frame, flags: tuple[str, ...]) -> Outcome:
        """Of a tick that was not judged."""
        nothing: dict[str, Any] = {"surprise": None, "forecast": None, "recommendation": None}
        return cls(frame=frame, anomalies=(), open_anomalies=(), flags=flags, **nothing)
