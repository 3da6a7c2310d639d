"""What the fleet ridge cannot say: a network over a set of signals, known by descriptor; at first it adds nothing.

Slots whose keys are descriptors attend to the tokens of the signals that a plant has and become one vector, set by what
the plant's own minutes were like; each tag reads from it by its own descriptor, at each horizon with the actions until
then. No column has a meaning, any number of tags may be missing, and absent ones count nothing.
Shape letters: G plants, R rows of a plant, N signals (tags or actions, padded), F features of a signal, D descriptor,
H horizons, Q summaries per action, M slots, E width of a token, C width of the trunk, L plant embedding.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.actions import HORIZONS, SUMMARIES
from models.fleet.descriptor import WIDTH
from models.fleet.view import ACTION_FEATURES, FEATURES
from models.networks.blocks import Dropout, zeroed

LIMIT = 8.0
SEEN_ROWS = (3, 5)  # horizons whose errors the plant embedding reads: 8 and 32 ticks
EXTRA = 2  # beside its features a token of a tag says whether it is observed, and its age


@dataclass(kw_only=True, slots=True)
class FleetSize:
    """Widths of the network."""

    slots: int = 24
    token: int = 32
    trunk: int = 160
    reading: int = 96
    paths: int = 32
    described: int = 48
    embedding: int = 32
    dropout: float = 0.05
    noise: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of G plants: what the network reads, padded to the same number of tags and of actions.

    ``told_GRNH`` is what the ridge says at each horizon, in units of its usual error; ``rest_GRNH`` what it left, NaN
    where that is not known.
    """

    tags_GRNF: Tensor
    seen_GRN2: Tensor
    told_GRNH: Tensor
    action_GRNF: Tensor
    summary_GRHNQ: Tensor
    rest_GRNH: Tensor


@dataclass(frozen=True, slots=True)
class Described:
    """Descriptors of the tags and actions of G plants; False in the masks is padding."""

    tags_GND: Tensor
    tag_mask_GN: Tensor
    actions_GND: Tensor
    action_mask_GN: Tensor


class Tokens(nn.Module):
    """Signals to tokens: a linear map of their features, modulated by the descriptor."""

    def __init__(self, inputs: int, described: int, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(inputs, width)
        self.modulate = nn.Linear(described, 2 * width)

    def forward(self, x_GRNX: Tensor, known_GND: Tensor) -> Tensor:
        """Tokens [G, R, N, E]."""
        gain, offset = self.modulate(known_GND)[:, None].chunk(2, -1)
        return nn.functional.gelu(self.value(x_GRNX) * (1.0 + gain) + offset)


class Slots(nn.Module):
    """Tokens to slots: each signal has its weight in each slot by its descriptor."""

    def __init__(self, described: int, slots: int) -> None:
        super().__init__()
        self.key = nn.Linear(described, slots)

    def weights(self, known_GND: Tensor, mask_GN: Tensor) -> Tensor:
        """Weights [G, N, M]; zero of what is padding."""
        return torch.as_tensor(self.key(known_GND) * mask_GN[..., None])


class FleetNetwork(nn.Module):
    """The residual of the fleet ridge [G, R, N, H], in units of its usual error."""

    tag_scale_F: Tensor
    action_scale_F: Tensor
    summary_scale_Q: Tensor

    def __init__(self, size: FleetSize) -> None:
        super().__init__()
        self.size = size
        known, horizons = size.described, len(HORIZONS)
        self.register_buffer("tag_scale_F", torch.ones(FEATURES))
        self.register_buffer("action_scale_F", torch.ones(ACTION_FEATURES))
        self.register_buffer("summary_scale_Q", torch.ones(horizons, SUMMARIES))
        self.know = nn.Sequential(nn.Linear(WIDTH, known), nn.GELU(), nn.Linear(known, known), nn.GELU())
        self.tag = Tokens(FEATURES + EXTRA + horizons, known, size.token)
        self.action = Tokens(ACTION_FEATURES, known, size.token)
        self.tag_slots, self.action_slots = Slots(known, size.slots), Slots(known, size.slots)
        self.start = nn.Linear(size.slots * size.token, size.trunk)
        self.deepen = nn.Sequential(nn.GELU(), Dropout(size.dropout), nn.Linear(size.trunk, size.trunk))
        self.experience = Tokens(FEATURES + 2 * len(SEEN_ROWS), known, size.token)
        self.embed = nn.Sequential(nn.Linear(size.slots * size.token, 2 * size.embedding), nn.GELU())
        self.adapt = nn.Sequential(nn.Linear(2 * size.embedding, size.embedding), nn.GELU())
        self.film = zeroed(nn.Linear(size.embedding, 2 * size.trunk))
        self.path = nn.Linear(SUMMARIES, size.paths)
        self.path_key = nn.Linear(known, size.paths)
        self.path_now = nn.Linear(size.trunk, size.paths)
        self.path_out = zeroed(nn.Linear(known, size.paths))
        self.read = nn.Linear(size.trunk, size.reading)
        self.own = nn.Linear(size.token, size.reading)
        self.reader = nn.Linear(known, 3 * size.reading)
        self.out = zeroed(nn.Linear(size.reading, horizons))

    def forward(self, rows: Rows, described: Described, embedding_GL: Tensor) -> Tensor:
        """The residual at every row; ``embedding_GL`` is zero of a plant of which nothing is known."""
        tags, actions = self.know(described.tags_GND), self.know(described.actions_GND)
        told = rows.told_GRNH.clamp(-LIMIT, LIMIT)
        x = torch.cat([self._blurred(rows.tags_GRNF, self.tag_scale_F), rows.seen_GRN2, told], -1)
        token = self.tag(x, tags)
        moved = self.action(self._blurred(rows.action_GRNF, self.action_scale_F), actions)
        pooled = torch.einsum("grne,gnm->grme", token, self.tag_slots.weights(tags, described.tag_mask_GN))
        weights = self.action_slots.weights(actions, described.action_mask_GN)
        pooled = pooled + torch.einsum("grne,gnm->grme", moved, weights)
        trunk = self.start(pooled.flatten(2))
        trunk = trunk + self.deepen(trunk)
        gain, offset = self.film(embedding_GL)[:, None].chunk(2, -1)
        trunk = nn.functional.gelu(trunk * (1.0 + gain) + offset)
        return self._read(trunk, token, tags) + self._paths(rows, trunk, actions, tags, described)

    def _paths(self, rows: Rows, trunk: Tensor, actions: Tensor, tags: Tensor, described: Described) -> Tensor:
        """What the planned actions do to each tag until each horizon [G, R, N, H], as the plant is now."""
        path = torch.tanh(self.path(self._scaled(rows.summary_GRHNQ, self.summary_scale_Q[:, None])))
        key = self.path_key(actions) * described.action_mask_GN[..., None]
        planned = torch.einsum("grhnc,gnc->grhc", path, key) * (1.0 + self.path_now(trunk))[:, :, None]
        return torch.einsum("grhc,gnc->grnh", planned, self.path_out(tags))

    def _read(self, trunk: Tensor, token: Tensor, tags: Tensor) -> Tensor:
        """Each tag [G, R, N, H] reads from the trunk by its descriptor."""
        by_trunk, gain, offset = self.reader(tags)[:, None].chunk(3, -1)
        read = self.read(trunk)[:, :, None] * (1.0 + by_trunk) + self.own(token) + offset
        return torch.as_tensor(self.out(nn.functional.gelu(read) * (1.0 + gain)))

    def embedding(self, rows: Rows, described: Described) -> Tensor:
        """What the plant is like [G, L], from rows of its own whose outcome is known; the mean over the rows."""
        tags = self.know(described.tags_GND)
        seen = list(SEEN_ROWS)
        rest = torch.nan_to_num(rows.rest_GRNH[..., seen]).clamp(-LIMIT, LIMIT)
        told = rows.told_GRNH[..., seen].clamp(-LIMIT, LIMIT)
        x = torch.cat([self._scaled(rows.tags_GRNF, self.tag_scale_F), told, rest], -1)
        weights = self.tag_slots.weights(tags, described.tag_mask_GN)
        pooled = torch.einsum("grne,gnm->grme", self.experience(x, tags), weights)
        return torch.as_tensor(self.adapt(self.embed(pooled.flatten(2)).mean(1)))

    def _blurred(self, x: Tensor, scale: Tensor) -> Tensor:
        """Scaled features, in training with noise: long horizons see few independent stretches to learn from."""
        x = self._scaled(x, scale)
        return x + self.size.noise * torch.randn_like(x) if self.training and self.size.noise else x

    def _scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        return (x / scale).clamp(-LIMIT, LIMIT)
