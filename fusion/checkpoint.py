"""Save and load a trained model: safetensors weights, one JSON beside them, and the plant it belongs to.

A checkpoint is a folder with ``weights.safetensors`` (arrays by name) and ``model.json`` (configuration, scaler,
calibration, gauges, licence, plant, the hash of the weights, and that of all this). There are no pickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fusion.errors import CheckpointError, ConfigError, PlantMismatch
from fusion.files import sha256_of, whole_folder, within
from fusion.plain import plain
from fusion.plant import Plant, plant_to_dict
from fusion.plant_difference import difference
from fusion.plant_file import plant_from_dict
from fusion.signing import check_signature

FORMAT = "fusion-model/3"
WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
DIGEST = "sha256"

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model at rest: named ``arrays`` and JSON-able ``meta``; ``model_id`` is derived from their content.

    ``words`` are the descriptions of signals by which the networks know them, where the plant's may be others.
    """

    plant: Plant
    arrays: Mapping[str, Array]
    meta: Mapping[str, Any]
    model_id: str
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def learned(self) -> Checkpoint:
        """The same with every signal described as it was in training."""
        signals = (replace(s, description=self.words.get(s.name, s.description)) for s in self.plant.signals)
        return replace(self, plant=replace(self.plant, signals=tuple(signals)))

    def part(self, prefix: str) -> dict[str, Array]:
        """Arrays whose name starts with ``prefix.``, with the prefix removed."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.arrays.items() if name.startswith(start)}

    def tree(self, *keys: str) -> Any:
        """What JSON holds of a part, by its keys from the outside in.

        Raises:
            CheckpointError: where there is none.
        """
        found: Any = self.meta
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                raise CheckpointError(f"{self.model_id}: {'.'.join(keys)} is missing in {DESCRIPTION}; train again")
            found = found[key]
        return found


def flatten(parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays of several parts under ``part.name`` keys; the inverse of ``Checkpoint.part``."""
    return {f"{part}.{name}": value for part, arrays in parts.items() for name, value in arrays.items()}


def save_checkpoint(path: Path, plant: Plant, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> str:
    """Write a checkpoint aside and put it in place at once; returns its ``model_id``."""
    with whole_folder(path, overwrite=True) as aside:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, aside / WEIGHTS)
        digest = sha256_of(aside / WEIGHTS)
        model_id = f"{plant.name}-{digest[:12]}"
        description = {
            "format": FORMAT,
            "model_id": model_id,
            "weights_sha256": digest,
            "fingerprint": plant.fingerprint,
            "plant": plant_to_dict(plant),
            "meta": plain(meta),
        }
        description[DIGEST] = _digest(description)
        (aside / DESCRIPTION).write_text(json.dumps(description, indent=1, allow_nan=False))
    return model_id


def _digest(description: Mapping[str, Any]) -> str:
    """The hash of everything a description says, but for the hash itself."""
    said = {key: value for key, value in description.items() if key != DIGEST}
    return sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode()).hexdigest()


def load_checkpoint(path: Path, plant: Plant | None = None, key: Path | None = None) -> Checkpoint:
    """Read a checkpoint and refuse what cannot be trusted, or was not signed with ``key``, a public one.

    Its plant is ``plant``, with that one's limits, words and targets, or else the one it was trained on. Signals stand
    in the order of the training: everything that goes by columns goes by that.

    Raises:
        ConfigError: where a file is missing, damaged or of another format.
        PlantMismatch: where ``plant`` is given and differs in what the model depends on; the message says in what.
    """
    if key is not None:
        check_signature(path / DESCRIPTION, key)
    description = _description(within(path, DESCRIPTION))
    weights = within(path, WEIGHTS)
    if not weights.is_file():
        raise ConfigError(f"{weights}: missing; a model folder holds {WEIGHTS} and {DESCRIPTION}")
    if sha256_of(weights) != description["weights_sha256"]:
        raise ConfigError(f"{weights}: damaged, its hash is not the one in {DESCRIPTION}")
    trained_on = plant_from_dict(description["plant"], str(path / DESCRIPTION))
    words = {signal.name: signal.description for signal in trained_on.signals}
    if plant is not None:
        trained_on = _as_trained(path, trained_on, plant)
    try:
        arrays = load_file(weights)
    except SafetensorError as error:
        raise ConfigError(f"{weights}: not a safetensors file ({error})") from error
    meta, model_id = description["meta"], description["model_id"]
    return Checkpoint(plant=trained_on, arrays=arrays, meta=meta, model_id=model_id, words=words)


def checkpoint_for(path: Path, recorded: Plant) -> Checkpoint:
    """A checkpoint for what was recorded of a plant: with that plant's limits, words and targets where it is the same.

    A plant that was changed since or before gives way to the one of the training; see ``Recording.of``.
    """
    found = load_checkpoint(path)
    same = found.plant.fingerprint == recorded.fingerprint
    return replace(found, plant=_as_trained(path, found.plant, recorded)) if same else found


def _as_trained(path: Path, trained_on: Plant, plant: Plant) -> Plant:
    """The plant with its signals in the order of the training."""
    if trained_on.fingerprint != plant.fingerprint:
        raise PlantMismatch(
            f"{path}: this model was trained on plant {trained_on.name!r} ({trained_on.fingerprint[:12]}), configured "
            f"is {plant.name!r} ({plant.fingerprint[:12]}): {difference(trained_on, plant)}; "
            "train on this plant or point `model` at its own checkpoint"
        )
    return replace(plant, signals=tuple(plant.by_name[signal.name] for signal in trained_on.signals))


def _description(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"{file}: missing; expected a model folder written by `fusion train --out`")
    try:
        description: dict[str, Any] = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not JSON ({error})") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise ConfigError(f"{file}: format {found!r} is not {FORMAT!r}: written by another version; train again")
    if missing := {"weights_sha256", "plant", "meta", "model_id", DIGEST} - set(description):
        raise CheckpointError(f"{file}: {min(missing)} is missing; train again")
    if _digest(description) != description[DIGEST]:
        raise ConfigError(f"{file}: edited or damaged, its hash is not that of what it says; train again")
    return description
