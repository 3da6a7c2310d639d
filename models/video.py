"""Pictures to tokens: the last picture of the tick and its mean absolute change."""

from __future__ import annotations

from torch import Tensor

from fusion.plant import Signal
from models.networks.encoders import PatchEncoder


class VideoEncoder(PatchEncoder):
    """Sixteen tokens of a picture and its change, both 0..1, beside the token of the stem's features."""

    def __init__(self, signal: Signal, patch_shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(signal, patch_shape, features, width, sides=(4, 4), grid=(4, 4))

    def planes(self, patches: Tensor) -> Tensor:
        """Change is small beside brightness: its root brings both to one scale."""
        return patches.clamp_min(0.0).sqrt()
