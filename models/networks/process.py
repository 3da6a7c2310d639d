"""Process tags to tokens: one per tag, known by what it is and not by its column.

Shape letters: N ticks, S tags, D width, W words.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusion.plant import Plant, Signal
from fusion.records import Quality
from models.networks.view import Tokens, View, symlog

BUCKETS = 64
LARGEST = 30.0  # scaled units; beyond it a value says only that it is far out


def words(signal: Signal) -> list[str]:
    """Lower-case words of the name, its letters without the number, unit, role, modality and description."""
    text = f"{signal.name} {re.sub('[^A-Za-z]', '', signal.name)} {signal.description}".lower()
    found = re.findall(r"[a-z]+|[0-9]+|[a-z0-9]{2,}", text)
    return [signal.name.lower(), *found, f"unit={signal.unit}", f"role={signal.role}", f"kind={signal.modality}"]


def descriptor(signal: Signal) -> Tensor:
    """A signal's words hashed into signed buckets [BUCKETS] of unit length; the same on every machine."""
    made = torch.zeros(BUCKETS)
    for word in words(signal):
        for salt in ("a", "b", "c"):
            digest = hashlib.blake2b(f"{salt}{word}".encode(), digest_size=8).digest()
            made[digest[0] % BUCKETS] += 1.0 if digest[1] & 1 else -1.0
    return torch.as_tensor(made / torch.linalg.vector_norm(made).clamp_min(1e-6))


def descriptors(signals: Sequence[Signal]) -> Tensor:
    """Descriptors [S, BUCKETS]."""
    return torch.stack([descriptor(s) for s in signals]) if signals else torch.zeros(0, BUCKETS)


def tag_edges(plant: Plant) -> Tensor:
    """The plant's edges between tags as indices [2, E], both ways; edges to other signals are left out."""
    place = {s.name: i for i, s in enumerate(plant.tags)}
    pairs = {(place[a], place[b]) for a, b in plant.edges if a in place and b in place and a != b}
    both = sorted(pairs | {(b, a) for a, b in pairs})
    return torch.tensor(both, dtype=torch.long).reshape(-1, 2).T.contiguous()


class GraphLayer(nn.Module):
    """Attention of tags to their neighbours in the tag graph, added to what they are."""

    def __init__(self, width: int, heads: int) -> None:
        from torch_geometric.nn import GATConv  # type: ignore[import-untyped]  # a third of the time to start

        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attend = GATConv(width, width // heads, heads=heads)

    def forward(self, x_NSD: Tensor, edges: Tensor) -> Tensor:
        """The same graph at every tick."""
        n, s, d = x_NSD.shape
        offset = torch.arange(n, device=x_NSD.device)[:, None] * s
        batched = (edges[:, None] + offset[None]).flatten(1)
        made: Tensor = self.attend(self.norm(x_NSD).reshape(n * s, d), batched)
        return x_NSD + made.reshape(n, s, d)


class ProcessEncoder(nn.Module):
    """A token per tag from its robust-scaled value, age, quality and descriptor.

    A value that is not observed is replaced by a learned fill before anything reads it, and its token does not count.
    """

    descriptor_SB: Tensor
    edges: Tensor

    def __init__(self, plant: Plant, width: int, heads: int, graph_layers: int) -> None:
        super().__init__()
        self.register_buffer("descriptor_SB", descriptors(plant.tags), persistent=False)
        self.register_buffer("edges", tag_edges(plant), persistent=False)
        self.fill = nn.Parameter(torch.zeros(width))
        self.value = nn.Linear(4 + len(Quality), width)
        self.describe = nn.Linear(BUCKETS, 2 * width)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        layers = graph_layers if self.edges.shape[1] else 0
        self.graph = nn.ModuleList(GraphLayer(width, heads) for _ in range(layers))

    def forward(self, view: View) -> Tokens:
        """Tokens of every tick: ``rows`` is all of them."""
        seen = view.observed_NS
        tags = torch.where(seen, view.tags_NS, 0.0).clamp(-LARGEST, LARGEST)
        age = torch.log1p(torch.where(seen, view.age_s_NS, 0.0).clamp(0.0, 1e6))
        quality = torch.where(seen, view.quality_NS, 0)
        numbers = [symlog(tags), tags.clamp(-3.0, 3.0), age, seen.to(tags.dtype)]
        kinds = nn.functional.one_hot(quality, len(Quality)).to(tags.dtype)
        told = self.value(torch.cat([torch.stack(numbers, -1), kinds], -1))
        gain, offset = self.describe(self.descriptor_SB).chunk(2, -1)
        x = torch.where(seen[..., None], told, self.fill) * (1.0 + gain) + offset
        x = x + self.mix(x)
        for layer in self.graph:
            x = layer(x, self.edges)
        return Tokens(torch.arange(len(seen), device=seen.device), x, seen)
