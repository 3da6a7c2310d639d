"""Raw energies of the learned latent: innovations, shell, disagreement of the modalities, tags told from the others.

Each is a squared Mahalanobis distance over its dimension, so about one on data like those it was fitted on; their
calibration to p-values is not done here.
Shape letters: T ticks, E energies, L latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusion.plant import Modality
from fusion.records import PROCESS, Energy, Origin
from models.actions import HORIZONS
from models.networks.jepa import Jepa, Perception
from models.networks.stream import Trail, predicted
from models.networks.view import Tokens, View, symlog

INNOVATIONS = (1, 8, 32)  # ticks ahead, as the core's
SHRINKAGE = 0.1  # towards a ball: few independent ticks for a full covariance
MASKED, MASKED_PARTS = "masked", 4


def latent_energies(perception: Perception) -> tuple[Energy, ...]:
    """The energies of the latent: E columns, the last that of masked tags."""

    def energy(family: str, name: str, modality: Modality = Modality.PROCESS, source: str = PROCESS) -> Energy:
        return Energy(name=f"net.{name}", origin=Origin.LATER, family=family, modality=modality, source=source)

    general = [*(energy("foresight", f"innovation.{k}") for k in INNOVATIONS), energy("shell", "shell")]
    groups = [energy("disagreement", f"disagreement.{PROCESS}")] if perception.media else []
    groups += [energy("disagreement", f"disagreement.{s.name}", s.modality, s.name) for s in perception.media]
    return (*general, *groups, energy(MASKED, MASKED))


class Ellipsoids:
    """Centre and shape of E clouds of vectors; ``whiten`` turns a deviation into standard units."""

    def __init__(self, centre_EL: Tensor, whiten_ELL: Tensor) -> None:
        self.centre_EL, self.whiten_ELL = centre_EL, whiten_ELL

    @classmethod
    def unit(cls, energies: int, latent: int) -> Ellipsoids:
        """Balls around zero: not fitted."""
        return cls(torch.zeros(energies, latent), torch.eye(latent).expand(energies, -1, -1).clone())

    @classmethod
    def fit(cls, vectors_TEL: Tensor) -> Ellipsoids:
        """From vectors of normal ticks; rows with NaN do not count, a cloud of too few stays a unit ball.

        Covariances are shrunk towards a multiple of one. Source: Ledoit & Wolf 2004, with a fixed weight.
        """
        made = cls.unit(*vectors_TEL.shape[1:])
        for i in range(vectors_TEL.shape[1]):
            x = vectors_TEL[:, i][vectors_TEL[:, i].isfinite().all(1)].double()
            if len(x) < 2 * x.shape[1]:
                continue
            centre = x.mean(0)
            covariance = (x - centre).T @ (x - centre) / len(x)
            level = covariance.diagonal().mean().clamp_min(1e-12)
            shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(x.shape[1], dtype=x.dtype)
            root = torch.linalg.inv(torch.linalg.cholesky(shrunk))
            made.centre_EL[i], made.whiten_ELL[i] = centre.float(), root.float()
        return made

    def energy(self, vectors_TEL: Tensor) -> Tensor:
        """Energies [T, E]; NaN where the vector is."""
        centre, whiten = (x.to(vectors_TEL.device) for x in (self.centre_EL, self.whiten_ELL))
        standard = torch.einsum("eij,tej->tei", whiten, vectors_TEL - centre)
        return standard.square().mean(-1)

    def column_shares(self, vectors_TEL: Tensor) -> Tensor:
        """The part [T, E, L] of each energy that vanishes if a column is ignored. Source: Alcala and Qin 2009."""
        centre, whiten = (x.to(vectors_TEL.device) for x in (self.centre_EL, self.whiten_ELL))
        precision = torch.einsum("eki,ekj->eij", whiten, whiten)
        away = vectors_TEL - centre
        pulled = torch.einsum("eij,tej->tei", precision, away)
        total = (pulled * away).sum(-1, keepdim=True).clamp_min(1e-12)
        return (pulled.square() / precision.diagonal(dim1=1, dim2=2).clamp_min(1e-12) / total).clamp(0.0, 1.0)


def trail_vectors(model: Jepa, trail: Trail, ticks: int) -> Tensor:
    """Innovations and latent [T, 4, L] of the last ``ticks`` of a trail; NaN where the past does not reach."""
    total = len(trail)
    parts = []
    for k in INNOVATIONS:
        start = max(0, total - ticks - k)
        made = torch.full((ticks, trail.z_TL.shape[1]), torch.nan, device=trail.z_TL.device)
        known = slice(start, total - k)
        if total > k:
            row = HORIZONS.index(k)
            ahead = predicted(model, trail.context_TD[known], trail.z_TL[known], trail.actions, start, k, row)
            made[ticks - len(ahead) :] = trail.z_TL[total - len(ahead) :] - ahead
        parts.append(made)
    return torch.stack([*parts, trail.z_TL[total - ticks :]], 1)


def disagreements(perception: Perception, tokens: Sequence[Tokens], view: View) -> Tensor:
    """Latent of one modality alone minus that of the others [T, M, L]; NaN where either has nothing to say."""
    ticks = len(view)
    seen = torch.stack([_present(group, ticks) for group in tokens], 1)
    parts = []
    for i, group in enumerate(tokens):
        others = [other for j, other in enumerate(tokens) if j != i]
        alone = perception.standardise(perception.mixer.read_any([group], ticks).float())
        rest = perception.standardise(perception.mixer.read_any(others, ticks).float())
        both = seen[:, i] & (seen.sum(1) > 1)
        parts.append(torch.where(both[:, None], alone - rest, torch.nan))
    return torch.stack(parts, 1)


def masked(model: Jepa, view: View) -> Tensor:
    """Tags less what the latent tells of them while they are hidden [T, S], on the scale of ``symlog``.

    Every fourth tag is hidden at a time, by the order of the columns; what is not observed is zero.
    """
    tags = view.tags_NS.shape[1]
    made = torch.zeros_like(view.tags_NS)
    if tags < 2:
        return made
    parts = min(MASKED_PARTS, tags)
    for part in range(parts):
        hidden = torch.arange(tags, device=made.device) % parts == part
        z = model.perception(view.dropped(view.observed_NS & ~hidden, {}))
        made = torch.where(hidden, symlog(view.tags_NS) - model.observe_tags(z), made)
    return torch.where(view.observed_NS, made, 0.0)


def _present(group: Tokens, ticks: int) -> Tensor:
    seen = torch.zeros(ticks, dtype=torch.bool, device=group.valid.device)
    return seen.index_copy(0, group.rows, group.valid.any(1))
