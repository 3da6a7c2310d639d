"""Tokens of one tick to one latent ``z_net``: learned state tokens read what is present and talk to each other.

Knows nothing of modalities. Shape letters: N ticks, K tokens, D width, Q state tokens, L latent.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import distributed
from models.networks.blocks import Attention, feed_forward
from models.networks.view import Tokens


class Standardise(nn.Module):
    """Batch normalisation without affine part, whose batch statistics can be taken from another batch.

    A partial view must be compared with the full view in the full view's units. What inference uses is not a running
    mean but measured by ``settle``: the scale of a latent moves fast while it is learned. Source: Ioffe & Szegedy 2015.
    """

    mean_L: Tensor
    variance_L: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.register_buffer("mean_L", torch.zeros(latent))
        self.register_buffer("variance_L", torch.ones(latent))

    def forward(self, x_NL: Tensor, reference_NL: Tensor | None = None) -> Tensor:
        """In training by the statistics of the global batch (or of ``reference_NL``), else by the settled ones."""
        mean, variance = self.mean_L, self.variance_L
        if self.training:
            source = x_NL if reference_NL is None else reference_NL
            variance, mean = distributed.var_mean(source.float())
        return (x_NL.float() - mean) * torch.rsqrt(variance + 1e-5)

    @torch.no_grad()
    def settle(self, x_NL: Tensor) -> None:
        """Fix the statistics to those of these latents."""
        variance, mean = torch.var_mean(x_NL.float(), 0, correction=0)
        self.mean_L.copy_(mean)
        self.variance_L.copy_(variance)


class MixerLayer(nn.Module):
    """State tokens attend to each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), Attention(width, heads)
        self.norm_after, self.think = nn.LayerNorm(width), feed_forward(width)

    def forward(self, x_NQD: Tensor) -> Tensor:
        """Any number of state tokens."""
        y = self.norm(x_NQD)
        x = x_NQD + self.attend(y, y)
        return torch.as_tensor(x + self.think(self.norm_after(x)))


class Mixer(nn.Module):
    """Reads tokens into ``z_net`` before standardisation.

    One learned token is always present, so a tick without data gives something finite.
    """

    def __init__(self, width: int, heads: int, states: int, layers: int, latent: int) -> None:
        super().__init__()
        self.states = nn.Parameter(0.5 * torch.randn(states, width))
        self.nothing = nn.Parameter(torch.zeros(1, width))
        self.norm_keys = nn.LayerNorm(width)
        self.norm_states = nn.LayerNorm(width)
        self.read = Attention(width, heads)
        self.norm_after, self.think = nn.LayerNorm(width), feed_forward(width)
        self.layers = nn.ModuleList(MixerLayer(width, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(states * width)
        self.out = nn.Linear(states * width, latent, bias=False)

    def forward(self, groups: Sequence[Tokens], ticks: int) -> Tensor:
        """Latents [N, L] of ``ticks`` ticks.

        Ticks with the tokens of one group only are read apart from the others, which carry many more. The layers run
        once in any case: processes that share a batch must call them equally often.
        """
        rich = torch.zeros(ticks, dtype=torch.bool, device=self.states.device)
        for group in groups[1:]:
            rich[group.rows] = True
        if not rich.any() or rich.all():
            return self.read_any(groups, ticks)
        made = self.states.new_zeros(ticks, *self.states.shape)
        for keep, used in ((~rich, groups[:1]), (rich, groups)):
            chosen = torch.nonzero(keep)[:, 0]
            place = torch.cumsum(keep, 0) - 1
            moved = [Tokens(place[g.rows], g.x, g.valid) for g in (group.only(keep) for group in used)]
            part = self._read(moved, len(chosen))
            made = made.to(part.dtype).index_copy(0, chosen, part)
        return self._mix(made)

    def read_any(self, groups: Sequence[Tokens], ticks: int) -> Tensor:
        """Latents [N, L] from any groups of tokens, with all ticks read alike."""
        return self._mix(self._read(groups, ticks))

    def _read(self, groups: Sequence[Tokens], ticks: int) -> Tensor:
        """State tokens [N, Q, D] that have read the groups."""
        keys, valid = self._gather(groups, ticks)
        x = self.states.expand(ticks, -1, -1)
        x = x + self.read(self.norm_states(x), self.norm_keys(keys), valid[:, None, None])
        return torch.as_tensor(x + self.think(self.norm_after(x)))

    def _mix(self, x_NQD: Tensor) -> Tensor:
        """Latents [N, L] of state tokens."""
        for layer in self.layers:
            x_NQD = layer(x_NQD)
        return torch.as_tensor(self.out(self.norm_out(x_NQD.flatten(1))))

    def _gather(self, groups: Sequence[Tokens], ticks: int) -> tuple[Tensor, Tensor]:
        """All tokens [N, K, D] side by side and which of them count [N, K]; the first always does.

        A group without rows adds nothing but itself to the graph: where another process has rows, gradients are due.
        """
        parts = [self.nothing.expand(ticks, -1, -1)]
        valid = [torch.ones(ticks, 1, dtype=torch.bool, device=self.states.device)]
        for group in groups:
            if not len(group.rows):
                parts[0] = parts[0] + group.x.sum()
            elif len(group.rows) == ticks:
                parts.append(group.x)
                valid.append(group.valid)
            else:
                shape = (ticks, *group.x.shape[1:])
                parts.append(group.x.new_zeros(shape).index_copy(0, group.rows, group.x))
                valid.append(group.valid.new_zeros(shape[:2]).index_copy(0, group.rows, group.valid))
        return torch.cat([p.to(parts[0].dtype) for p in parts], 1), torch.cat(valid, 1)
