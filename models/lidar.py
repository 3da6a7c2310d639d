"""Point clouds to tokens: the height map of the tick and where it has returns."""

from __future__ import annotations

from torch import Tensor

from fusion.plant import Signal
from models.networks.encoders import PatchEncoder
from models.networks.view import symlog


class LidarEncoder(PatchEncoder):
    """Sixteen tokens of height minus median [m] and occupancy beside the token of the stem's features."""

    def __init__(self, signal: Signal, patch_shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(signal, patch_shape, features, width, sides=(3, 3), grid=(4, 4))

    def planes(self, patches: Tensor) -> Tensor:
        """A stray return far out must not drown the map."""
        return symlog(patches)
