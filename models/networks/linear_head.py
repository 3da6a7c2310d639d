"""The linear core's forecast as a module, for planning on tensors; nothing in it is trained.

Shape letters: H horizons, L steps of the action grid, D ticks of dead time, Q summaries per action, P past features,
S tags, A actions, K own features of a tag, N candidates, B states, G steps ahead, X = G * Q.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fusion.records import ACTION_STEPS
from models.actions import SUMMARIES, between, course_ticks, path_weights
from models.linear.core import LinearCore


class LinearHead(torch.nn.Module):
    """The core's forecast, from a batch of states and action paths.

    Where ``planned_HS`` says so actions count as planned ones, else as recorded ones: those that networks add to.
    """

    weights_AHLQ: torch.Tensor
    between_GH: torch.Tensor
    course_ALX: torch.Tensor
    course_GQS: torch.Tensor
    past_HPS: torch.Tensor
    own_HKS: torch.Tensor | None
    action_HQS: torch.Tensor
    offset_HS: torch.Tensor
    tag_centre_S: torch.Tensor
    tag_scale_S: torch.Tensor
    action_centre_A: torch.Tensor
    action_scale_A: torch.Tensor

    def __init__(
        self, core: LinearCore, dtype: torch.dtype = torch.float32, planned_HS: NDArray[np.bool_] | None = None
    ) -> None:
        super().__init__()
        action = core.action_weights
        if planned_HS is not None:
            action = np.where(planned_HS[:, None], core.planned_weights, action)
        ahead = course_ticks(core.step_s)
        between_GH, path = between(ahead), path_weights(core.step_s, dead=core.dead, ends=ahead)
        buffers = {
            "weights_AHLQ": path_weights(core.step_s, dead=core.dead),
            "between_GH": between_GH,
            "course_ALX": path.transpose(0, 2, 1, 3).reshape(*path.shape[::2], len(ahead) * SUMMARIES),
            "course_GQS": np.einsum("gh,hqs->gqs", between_GH, action),
            "past_HPS": core.past_weights,
            "action_HQS": action,
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

    def summary(self, paths_NLA: torch.Tensor, action_A: torch.Tensor, waiting_DA: torch.Tensor) -> torch.Tensor:
        """Action summaries [N, H, A * Q] of paths in engineering units from scaled actions: in force, on their way."""
        whole_NLA = self._whole(paths_NLA, action_A, waiting_DA)
        return torch.einsum("nla,ahlq->nhaq", whole_NLA, self.weights_AHLQ).flatten(2)

    def held(self, action_A: torch.Tensor, waiting_DA: torch.Tensor) -> torch.Tensor:
        """The summaries [1, H, A * Q] of staying at the last action that was asked for."""
        ahead_LA = waiting_DA[-1:].expand(ACTION_STEPS, -1) * self.action_scale_A + self.action_centre_A
        return self.summary(ahead_LA[None], action_A, waiting_DA)

    def _whole(self, paths_NLA: torch.Tensor, action_A: torch.Tensor, waiting_DA: torch.Tensor) -> torch.Tensor:
        """Scaled differences from the actions in force: what is on its way, then the paths."""
        ahead_NLA = (paths_NLA - self.action_centre_A) / self.action_scale_A
        return torch.cat([waiting_DA.expand(len(ahead_NLA), -1, -1), ahead_NLA], 1) - action_A

    def course(
        self,
        past_P: torch.Tensor,
        tags_S: torch.Tensor,
        paths_NLA: torch.Tensor,
        action_A: torch.Tensor,
        waiting_DA: torch.Tensor,
    ) -> torch.Tensor:
        """Mean [N, G, S] in engineering units at the end of each step of the action grid.

        Between two horizons the weights of both are mixed, on a summary of the path until then.
        """
        whole_ANL = self._whole(paths_NLA, action_A, waiting_DA).permute(2, 0, 1)
        A, N, G = len(whole_ANL), len(paths_NLA), len(self.between_GH)
        seen_ANGQ = torch.bmm(whole_ANL, self.course_ALX).view(A, N, G, SUMMARIES)
        summary_GNQ = seen_ANGQ.permute(2, 1, 0, 3).reshape(G, N, A * SUMMARIES)
        still_GS = tags_S + self.between_GH @ self.base(past_P[None])[0]
        scaled_GNS = still_GS[:, None] + torch.bmm(summary_GNQ, self.course_GQS)
        return (scaled_GNS * self.tag_scale_S + self.tag_centre_S).transpose(0, 1)

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
