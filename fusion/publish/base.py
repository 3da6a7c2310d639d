"""What every message on the wire has, and how a number is written."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from fusion.clock import iso_time
from fusion.plant import Plant

Number = float | None


class Message(msgspec.Struct, kw_only=True, frozen=True, tag_field="schema"):
    """What every message has: ``time`` is ``t_ns`` as ISO 8601 UTC, ``message_id`` the same for a repeated delivery."""

    time: str
    t_ns: int
    plant: str
    model_id: str
    message_id: str


def number(value: float | np.generic | None) -> Number:
    """Six significant digits, or None for what JSON cannot hold."""
    if value is None:
        return None
    plain = float(value)
    return float(f"{plain:.6g}") if math.isfinite(plain) else None


def head(plant: Plant, t_ns: int, model_id: str, key: str) -> dict[str, Any]:
    """Those fields; ``key`` is unique among the messages of a time."""
    return {
        "time": iso_time(t_ns),
        "t_ns": int(t_ns),
        "plant": plant.name,
        "model_id": model_id,
        "message_id": f"{key}:{t_ns}",
    }
