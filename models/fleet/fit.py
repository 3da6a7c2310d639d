"""How the network of a fleet is trained: rows of many plants, each with a stretch of its own minutes as context.

Everything random follows from the seed. Shape letters as in ``models.fleet.network``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import huber_loss

from fusion.errors import ConfigError
from models.fleet.network import FleetNetwork, FleetSize
from models.fleet.rows import PlantRows, stacked

CONTEXT_TICKS = (400, 1800)  # how long the stretch is that a plant is known by
APART = 64  # ticks between that stretch and the rows that are judged
OUTLIER = 20.0  # in units of the ridge's usual error, beyond which a residual says no more
Progress = Callable[[int, int, float], None]


@dataclass(kw_only=True, slots=True)
class FleetFit:
    """How long and how the network is trained; ``average`` is the memory of the averaged weights."""

    steps: int = 2000
    plants: int = 16
    rows: int = 32
    context_rows: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    strangers: float = 0.15
    average: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject what trains nothing."""
        for name in ("plants", "rows", "context_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fit.{name}: {getattr(self, name)} is not accepted; expected at least 1")
        if self.steps < 0 or self.learning_rate <= 0 or not 0 <= self.average < 1:
            raise ConfigError("fit.steps, learning_rate, average: expected >= 0, > 0 and a number of 0 to below 1")


def fit_network(
    views: Sequence[PlantRows], size: FleetSize, config: FleetFit, device: torch.device, progress: Progress
) -> FleetNetwork:
    """The network, trained on the rows of plants and averaged over its last steps."""
    torch.manual_seed(config.seed)
    network = FleetNetwork(size).to(device)
    _measure(network, views)
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    rng = np.random.default_rng(config.seed)
    network.train()
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _rate(step / config.steps)
        loss = _loss(network, views, config, rng, device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        keep = min(config.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 1.0 - keep)
        progress(step + 1, config.steps, float(loss.detach()))
    return average.eval()


def _rate(progress: float) -> float:
    """Warm up over the first twentieth, then a half cosine to a hundredth."""
    return min(1.0, 20.0 * progress + 0.05) * (0.505 + 0.495 * math.cos(math.pi * progress))


def _loss(
    network: FleetNetwork, views: Sequence[PlantRows], config: FleetFit, rng: np.random.Generator, device: torch.device
) -> torch.Tensor:
    chosen = rng.choice(len(views), min(config.plants, len(views)), replace=False)
    drawn = [_drawn(views[i], config, rng) for i in chosen]
    rows, described = stacked([d for d, _ in drawn], device)
    context, _ = stacked([c for _, c in drawn], device)
    embedding = network.embedding(context, described)
    known = torch.from_numpy(rng.random(len(chosen)) >= config.strangers).to(device)
    made = network(rows, described, embedding * known[:, None])
    return masked_huber(made, rows.rest_GRNH)


def masked_huber(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean Huber loss where it is known what is wanted (not NaN)."""
    there = torch.isfinite(wanted)
    target = torch.where(there, wanted, 0.0).clamp(-OUTLIER, OUTLIER)
    loss = huber_loss(torch.where(there, made, 0.0), target, reduction="none")
    return loss.sum() / there.sum().clamp_min(1)


def _drawn(plant: PlantRows, config: FleetFit, rng: np.random.Generator) -> tuple[PlantRows, PlantRows]:
    """Rows to judge and, from a stretch that is apart from them, rows to know the plant by."""
    length = int(rng.integers(CONTEXT_TICKS[0], CONTEXT_TICKS[1] + 1))
    first, last = int(plant.at[0]), int(plant.at[-1])
    length = min(length, (last - first) // 2)
    start = int(rng.integers(first, max(last - length, first) + 1))
    inside = (plant.at >= start) & (plant.at <= start + length)
    outside = (plant.at < start - APART) | (plant.at > start + length + APART)
    return plant.taken(_some(outside, config.rows, rng)), plant.taken(_some(inside, config.context_rows, rng))


def _some(which: NDArray[np.bool_], rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    among = np.flatnonzero(which)
    among = among if len(among) else np.arange(len(which))
    return np.sort(rng.choice(among, rows, replace=len(among) < rows))


def _measure(network: FleetNetwork, views: Sequence[PlantRows]) -> None:
    """Set the scales of what the network reads, from the rows it is trained on."""
    some = views[:: max(1, len(views) // 32)]

    def spread(parts: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        flat = torch.cat([p.movedim(axis, 0).flatten(1) for p in parts], 1)
        return flat.square().mean(1).sqrt().clamp_min(1e-6)

    network.tag_scale_F.copy_(spread([v.tags_RNF for v in some], -1))
    network.action_scale_F.copy_(spread([v.action_RNF for v in some], -1))
    for row in range(network.summary_scale_Q.shape[0]):
        network.summary_scale_Q[row].copy_(spread([v.summary_RHNQ[:, row] for v in some], -1))
