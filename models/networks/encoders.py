"""Encoders of pictures, sound and point clouds: planes to a small grid of tokens, the stem's features to one token.

Shape letters: n ticks, C planes, H rows, W columns, F features, K tokens, D width.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fusion.plant import Signal
from models.networks.process import BUCKETS, descriptor
from models.networks.view import Medium, Tokens, View, symlog


class PatchEncoder(nn.Module):
    """Two strided convolutions to a grid of tokens with learned positions, beside one token of the stem's features.

    ``sides`` are the strides of the first convolution [rows, columns], ``grid`` the tokens per axis. Planes are
    brought to unit scale by a normalisation over each tick, whose mean and scale are given to the feature token.
    """

    descriptor_B: Tensor

    def __init__(
        self,
        signal: Signal,
        patch_shape: tuple[int, ...],
        features: int,
        width: int,
        *,
        sides: tuple[int, int],
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        self.name = signal.name
        planes, rows, columns = patch_shape
        inner = (rows // sides[0], columns // sides[1])
        second = (max(1, math.ceil(inner[0] / grid[0])), max(1, math.ceil(inner[1] / grid[1])))
        self.register_buffer("descriptor_B", descriptor(signal), persistent=False)
        channels = max(16, width // 4)
        self.first = nn.Conv2d(planes, channels, sides, sides)
        self.second = nn.Conv2d(channels, width, second, second)
        self.tokens = (inner[0] // second[0]) * (inner[1] // second[1])
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.describe = nn.Linear(BUCKETS, width)
        self.features = nn.Sequential(nn.Linear(features + 2 * planes, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def planes(self, patches: Tensor) -> Tensor:
        """The planes as the convolutions read them; a modality may say more about its own."""
        return patches

    def forward(self, view: View) -> Tokens:
        """Tokens of the ticks that have this signal; none where no tick has it, in training still with a gradient."""
        medium = view.media.get(self.name)
        if medium is None or not (len(medium.rows) or self.training):
            device = view.tags_NS.device
            nothing = torch.zeros(0, self.tokens + 1, self.place.shape[1], device=device)
            return Tokens(torch.zeros(0, dtype=torch.long, device=device), nothing, nothing[..., 0].bool())
        x = self.encode(medium)
        return Tokens(medium.rows, x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))

    def encode(self, medium: Medium) -> Tensor:
        """Tokens [n, K, D]."""
        planes = self.planes(medium.patches.to(self.place.dtype))
        mean = planes.mean((2, 3), keepdim=True)
        scale = (planes - mean).square().mean((2, 3), keepdim=True).add(1e-4).sqrt()
        grid = self.second(nn.functional.gelu(self.first((planes - mean) / scale)))
        tokens = grid.flatten(2).transpose(1, 2) + self.place
        level = torch.cat([mean, scale], 1)[..., 0, 0]
        told = self.features(torch.cat([symlog(medium.features).clamp(-6.0, 6.0), level], 1))
        return torch.as_tensor(self.norm(torch.cat([told[:, None], tokens], 1) + self.describe(self.descriptor_B)))


class VideoEncoder(PatchEncoder):
    """Sixteen tokens of a picture and its change, both 0..1, beside the token of the stem's features."""

    def __init__(self, signal: Signal, patch_shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(signal, patch_shape, features, width, sides=(4, 4), grid=(4, 4))

    def planes(self, patches: Tensor) -> Tensor:
        """Change is small beside brightness: its root brings both to one scale."""
        return patches.clamp_min(0.0).sqrt()


class AudioEncoder(PatchEncoder):
    """Eight tokens of bands and time beside the token of the stem's features."""

    def __init__(self, signal: Signal, patch_shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(signal, patch_shape, features, width, sides=(8, 5), grid=(4, 2))


class LidarEncoder(PatchEncoder):
    """Sixteen tokens of height minus median [m] and occupancy beside the token of the stem's features."""

    def __init__(self, signal: Signal, patch_shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(signal, patch_shape, features, width, sides=(3, 3), grid=(4, 4))

    def planes(self, patches: Tensor) -> Tensor:
        """A stray return far out must not drown the map."""
        return symlog(patches)
