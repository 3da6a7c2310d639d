"""Sound to tokens: the log-mel spectrogram of the tick."""

from __future__ import annotations

from fusion.plant import Signal
from models.networks.encoders import PatchEncoder


class AudioEncoder(PatchEncoder):
    """Eight tokens of bands and time beside the token of the stem's features."""

    def __init__(self, signal: Signal, patch_shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(signal, patch_shape, features, width, sides=(8, 5), grid=(4, 2))
