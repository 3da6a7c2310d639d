"""What a simulated plant says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(slots=True)
class Simulator:
    """What a simulated plant says of itself: faults it can show and those that are on, with their severity."""

    state: str
    faults: tuple[str, ...]
    active: dict[str, float] = field(default_factory=dict)


def simulator_of(payload: bytes) -> Simulator | None:
    """The status in a payload; None where there is none, or the plant has stopped."""
    try:
        status = msgspec.json.decode(payload) if payload else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        status = None
    if not isinstance(status, dict) or status.get("state") in ("offline", "stopped"):
        return None
    active = _severities(status.get("active"))
    faults = tuple(_severities(status.get("faults")) or active)
    return Simulator(str(status.get("state", "")), faults, active)


def _severities(value: Any) -> dict[str, float]:
    """Names with severities, from a mapping, a list of names or a list of mappings with ``name``."""
    if isinstance(value, dict):
        return {str(k): float(v) if isinstance(v, int | float) else 1.0 for k, v in value.items()}
    if not isinstance(value, list):
        return {}
    found = {}
    for item in value:
        name = item.get("name") if isinstance(item, dict) else item
        severity = item.get("severity") if isinstance(item, dict) else None
        if isinstance(name, str):
            found[name] = float(severity) if isinstance(severity, int | float) else 1.0
    return found
