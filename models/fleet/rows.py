"""Views of plants as rows of tensors: what the network reads of a tick, and stacks of plants with unlike signals.

Shape letters as in ``models.fleet.network``; S tags and A actions of one plant.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from fusion.plant import Plant
from models.actions import HORIZONS, SUMMARIES
from models.fleet.descriptor import descriptors
from models.fleet.network import Described, Rows
from models.fleet.ridge import PlantRidge, recorded
from models.fleet.view import View
from models.scaling import Floats

OLD_S = 600.0  # an age that counts as one


@dataclass(frozen=True, slots=True)
class PlantRows:
    """Rows of one plant at ticks ``at`` [R] of a view; shapes as in ``Rows`` without G, N its tags or its actions."""

    at: NDArray[np.int64]
    tags_RNF: Tensor
    seen_RN2: Tensor
    told_RNH: Tensor
    action_RNF: Tensor
    summary_RHNQ: Tensor
    rest_RNH: Tensor
    tags_ND: Tensor
    actions_ND: Tensor

    def __len__(self) -> int:
        return len(self.at)

    def taken(self, rows: NDArray[np.int64]) -> PlantRows:
        """Some of the rows."""
        index = torch.from_numpy(rows)
        return PlantRows(
            at=self.at[rows],
            tags_RNF=self.tags_RNF[index],
            seen_RN2=self.seen_RN2[index],
            told_RNH=self.told_RNH[index],
            action_RNF=self.action_RNF[index],
            summary_RHNQ=self.summary_RHNQ[index],
            rest_RNH=self.rest_RNH[index],
            tags_ND=self.tags_ND,
            actions_ND=self.actions_ND,
        )


def plant_rows(
    plant: Plant, view: View, ridge: PlantRidge, at: NDArray[np.int64], summary: Floats | None = None
) -> PlantRows:
    """Rows at some ticks of a view, with the actions really taken and what came where that is known.

    ``summary`` [R, H, A * Q] of planned actions takes the place of those; then nothing is known of what came.
    """
    planned, rest = recorded(view, at, plant.step_s) if summary is None else (summary, None)
    here = view.at(at)
    told = np.moveaxis(ridge.change(here, planned), 1, 2)
    scale = ridge.scale.T
    left = np.full(told.shape, np.nan) if rest is None else (np.moveaxis(rest, 1, 2) - told) / scale
    age = np.log1p(here.age_s.clip(0.0, 1e6)) / np.log1p(OLD_S)
    paths = planned.reshape(len(at), len(HORIZONS), len(plant.actions), SUMMARIES)
    arrays = (
        here.tag_features, np.stack([here.observed, age], -1), told / scale, here.action_features, paths, left,
        descriptors(plant.tags), descriptors(plant.actions),
    )  # fmt: skip
    return PlantRows(at, *(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays))


def stacked(plants: Sequence[PlantRows], device: torch.device) -> tuple[Rows, Described]:
    """Plants with equally many rows side by side; signals are padded to the largest number of any."""
    tags = max(p.tags_ND.shape[0] for p in plants)
    actions = max(1, *(p.actions_ND.shape[0] for p in plants))

    def padded(parts: Sequence[Tensor], axis: int, size: int, value: float = 0.0) -> Tensor:
        made = []
        for part in parts:
            behind = part.ndim - 1 - axis
            made.append(pad(part, [0, 0] * behind + [0, size - part.shape[axis]], value=value))
        return torch.stack(made).to(device)

    rows = Rows(
        tags_GRNF=padded([p.tags_RNF for p in plants], 1, tags),
        seen_GRN2=padded([p.seen_RN2 for p in plants], 1, tags),
        told_GRNH=padded([p.told_RNH for p in plants], 1, tags),
        action_GRNF=padded([p.action_RNF for p in plants], 1, actions),
        summary_GRHNQ=padded([p.summary_RHNQ for p in plants], 2, actions),
        rest_GRNH=padded([p.rest_RNH for p in plants], 1, tags, float("nan")),
    )
    described = Described(
        tags_GND=padded([p.tags_ND for p in plants], 0, tags),
        tag_mask_GN=padded([torch.ones(p.tags_ND.shape[0]) for p in plants], 0, tags),
        actions_GND=padded([p.actions_ND for p in plants], 0, actions),
        action_mask_GN=padded([torch.ones(p.actions_ND.shape[0]) for p in plants], 0, actions),
    )
    return rows, described
