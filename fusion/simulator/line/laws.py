"""Laws that a scenario may break: what no plant does, to test whether a model knows cause and effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One impossibility; ``modalities`` are those in which it shows."""

    description: str
    modalities: tuple[str, ...] = ("process",)
    signals: tuple[str, ...] = ()


LAWS: Mapping[str, Law] = MappingProxyType(
    {
        "level_without_inflow": Law(
            description="the storage tank gains 0.6 L/s that no meter saw come in", signals=("LT201",)
        ),
        "heat_without_lime": Law(
            description="the slaker gains 90 kW that no lime released", signals=("TT101", "TT102", "FV101")
        ),
        "bed_against_drive": Law(
            description="the bed of lime runs backwards while the drive goes on as before",
            modalities=("video",),
            signals=("camera",),
        ),
        "sound_of_stopped_machine": Law(
            description="pump and belt drive sound as if they stood still while their tags say that they run",
            modalities=("audio",),
            signals=("microphone",),
        ),
        "action_reversed": Law(description="a loop acts as if its setpoint had been moved the other way"),
        "action_ignored": Law(description="a loop acts as if its setpoint had not been moved"),
    }
)

TANK_L_S, SLAKER_W = 0.6, 90e3
FOLLOWED = {"action_reversed": -1.0, "action_ignored": 0.0}
"""What share of a setpoint's move the loop follows."""
