"""What a frozen image network makes of a picture, place by place: the features of one tick of one camera.

The network is handed in and never trained here. Shape letters: T pictures, C colours, H rows, W columns, h and w the
same of the network's map, N places, K channels.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.features.cells import SIDES
from models.features.video import LARGEST_SIDE, averaging, shrunk

LARGEST_PICTURE = 3 * LARGEST_SIDE  # larger ones are averaged down to less than this: what a core does in 20 ms or so


class Backbone(Protocol):
    """A frozen network; ``name`` is how settings call it, ``sha256`` that of the weights it uses."""

    name: str
    sha256: str
    stride: int
    channels: int

    def features(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [T, h, w, K] of colour pictures [T, C, H, W] from 0 to 255."""


class Eye:
    """The features of pictures by a backbone, at as many places as a picture has cells."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.shape = (SIDES * SIDES, backbone.channels)

    def key(self, signal: str) -> str:
        """Names what is perceived of a signal, and by which weights: other weights say nothing comparable."""
        return f"{signal}@{self.backbone.name}#{self.backbone.sha256}"

    def perceive(self, value: NDArray[Any]) -> NDArray[np.float16]:
        """Features [N, K] of the last of the pictures [T, H, W] or [T, H, W, C] of a tick, grey or in colours."""
        picture = value[-1] if value.ndim > 2 else value
        planes = np.moveaxis(np.atleast_3d(picture), -1, 0).astype(np.float32)
        small = shrunk(planes, -(-max(planes.shape[1:]) // LARGEST_PICTURE))
        made = self.backbone.features(np.broadcast_to(small, (3, *small.shape[1:]))[None])[0]
        rows, columns = averaging(made.shape[0], SIDES), averaging(made.shape[1], SIDES)
        places = np.einsum("rh,hwk,cw->rck", rows, made, columns, optimize=True)
        return np.asarray(places.reshape(self.shape), np.float16)
