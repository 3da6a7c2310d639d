"""The linear core's forecast as a module, for planning on tensors; nothing in it is trained.

Shape letters: H horizons, L steps of the action grid, Q summaries per action, P past features, S tags, A actions,
K own features of a tag, N candidates, B states.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import torch

from models.actions import path_weights
from models.linear.core import LinearCore


class LinearHead(torch.nn.Module):
    """The core's forecast, from a batch of states and action paths."""

    weights_HLQ: torch.Tensor
    past_HPS: torch.Tensor
    own_HKS: torch.Tensor | None
    action_HQS: torch.Tensor
    offset_HS: torch.Tensor
    tag_centre_S: torch.Tensor
    tag_scale_S: torch.Tensor
    action_centre_A: torch.Tensor
    action_scale_A: torch.Tensor

    def __init__(self, core: LinearCore, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        buffers = {
            "weights_HLQ": path_weights(core.step_s),
            "past_HPS": core.past_weights,
            "action_HQS": core.action_weights,
            "offset_HS": core.offset,
            "tag_centre_S": core.scaling.tags.centre,
            "tag_scale_S": core.scaling.tags.scale,
            "action_centre_A": core.scaling.action.centre,
            "action_scale_A": core.scaling.action.scale,
        }
        for name, value in buffers.items():
            self.register_buffer(name, torch.tensor(value, dtype=dtype), persistent=False)
        own = None if core.own_weights is None else torch.tensor(core.own_weights, dtype=dtype)
        self.register_buffer("own_HKS", own, persistent=False)

    def summary(self, paths_NLA: torch.Tensor, action_A: torch.Tensor) -> torch.Tensor:
        """Action summaries [N, H, A * Q] of paths in engineering units from scaled present actions [A]."""
        change = (paths_NLA - self.action_centre_A) / self.action_scale_A - action_A
        return torch.einsum("nla,hlq->nhaq", change, self.weights_HLQ).flatten(2)

    def base(self, past_BP: torch.Tensor) -> torch.Tensor:
        """Scaled change [B, H, S] if the actions stay."""
        first = past_BP.shape[1] - self.past_HPS.shape[1]
        made = torch.einsum("bp,hps->bhs", past_BP[:, first:], self.past_HPS) + self.offset_HS
        if self.own_HKS is None:
            return made
        alone = past_BP[:, :first].reshape(len(past_BP), *self.own_HKS.shape[1:])
        return made + torch.einsum("bks,hks->bhs", alone, self.own_HKS)

    def response(self, summary_NHQ: torch.Tensor) -> torch.Tensor:
        """Scaled change [N, H, S] due to the actions."""
        return torch.einsum("nhq,hqs->nhs", summary_NHQ, self.action_HQS)

    def forward(self, past_BP: torch.Tensor, tags_BS: torch.Tensor, summary_BHQ: torch.Tensor) -> torch.Tensor:
        """Mean [B, H, S] in engineering units from an ``Encoding``'s ``past`` and ``tags`` and action summaries."""
        scaled = tags_BS[:, None] + self.base(past_BP) + self.response(summary_BHQ)
        return scaled * self.tag_scale_S + self.tag_centre_S
