"""The alarm list: what was raised, who has seen it, what is shelved; survives a restart as JSON.

States follow ISA-18.2: an alarm is active or returned to normal, acknowledged or not, and may be shelved for a time.
Decides nothing about the plant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fusion.errors import ConfigError
from fusion.records import NS_PER_S, Alarm, Anomaly, AnomalyKind, AnomalyState, SignalBlame

FORMAT = "fusion-alarms/1"


@dataclass(kw_only=True, slots=True)
class AlarmConfig:
    """How many finished alarms are kept and for how long one may be shelved at most."""

    keep: int = 500
    longest_shelf_s: float = 28_800.0

    def __post_init__(self) -> None:
        """Reject what keeps nothing."""
        if self.keep < 1 or self.longest_shelf_s <= 0:
            raise ConfigError("alarms: keep must be at least 1 and longest_shelf_s positive")


class AlarmLog:
    """Alarms by anomaly id, oldest first."""

    def __init__(self, config: AlarmConfig | None = None) -> None:
        self._config = config or AlarmConfig()
        self._alarms: dict[str, Alarm] = {}

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All that are kept."""
        return tuple(self._alarms.values())

    @property
    def active(self) -> tuple[Alarm, ...]:
        """Those whose anomaly stands."""
        return tuple(a for a in self._alarms.values() if a.active)

    def record(self, anomalies: Sequence[Anomaly]) -> None:
        """Take the changes that the detector told."""
        for anomaly in anomalies:
            old = self._alarms.get(anomaly.id)
            self._alarms[anomaly.id] = self._first(anomaly) if old is None else self._next(old, anomaly)
        done = [key for key, alarm in self._alarms.items() if not alarm.active]
        for key in done[: max(0, len(done) - self._config.keep)]:
            del self._alarms[key]

    def acknowledge(self, anomaly_id: str, by: str, t_ns: int) -> Alarm:
        """Note that somebody has seen it.

        Raises:
            ConfigError: where no such alarm is kept.
        """
        return self._change(anomaly_id, acknowledged_ns=t_ns, acknowledged_by=by)

    def shelve(self, anomaly_id: str, until_ns: int, t_ns: int) -> Alarm:
        """Set it aside until a time, cut at the longest shelf; a time not after ``t_ns`` takes it back.

        Raises:
            ConfigError: where no such alarm is kept.
        """
        latest = t_ns + round(self._config.longest_shelf_s * NS_PER_S)
        return self._change(anomaly_id, shelved_until_ns=min(until_ns, latest) if until_ns > t_ns else None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; the inverse of ``from_dict``."""
        return {"format": FORMAT, "alarms": [asdict(a) for a in self._alarms.values()]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], config: AlarmConfig | None = None) -> AlarmLog:
        """Rebuild the list after a restart.

        Raises:
            ConfigError: where the data are not an alarm list of this format.
        """
        log = cls(config)
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ConfigError(f"alarms: format is not accepted; expected {FORMAT!r}")
        try:
            for item in data["alarms"]:
                anomaly = anomaly_from_dict(item["anomaly"])
                log._alarms[anomaly.id] = Alarm(**{**item, "anomaly": anomaly})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"alarms: {error} is missing or not accepted") from error
        return log

    def _first(self, anomaly: Anomaly) -> Alarm:
        cleared = anomaly.t_ns if anomaly.state is AnomalyState.CLEARED else None
        return Alarm(anomaly=anomaly, raised_ns=anomaly.t_ns, cleared_ns=cleared)

    def _next(self, old: Alarm, anomaly: Anomaly) -> Alarm:
        cleared = anomaly.t_ns if anomaly.state is AnomalyState.CLEARED else None
        return replace(old, anomaly=anomaly, cleared_ns=cleared)

    def _change(self, anomaly_id: str, **values: Any) -> Alarm:
        if anomaly_id not in self._alarms:
            known = ", ".join(list(self._alarms)[-5:]) or "none"
            raise ConfigError(f"alarm {anomaly_id!r} is not known; the latest are: {known}")
        self._alarms[anomaly_id] = replace(self._alarms[anomaly_id], **values)
        return self._alarms[anomaly_id]


def anomaly_from_dict(data: Mapping[str, Any]) -> Anomaly:
    """An anomaly from the plain values of ``dataclasses.asdict``, also after a round trip through JSON."""
    return Anomaly(
        **{
            **data,
            "state": AnomalyState(data["state"]),
            "kind": AnomalyKind(data["kind"]),
            "by_modality": {str(k): float(v) for k, v in data["by_modality"].items()},
            "top_signals": tuple(SignalBlame(**blame) for blame in data["top_signals"]),
            "energies": tuple((str(name), float(factor)) for name, factor in data["energies"]),
        }
    )
