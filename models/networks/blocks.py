"""The two blocks every part is made of: attention with a mask, and a feed-forward layer; pre-norm, residual.

Randomness goes by rows of the global batch. Shape letters: N rows, Q queries, K keys, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models import distributed


class Attention(nn.Module):
    """Multi-head attention of queries to keys; ``allowed`` is True where a query may look."""

    def __init__(self, width: int, heads: int, keys: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.offer = nn.Linear(keys or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_NQD: Tensor, y_NKD: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Every query must be allowed at least one key."""
        q = self._split(self.ask(x_NQD))
        k, v = (self._split(part) for part in self.offer(y_NKD).chunk(2, -1))
        made = scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return torch.as_tensor(self.out(made.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Dropout(nn.Module):
    """Dropout that does not depend on how many processes share the batch. Source: Srivastava et al. 2014."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Any shape whose first axis is rows of the batch."""
        if not self.training or not self.share:
            return x
        keep = 1.0 - self.share
        return x * distributed.rows(lambda n: x.new_empty(n, *x.shape[1:]).bernoulli_(keep).div_(keep), len(x))


def feed_forward(width: int, dropout: float = 0.0, factor: int = 2) -> nn.Sequential:
    """A hidden layer of ``factor`` times the width."""
    inner = factor * width
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), Dropout(dropout), nn.Linear(inner, width))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer; without inputs (a plant without actions) it is its bias, without outputs (or tags) nothing."""
    layer = nn.Linear(max(inputs, 1), max(outputs, 1))
    if not inputs or not outputs:
        layer.in_features, layer.out_features = inputs, outputs
        layer.weight = nn.Parameter(torch.empty(outputs, inputs))
        layer.bias = nn.Parameter(layer.bias.detach()[:outputs].clone())
    return layer


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with output zero until it learns otherwise."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
