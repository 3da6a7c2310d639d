"""The file of an index of condition: arrays and plain JSON, no pickles."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from fusion.errors import CheckpointError, ConfigError, PlantMismatch
from fusion.files import whole_file
from fusion.plant import Plant
from fusion.state import dump_state, load_state
from models.progression.life import LifeIndex

TREE = "tree"


def save_life(life: LifeIndex, file: Path) -> None:
    """Write the whole file, or leave the old one."""
    arrays, tree = dump_state(life)
    with whole_file(file) as aside, aside.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{TREE: np.array(json.dumps(tree))}, **arrays)


def load_life(file: Path, plant: Plant) -> LifeIndex:
    """The index in a file.

    Raises:
        ConfigError: it is none, of another version, or of another plant.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = dict(stored)
        made = load_state(LifeIndex, arrays, json.loads(str(arrays.pop(TREE))))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, CheckpointError) as error:
        raise ConfigError(f"life: {file}: {error}; expected a file of `fusion life`") from error
    if made.fingerprint != plant.fingerprint or made.tags != tuple(tag.name for tag in plant.tags):
        raise PlantMismatch(f"life: {file} is of another plant, or of one with other tags")
    return made
