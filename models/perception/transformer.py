"""A vision transformer of the DINO kind as a frozen backbone: the tokens of its patches, after the last norm.

Layers keep the published names, so that weights of DINO and DINOv2 fit, with or without layer scale and registers.
Source: Caron et al. 2021, arXiv 2104.14294; Oquab et al. 2023, arXiv 2304.07193. Shape letters: T pictures, C colours,
H rows, W columns, h, w patches along them, N tokens, K channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

HEAD = 64  # channels of an attention head, in every network of the kind
CENTRE, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of its training: those of ImageNet
MARK = "patch_embed.proj.weight"  # by which its weights are told from those of other networks


class Attention(nn.Module):
    """Self-attention of all tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [T, N, K] of the same."""
        parts: Tensor = self.qkv(tokens).reshape(*tokens.shape[:2], 3, -1, HEAD)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        made: Tensor = self.proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return made


class Scale(nn.Module):
    """A factor for each channel of what a layer adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [T, N, K] of the same."""
        return tokens * self.gamma


class Perceptron(nn.Module):
    """Two layers, of each token alone."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, wide), nn.Linear(wide, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [T, N, K] of the same."""
        made: Tensor = self.fc2(nn.functional.gelu(self.fc1(tokens)))
        return made


class Layer(nn.Module):
    """Attention and perceptron, each added to what it is given."""

    def __init__(self, width: int, wide: int, *, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width, 1e-6), Attention(width), nn.LayerNorm(width, 1e-6)
        self.mlp = Perceptron(width, wide)
        self.ls1, self.ls2 = (Scale(width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [T, N, K] of the same."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        made: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return made


class Patches(nn.Module):
    """Patches to tokens."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, stride, stride)


class VisionTransformer(nn.Module):
    """Its size follows from its weights; K is their width, the stride a patch."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.channels, self.stride = weights[MARK].shape[0], weights[MARK].shape[-1]
        depth = sum(name.endswith(".norm1.weight") for name in weights)
        wide, scaled = len(weights["blocks.0.mlp.fc1.weight"]), "blocks.0.ls1.gamma" in weights
        self.patch_embed = Patches(self.channels, self.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.channels))
        self.pos_embed = nn.Parameter(torch.zeros(weights["pos_embed"].shape))
        self.registers = weights["register_tokens"].shape[1] if "register_tokens" in weights else 0
        if self.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, self.registers, self.channels))
        self.blocks = nn.Sequential(*(Layer(self.channels, wide, scaled=scaled) for _ in range(depth)))
        self.norm = nn.LayerNorm(self.channels, 1e-6)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> VisionTransformer:
        """With published weights, of which the parts that are not here are left out; made ready to infer.

        Raises:
            KeyError, RuntimeError: where one of those that are here is missing or of another shape.
        """
        made = cls(weights)
        made.load_state_dict({name: weights[name] for name in made.state_dict() if name in weights})
        return made.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Maps [T, K, h, w] of pictures [T, C, H, W] from 0 to 255, stretched to whole patches."""
        size = [-(-side // self.stride) * self.stride for side in pictures.shape[2:]]
        whole = interpolate(pictures, size, mode="bilinear", align_corners=False)
        centre, scale = (torch.tensor(value).reshape(3, 1, 1) for value in (CENTRE, SCALE))
        maps: Tensor = self.patch_embed.proj((whole - centre) / scale)
        tokens = maps.flatten(2).transpose(1, 2) + self._places(maps.shape[2], maps.shape[3])
        extra = [self.cls_token + self.pos_embed[:, :1], *([self.register_tokens] if self.registers else [])]
        made: Tensor = self.norm(self.blocks(torch.cat([*(e.expand(len(maps), -1, -1) for e in extra), tokens], 1)))
        return made[:, len(made[0]) - len(tokens[0]) :].transpose(1, 2).reshape(maps.shape)

    def _places(self, high: int, wide: int) -> Tensor:
        """What tells tokens [1, N, K] their place, for a map of other sides than that of the training."""
        known = self.pos_embed[:, 1:].transpose(1, 2)
        side = round(known.shape[2] ** 0.5)
        square = known.reshape(1, self.channels, side, side)
        return interpolate(square, (high, wide), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
