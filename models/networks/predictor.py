"""The past of a few ticks to a context, and the context with an action summary to the future at each horizon.

Direct heads: one pass per horizon, no roll-out. Everything a head adds to its starting point is zero until trained.
Shape letters: B sequences, T ticks, X inputs, A actions, D context, H horizons, Q action summaries, L latent, S tags.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import distributed
from models.actions import HORIZONS
from models.networks.blocks import Attention, Dropout, feed_forward, linear, zeroed
from models.networks.size import ModelConfig

INPUT_LIMIT = 8.0
SLOWEST = 64.0  # ticks over which the start value of a latent forecast fades


class Blurred(nn.Module):
    """Past features within limits, in training with noise: long horizons see few independent runs to learn from."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; standardised features."""
        x = x.clamp(-INPUT_LIMIT, INPUT_LIMIT)
        if not self.training:
            return x
        return x + self.noise * distributed.rows(lambda n: x.new_empty(n, *x.shape[1:]).normal_(), len(x))


class AdaptiveLayer(nn.Module):
    """A causal transformer layer whose norms and gates are set by the action; at first it passes its input on.

    Source: Peebles & Xie 2023, AdaLN-zero.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_after = nn.LayerNorm(width, elementwise_affine=False)
        self.attend = Attention(width, heads)
        self.think = feed_forward(width, dropout)
        self.modulate = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 6 * width)))

    def forward(self, x_BTD: Tensor, condition_BTD: Tensor, causal_TT: Tensor) -> Tensor:
        """Each tick sees itself and what came before."""
        scale, shift, gate, scale_after, shift_after, gate_after = self.modulate(condition_BTD).chunk(6, -1)
        y = self.norm(x_BTD) * (1.0 + scale) + shift
        x = x_BTD + gate * self.attend(y, y, causal_TT)
        y = self.norm_after(x) * (1.0 + scale_after) + shift_after
        return torch.as_tensor(x + gate_after * self.think(y))


class Predictor(nn.Module):
    """Causal transformer over at most ``window_ticks`` ticks; the first tick given is at position 0."""

    causal_TT: Tensor

    def __init__(self, inputs: int, actions: int, config: ModelConfig) -> None:
        super().__init__()
        width, ticks = config.context, config.window_ticks
        self.start = nn.Sequential(Blurred(config.input_noise), nn.Linear(inputs, width))
        self.deepen = nn.Sequential(nn.LayerNorm(width), feed_forward(width, config.dropout))
        self.condition = nn.Sequential(linear(2 * actions, width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Parameter(0.02 * torch.randn(ticks, width))
        self.layers = nn.ModuleList(
            AdaptiveLayer(width, config.heads, config.dropout) for _ in range(config.predictor_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.register_buffer("causal_TT", torch.ones(ticks, ticks, dtype=torch.bool).tril(), persistent=False)

    def forward(self, inputs_BTX: Tensor, action_BTA: Tensor) -> Tensor:
        """Contexts [B, T, D] from inputs and scaled actions."""
        ticks = inputs_BTX.shape[1]
        change = torch.diff(action_BTA, dim=1, prepend=action_BTA[:, :1])
        condition = self.condition(torch.cat([action_BTA, change], -1)) + self.place[:ticks]
        x = self.start(inputs_BTX) + self.place[:ticks]
        x = x + self.deepen(x)
        for layer in self.layers:
            x = layer(x, condition, self.causal_TT[:ticks, :ticks])
        return torch.as_tensor(self.norm(x))


class HorizonLayers(nn.Module):
    """One hidden map for all horizons, told the horizon and the actions until then; outputs are zero until trained."""

    def __init__(self, inputs: int, summaries: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        hidden, horizons = config.head, len(HORIZONS)
        self.start = linear(inputs, hidden)
        self.action = linear(summaries, hidden)
        self.scale = nn.Parameter(torch.zeros(horizons, hidden))
        self.horizon = nn.Parameter(0.5 * torch.randn(horizons, hidden))
        self.deepen = nn.Sequential(nn.GELU(), Dropout(config.dropout), nn.Linear(hidden, hidden), nn.GELU())
        self.out = nn.Parameter(torch.zeros(horizons, hidden, outputs))
        self.offset = nn.Parameter(torch.zeros(horizons, outputs))

    def forward(self, x_NX: Tensor, summary_NHQ: Tensor, only: slice) -> Tensor:
        """Outputs [N, H, O] at horizons ``only``, whose summaries are given; ``x_NX`` may have N = 1."""
        x = self.start(x_NX)[:, None] + self.action(summary_NHQ)
        x = self.deepen(x * (1.0 + self.scale[only]) + self.horizon[only])
        return (torch.einsum("nhd,hdo->nho", x, self.out[only].to(x.dtype)) + self.offset[only]).float()


class HorizonHeads(nn.Module):
    """What each horizon adds: a change of the tags beyond the linear core's, and the latent there.

    The tags are told by the context and, on a short cut that needs no sensors but the tags, by the past features: the
    short cut learns from many more ticks than could be encoded. The latent starts from a fading share of the present.
    """

    def __init__(self, past: int, summaries: int, tags: int, config: ModelConfig) -> None:
        super().__init__()
        self.tags = tags
        self.layers = HorizonLayers(config.context, summaries, tags + config.latent, config)
        self.blurred = Blurred(config.input_noise)
        self.short_cut = HorizonLayers(past, summaries, tags, config)
        fade = torch.exp(-torch.tensor(HORIZONS, dtype=torch.float32) / SLOWEST)
        self.keep = nn.Parameter(fade[:, None].expand(-1, config.latent).clone())

    def forward(
        self, context_ND: Tensor, latent_NL: Tensor, summary_NHQ: Tensor, only: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """From the context: residual tag change [N, H, S] in units of the residual scale, and latents [N, H, L].

        ``summary_NHQ`` holds the summaries of the horizons ``only``; context and latent may have N = 1.
        """
        made = self.layers(context_ND, summary_NHQ, only)
        return made[..., : self.tags], made[..., self.tags :] + latent_NL[:, None] * self.keep[only]

    def direct(self, past_NP: Tensor, summary_NHQ: Tensor, only: slice = slice(None)) -> Tensor:
        """From the past features: the short cut's part of the residual tag change [N, H, S]."""
        return torch.as_tensor(self.short_cut(self.blurred(past_NP), summary_NHQ, only))
