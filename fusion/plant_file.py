"""Plant files: the plant of ``fusion.plant`` from YAML and back, every key and value checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from anyascii import anyascii

from fusion.errors import ConfigError
from fusion.plain import decode, read_yaml
from fusion.plant import Plant, plant_to_dict

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""That of libyaml where it is there: ten times as quick for a plant of hundreds of signals."""


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

    Raises:
        ConfigError: on an unknown key (naming the accepted ones), a missing key or a value of the wrong type.
    """
    try:
        return decode(data, Plant)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def plant_name(site: Path) -> str:
    """A plant's name from that of its folder: it is part of topics."""
    return re.sub(r"[^a-z0-9_-]+", "-", anyascii(site.resolve().name).lower()).strip("-") or "plant"
