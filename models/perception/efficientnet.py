"""The beginning of EfficientNet-Lite0, to the resolution at which small things are still seen: a frozen backbone.

Stem and blocks 0 to 4 of the published network, whose names the layers keep so that its weights fit. Source: Tan and Le
2019, arXiv 1905.11946; the lite variant has neither squeeze and excitation nor swish. Shape letters: T pictures, C
colours, H rows, W columns, h, w a stride of 8 apart, K channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

BLOCKS = (  # expansion, width of the filter, stride, channels in and out
    (1, 3, 1, 32, 16),
    (6, 3, 2, 16, 24),
    (6, 3, 1, 24, 24),
    (6, 5, 2, 24, 40),
    (6, 5, 1, 40, 40),
)
EPSILON = 1e-3
CENTRE, SCALE = 127.0, 128.0  # of its training: statistics of its first layer imply inputs from -1 to 1
MARK = "_conv_stem.weight"  # by which its weights are told from those of other networks


class Convolution(nn.Conv2d):
    """A convolution whose map is its input's size over the stride, as TensorFlow pads."""

    def __init__(self, inward: int, outward: int, width: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inward, outward, width, stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of all channels, after zeros around them."""
        width, stride = self.kernel_size[0], self.stride[0]
        columns, rows = (max(width - stride + -size % stride, 0) for size in (maps.shape[3], maps.shape[2]))
        return super().forward(pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)))


class Block(nn.Module):
    """An inverted bottleneck: wider, filtered by channel, narrower, and the input beside it where both are alike."""

    def __init__(self, expansion: int, width: int, stride: int, inward: int, outward: int) -> None:
        super().__init__()
        wide = inward * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Convolution(inward, wide, 1), nn.BatchNorm2d(wide, EPSILON)
        self._depthwise_conv, self._bn1 = Convolution(wide, wide, width, stride, wide), nn.BatchNorm2d(wide, EPSILON)
        self._project_conv, self._bn2 = Convolution(wide, outward, 1), nn.BatchNorm2d(outward, EPSILON)
        self._expands, self._skips = expansion > 1, stride == 1 and inward == outward

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [T, out, h, w] of [T, in, H, W]."""
        wide = self._bn0(self._expand_conv(maps)).clamp(0.0, 6.0) if self._expands else maps
        made: Tensor = self._bn2(self._project_conv(self._bn1(self._depthwise_conv(wide)).clamp(0.0, 6.0)))
        return made + maps if self._skips else made

    def fuse(self) -> None:
        """Put each normalisation into the convolution before it: the same numbers in two thirds of the time."""
        pairs = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        for convolution, norm in pairs[not self._expands :]:
            setattr(self, convolution, fuse_conv_bn_eval(getattr(self, convolution), getattr(self, norm)))
            setattr(self, norm, nn.Identity())


class EfficientNetLite0(nn.Module):
    """Stem and first blocks; K = 40."""

    stride, channels = 8, BLOCKS[-1][-1]

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Convolution(3, 32, 3, 2), nn.BatchNorm2d(32, EPSILON)
        self._blocks = nn.Sequential(*(Block(*block) for block in BLOCKS))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> EfficientNetLite0:
        """With published weights, of which the layers that are not here are left out; made ready to infer.

        Raises:
            RuntimeError: where one of those that are here is missing or of another shape.
        """
        made = cls()
        made.load_state_dict({name: weights[name] for name in made.state_dict() if name in weights})
        made.eval()
        return made

    @classmethod
    def untrained(cls, seed: int) -> EfficientNetLite0:
        """With random weights by which maps neither fade nor grow from layer to layer (He et al. 2015)."""
        made, source = cls().eval(), torch.Generator().manual_seed(seed)
        for module in made.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=source)
        return made

    def fused(self) -> EfficientNetLite0:
        """The same, quicker, in place."""
        self._conv_stem, self._bn0 = fuse_conv_bn_eval(self._conv_stem, self._bn0), nn.Identity()  # type: ignore[assignment]
        for block in self._blocks:
            if isinstance(block, Block):
                block.fuse()
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        """Maps [T, K, h, w] of pictures [T, C, H, W] from 0 to 255."""
        made: Tensor = self._blocks(self._bn0(self._conv_stem((pictures - CENTRE) / SCALE)).clamp(0.0, 6.0))
        return made
