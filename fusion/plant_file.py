"""Plant files: the plant of ``fusion.plant`` from YAML and back, every key and value checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from fusion.errors import ConfigError
from fusion.plant import PARTS, Modality, Plant, Role, plant_to_dict

LOADER, DUMPER = getattr(yaml, "CSafeLoader", yaml.SafeLoader), getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Those of libyaml where they are there: ten times as quick for a plant of hundreds of signals."""


def load_plant(path: Path) -> Plant:
    """A plant description from YAML.

    Raises:
        ConfigError: naming the file and the key.
    """
    try:
        data = yaml.load(path.read_text(), LOADER)  # noqa: S506 - it is a safe one
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a plant YAML") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    return plant_from_dict(data, str(path))


def dump_plant(plant: Plant, path: Path) -> None:
    """Write a plant description that ``load_plant`` reads back to the same fingerprint."""
    path.write_text(yaml.dump(plant_to_dict(plant), Dumper=DUMPER, sort_keys=False))


def plant_from_dict(data: Mapping[str, Any], where: str = "plant") -> Plant:
    """Build a plant from plain values.

    Raises:
        ConfigError: on an unknown key (naming the accepted ones), a missing key or a value of the wrong type.
    """
    accepted = ("name", "step_s", *PARTS, "edges")
    _only(data, accepted, where)
    if not isinstance(data.get("name"), str):
        raise ConfigError(f"{where}.name: a text is required")
    parts = {
        part: tuple(_build(kind, item, f"{where}.{part}[{i}]") for i, item in enumerate(data.get(part) or ()))
        for part, kind in PARTS.items()
    }
    edges = tuple((str(a), str(b)) for a, b in data.get("edges") or ())
    return Plant(name=data["name"], step_s=float(data.get("step_s", 1.0)), edges=edges, **parts)


def _only(data: Mapping[str, Any], accepted: tuple[str, ...], where: str) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: a mapping is required, accepted keys: {', '.join(accepted)}")
    for key in data:
        if key not in accepted:
            raise ConfigError(f"{where}.{key}: unknown key; accepted: {', '.join(accepted)}")


def _build(kind: type, data: Any, where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _only(data, tuple(fields), where)
    values = {k: _coerce(str(fields[k].type), v, f"{where}.{k}") for k, v in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _coerce(kind: str, value: Any, where: str) -> Any:
    """Bring a YAML value to the annotated type; the annotations above are the schema."""
    if value is None and "None" in kind:
        return None
    kind = kind.removesuffix(" | None")
    try:
        if kind in ("Modality", "Role"):
            return {"Modality": Modality, "Role": Role}[kind](str(value).lower())
        if kind == "float":
            return _finite(value)
        if kind == "int":
            return int(value)
        if kind == "bool":
            return _flag(value)
        if kind.startswith("tuple[int"):
            return tuple(int(v) for v in value)
        if kind.startswith("tuple[float"):
            return tuple(_finite(v) for v in value)
        if kind.startswith("Mapping"):
            return {str(k): _finite(v) for k, v in value.items()}
    except (TypeError, ValueError, AttributeError) as error:
        choices: dict[str, type[StrEnum]] = {"Modality": Modality, "Role": Role}
        hint = f"one of {', '.join(choices[kind])}" if kind in choices else kind
        raise ConfigError(f"{where}: {value!r} is not accepted; expected {hint}") from error
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {value!r} is not accepted; expected text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number
