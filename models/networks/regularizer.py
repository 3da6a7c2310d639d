"""What keeps latents spread out, and the gauge that says whether they are.

The Epps-Pulley statistic compares the characteristic function of projected latents with that of a standard normal.
With its factor N it is about one for a Gaussian batch of any size and grows with N for a collapsed one.
Shape letters: N ticks, D latent, M directions, G subspaces, t knots.
Source: Epps & Pulley 1983; its use on random projections: Balestriero & LeCun 2025.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models import distributed
from models.networks.size import AntiCollapse

KNOTS = 17
REACH = 3.0
SUBSPACE = 4
STD_WEIGHT, COVARIANCE_WEIGHT = 10.0, 5.0


def epps_pulley(z_ND: Tensor, directions_DM: Tensor) -> Tensor:
    """The statistic averaged over directions of unit length; 1 says Gaussian. Float32 whatever is given."""
    t = torch.linspace(0.0, REACH, KNOTS, device=z_ND.device)
    normal = torch.exp(-0.5 * t.square())
    weight = torch.full_like(t, REACH / (KNOTS - 1))
    weight[0] = weight[-1] = 0.5 * REACH / (KNOTS - 1)
    angle = (z_ND.float() @ directions_DM.float())[..., None] * t
    cosine, sine = distributed.mean(torch.stack([angle.cos(), angle.sin()], 1))
    gap = (cosine - normal).square() + sine.square()
    return torch.as_tensor(distributed.length(z_ND) * (gap @ (2.0 * weight * normal)).mean())


def directions(latent: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Random directions [D, M] of unit length."""
    drawn = torch.randn(latent, count, generator=generator)
    return torch.as_tensor(drawn / torch.linalg.vector_norm(drawn, dim=0, keepdim=True))


def subspaces(latent: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """A frozen random orthonormal basis cut into subspaces [G, D, size]; what is left over is dropped."""
    basis: Tensor = torch.linalg.qr(torch.randn(latent, latent, generator=generator))[0]
    groups = max(1, latent // size)
    size = min(size, latent)
    return basis[:, : groups * size].reshape(latent, groups, size).transpose(0, 1).contiguous()


def variance_covariance(z_ND: Tensor) -> Tensor:
    """Hinge on the standard deviation and off-diagonal covariance. Source: Bardes et al. 2022."""
    centred = z_ND.float() - distributed.mean(z_ND.float())
    deviation = distributed.mean(centred.square()).add(1e-4).sqrt()
    covariance = distributed.total(centred.T @ centred) / (distributed.length(z_ND) - 1).clamp_min(1)
    off = covariance - torch.diag(torch.diag(covariance))
    hinge = torch.relu(1.0 - deviation).mean()
    return torch.as_tensor(STD_WEIGHT * hinge + COVARIANCE_WEIGHT * off.square().sum() / z_ND.shape[1])


class AntiCollapseLoss(nn.Module):
    """The chosen term on independent ticks; zero for ``ema``, where a slow teacher does the work."""

    subspaces_GDs: Tensor

    def __init__(self, kind: AntiCollapse, latent: int, count: int = 256) -> None:
        super().__init__()
        self.kind = kind
        self.count = count
        drawn = subspaces(latent, SUBSPACE, torch.Generator().manual_seed(0))
        self.register_buffer("subspaces_GDs", drawn, persistent=False)

    def forward(self, z_ND: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of independent latents; ``generator`` is on the CPU."""
        if self.kind is AntiCollapse.SIGREG:
            drawn = directions(z_ND.shape[1], self.count, generator)
            return epps_pulley(z_ND, drawn.to(z_ND.device))
        if self.kind is AntiCollapse.SUB:
            return self._in_subspaces(z_ND, generator)
        if self.kind is AntiCollapse.VICREG:
            return variance_covariance(z_ND)
        return z_ND.new_zeros(())

    def _in_subspaces(self, z_ND: Tensor, generator: torch.Generator) -> Tensor:
        groups, latent, size = self.subspaces_GDs.shape
        per_group = math.ceil(self.count / groups)
        drawn = directions(size, groups * per_group, generator).reshape(size, groups, per_group).to(z_ND.device)
        within = torch.einsum("gds,sgm->dgm", self.subspaces_GDs, drawn).reshape(latent, -1)
        return epps_pulley(z_ND, within)
