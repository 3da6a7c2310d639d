"""What an encoder sees and gives: ``View`` in, ``Tokens`` out.

Media are kept sparse: only ticks that have a signal carry rows of it, so an absent modality costs and adds nothing.
Shape letters: N ticks (of any runs), S tags, F features, K tokens, D width, n rows of one medium.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Medium:
    """One media signal where it is present: tick indices [n], ascending, features [n, F] and patches [n, C, H, W]."""

    rows: Tensor
    features: Tensor
    patches: Tensor

    def only(self, keep_N: Tensor) -> Medium:
        """The rows of the ticks to keep."""
        kept = keep_N[self.rows]
        return Medium(self.rows[kept], self.features[kept], self.patches[kept])

    def at(self, ticks: Tensor, size: int) -> Medium:
        """The rows of the given ticks, ascending in ``ticks``, renumbered to their place in it; N is ``size``."""
        place = torch.full((size,), -1, dtype=torch.long, device=self.rows.device)
        place[self.rows] = torch.arange(len(self.rows), device=self.rows.device)
        found = place[ticks]
        chosen = found[found >= 0]
        return Medium(torch.nonzero(found >= 0)[:, 0], self.features[chosen], self.patches[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """N ticks of scaled sensor data; what is not observed is never read."""

    tags_NS: Tensor
    observed_NS: Tensor
    age_s_NS: Tensor
    quality_NS: Tensor
    media: Mapping[str, Medium]

    def __len__(self) -> int:
        return len(self.tags_NS)

    def at(self, ticks: Tensor) -> View:
        """The given ticks [n]."""
        return View(
            tags_NS=self.tags_NS[ticks],
            observed_NS=self.observed_NS[ticks],
            age_s_NS=self.age_s_NS[ticks],
            quality_NS=self.quality_NS[ticks],
            media={name: medium.at(ticks, len(self)) for name, medium in self.media.items()},
        )

    def dropped(self, observed_NS: Tensor, keep_N: Mapping[str, Tensor]) -> View:
        """The view with fewer tags observed and media only at the ticks kept."""
        media = {name: m.only(keep_N[name]) if name in keep_N else m for name, m in self.media.items()}
        return replace(self, observed_NS=self.observed_NS & observed_NS, media=media)

    def without(self, signals: Set[str], *, process: bool = False) -> View:
        """The view as if these media (and with ``process`` all tags) did not exist."""
        observed = torch.zeros_like(self.observed_NS) if process else self.observed_NS
        media = {name: medium for name, medium in self.media.items() if name not in signals}
        return replace(self, observed_NS=observed, media=media)

    def empty(self) -> Tensor:
        """True [N] where a tick has no data at all."""
        seen = self.observed_NS.any(1)
        for medium in self.media.values():
            seen = seen.index_fill(0, medium.rows, True)
        return ~seen

    def to(self, device: torch.device) -> View:
        """A view on another device."""
        return View(
            tags_NS=self.tags_NS.to(device),
            observed_NS=self.observed_NS.to(device),
            age_s_NS=self.age_s_NS.to(device),
            quality_NS=self.quality_NS.to(device),
            media={
                name: Medium(m.rows.to(device), m.features.to(device), m.patches.to(device))
                for name, m in self.media.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one encoder adds: tokens [n, K, D] of the ticks ``rows`` [n], and which of them count [n, K]."""

    rows: Tensor
    x: Tensor
    valid: Tensor

    def only(self, keep_N: Tensor) -> Tokens:
        """The tokens of the ticks to keep."""
        kept = keep_N[self.rows]
        return Tokens(self.rows[kept], self.x[kept], self.valid[kept])


class Encoder(Protocol):
    """One encoder per signal group; deterministic given the view."""

    def __call__(self, view: View) -> Tokens:
        """Tokens of the ticks that have this encoder's data."""


def symlog(x: Tensor) -> Tensor:
    """Linear near zero, logarithmic in the tails."""
    return torch.sign(x) * torch.log1p(x.abs())
