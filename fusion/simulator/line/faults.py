"""Faults and nuisances of the line, with what is true about each: kind, modalities that see it, signals it touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to go wrong; ``modalities`` are those in which it contradicts the others, the clearest first.

    A fault with a ``signal`` acts on one stream: that one, unless the scenario names another.
    """

    description: str
    kind: str = "process"
    modalities: tuple[str, ...] = ("process",)
    signals: tuple[str, ...] = ()
    signal: str | None = None


_BELT = ("WT101", "WT101M", "SC101", "IT102")

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "rat_hole": Fault(
            description="the silo empties through a narrow pipe over the outlet",
            modalities=("lidar",),
            signals=("silo_lidar",),
        ),
        "bridging": Fault(
            description="lime arches over the outlet and none comes out",
            modalities=("process", "audio", "video"),
            signals=(*_BELT, "microphone", "camera"),
        ),
        "chute_block": Fault(
            description="the chute below the feeder is partly blocked",
            modalities=("process", "audio"),
            signals=("IT101", "SC101", "microphone"),
        ),
        "belt_slip": Fault(
            description="the belt slips on its drum: it moves more slowly than its drive",
            modalities=("video", "process"),
            signals=("camera", "WT101M", "WT101", "SC101", "ST102"),
        ),
        "belt_drift": Fault(description="the belt runs off to one side", modalities=("video",), signals=("camera",)),
        "bearing": Fault(
            description="outer race damage in the belt drive's bearing", modalities=("audio",), signals=("microphone",)
        ),
        "agitator_blade": Fault(
            description="the agitator has lost part of a blade",
            modalities=("audio", "process"),
            signals=("microphone", "IT103"),
        ),
        "cavitation": Fault(
            description="the slurry pump cavitates", modalities=("audio",), signals=("microphone", "FT102", "IT104")
        ),
        "scale_drift": Fault(
            description="the belt scale reads 15 % too much",
            kind="sensor",
            modalities=("process",),
            signals=("WT101", "WT101M", "SC101"),
        ),
        "thermometer_drift": Fault(
            description="the slaker thermometer TT101 reads 6 K too little",
            kind="sensor",
            modalities=("process",),
            signals=("TT101", "TT102"),
        ),
        "water_valve_blocked": Fault(
            description="the water valve passes a third less than its position says",
            modalities=("process",),
            signals=("FT101", "FV101"),
        ),
        "line_scaling": Fault(
            description="scale narrows the slurry line and the pump runs faster for the same flow",
            modalities=("process", "audio"),
            signals=("SC102", "IT104", "PT102", "microphone"),
        ),
        "leak": Fault(
            description="the storage tank loses 0.12 L/s", modalities=("process",), signals=("LT201", "FT102", "FT103")
        ),
        "low_reactivity": Fault(
            description="the lime slakes half as fast", modalities=("process",), signals=("TT101", "TT102", "FV101")
        ),
        "boil_over": Fault(
            description="both slaker thermometers read 18 K too little and the slaker boils unseen",
            modalities=("audio", "process"),
            signals=("microphone", "TT101", "TT102", "FV101"),
        ),
        "tramp_lump": Fault(
            description="hard lumps come down the chute",
            modalities=("audio", "video"),
            signals=("microphone", "camera"),
        ),
        "replayed_tags": Fault(
            description="the process tags are a replay of the last minutes",
            kind="sensor",
            modalities=("process",),
            signals=("WT101", "TT101", "LT101"),
        ),
        "torn_edge": Fault(
            description="a piece of the belt's edge is torn off and comes by once a turn",
            modalities=("video",),
            signals=("camera",),
        ),
        "build_up": Fault(
            description="lime cakes on the belt beside the bed", modalities=("video",), signals=("camera",)
        ),
        "stalled_bed": Fault(
            description="a patch of the bed hangs and does not move with the belt",
            modalities=("video",),
            signals=("camera",),
        ),
        "skewed_bed": Fault(
            description="the chute lays the bed down to one side", modalities=("video",), signals=("camera",)
        ),
        "caught_object": Fault(
            description="a piece of iron has caught over the bed", modalities=("video",), signals=("camera",)
        ),
        "spill": Fault(description="lime lies beside the belt", modalities=("video",), signals=("camera",)),
        "person": Fault(description="a person stands at the belt", modalities=("video",), signals=("camera",)),
        "steam": Fault(description="steam drifts over the belt", modalities=("video",), signals=("camera",)),
        "dark_corner": Fault(
            description="one lamp of the row is out", kind="sensor", modalities=("video",), signals=("camera",)
        ),
        "lens_spot": Fault(
            description="a drop has dried on the lens", kind="sensor", modalities=("video",), signals=("camera",)
        ),
        "squeal": Fault(description="a dry idler squeals", modalities=("audio",), signals=("microphone",)),
        "belt_chirp": Fault(
            description="a torn splice chirps once a turn of the belt", modalities=("audio",), signals=("microphone",)
        ),
        "wall_crust": Fault(
            description="a crust of lime hangs on the silo's wall", modalities=("lidar",), signals=("silo_lidar",)
        ),
        "frozen_camera": Fault(
            description="the camera repeats its last picture", kind="sensor", modalities=("video",), signals=("camera",)
        ),
        "dirty_camera": Fault(
            description="the lens is covered with dust", kind="sensor", modalities=("video",), signals=("camera",)
        ),
        "dead_microphone": Fault(
            description="the microphone is silent", kind="sensor", modalities=("audio",), signals=("microphone",)
        ),
        "blocked_lidar": Fault(
            description="half of the LiDAR's field of view is covered",
            kind="sensor",
            modalities=("lidar",),
            signals=("silo_lidar",),
        ),
        "frozen_tag": Fault(description="one tag keeps its last value", kind="sensor", signal="TT101"),
        "quantised_tag": Fault(description="one tag reads in steps of 5 % of its span", kind="sensor", signal="LT101"),
        "clock_skew": Fault(
            description="the clock of one stream (or of `process`) is 5 s ahead", kind="sensor", signal="camera"
        ),
        "late_data": Fault(
            description="one stream (or `process`) arrives up to 10 s late and out of order",
            kind="sensor",
            signal="camera",
        ),
    }
)

NUISANCES: Mapping[str, str] = MappingProxyType(
    {
        "fill": "the silo is filled with lime, in a cloud of dust",
        "lamp_flicker": "the lamp over the belt flickers and dims",
        "truck": "a truck passes the pump skid",
        "setpoint_step": "the operator moves the slaker temperature setpoint",
        "demand_step": "the consumers take more slurry",
        "rate_change": "the operator moves the tank level setpoint, and with it the lime rate",
        "mode_change": "the operator takes the water valve in manual and gives it back",
    }
)
