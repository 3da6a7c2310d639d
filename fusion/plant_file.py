"""Plant files: the plant of ``fusion.plant`` from YAML and back, every key and value checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from anyascii import anyascii

from fusion.errors import ConfigError
from fusion.plain import decode, read_yaml
from fusion.plant import Modality, Plant, Signal, plant_to_dict

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""That of libyaml where it is there: ten times as quick for a plant of hundreds of signals."""
USUAL: Mapping[str, Any] = {f.name: f.default for kind in (Plant, Signal) for f in dataclasses.fields(kind)}
STALE_PERIODS = 2.5  # of a tag whose file does not say when it is stale: one value may be lost, and the next be late


def load_plant(path: Path) -> Plant:
    """A plant description from YAML.

    Raises:
        ConfigError: naming the file and the key.
    """
    return plant_from_dict(read_yaml(path, "a plant YAML"), str(path))


def dump_plant(plant: Plant, path: Path) -> None:
    """Write a plant description that ``load_plant`` reads back to the same fingerprint."""
    path.write_text(yaml.dump(plant_to_dict(plant), Dumper=DUMPER, sort_keys=False))


def plant_from_dict(data: Mapping[str, Any], where: str = "plant") -> Plant:
    """Build a plant from plain values; ``where`` they come from begins the messages.

    A process signal that does not say how often its values come is taken to give one each step, and one that does not
    say when they are stale, to be so after two and a half of its periods; at a step of 1 s these are the defaults.

    Raises:
        ConfigError: on an unknown key (naming the accepted ones), a missing key or a value of the wrong type.
    """
    try:
        return decode(_paced(data), Plant)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _paced(data: Any) -> Any:
    """The plain values with what process signals leave unsaid of their pace; what is wrong in them stays so."""
    if not isinstance(data, Mapping) or not isinstance(data.get("signals"), list):
        return data
    step_s = _number(data.get("step_s"), USUAL["step_s"])
    return {**data, "signals": [_with_pace(signal, step_s) for signal in data["signals"]]}


def _with_pace(signal: Any, step_s: float) -> Any:
    if not isinstance(signal, Mapping) or signal.get("modality", Modality.PROCESS) != Modality.PROCESS:
        return signal
    period_s = _number(signal.get("period_s"), max(USUAL["period_s"], step_s))
    stale_after_s = max(USUAL["stale_after_s"], STALE_PERIODS * max(period_s, step_s))
    return {"period_s": period_s, "stale_after_s": stale_after_s, **signal}


def _number(value: Any, usual: float) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else usual


def plant_name(site: Path) -> str:
    """A plant's name from that of its folder: it is part of topics."""
    return re.sub(r"[^a-z0-9_-]+", "-", anyascii(site.resolve().name).lower()).strip("-") or "plant"
