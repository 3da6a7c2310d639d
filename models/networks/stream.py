"""Contexts of consecutive ticks, one at a time or in bulk, with what must be carried between pieces.

A tick without any data keeps the latent that was predicted for it (filter mode).
Shape letters: T ticks, W window, X inputs, A actions, D context, L latent, Q action summaries, G lags.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.actions import lag_alphas
from models.averages import ewma
from models.networks.clips import ActionMemory
from models.networks.jepa import Jepa
from models.scaling import Floats

TRAIL_TICKS = 32  # the farthest innovation
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Trail:
    """Consecutive ticks as predictions start from them: inputs [T, X], context [T, D], latent [T, L], actions."""

    inputs_TX: Tensor
    context_TD: Tensor
    z_TL: Tensor
    actions: ActionMemory

    def __len__(self) -> int:
        return len(self.z_TL)

    def last(self, ticks: int) -> Trail:
        """The last ticks."""
        part = slice(max(0, len(self) - ticks), len(self))
        memory = self.actions
        kept = ActionMemory(memory.action_NA[part], memory.total_NA[part], memory.smooth_NAL[part], memory.step_s)
        return Trail(self.inputs_TX[part], self.context_TD[part], self.z_TL[part], kept)


def continued(before: ActionMemory | None, action: Floats, step_s: float, device: torch.device) -> ActionMemory:
    """The sums over scaled actions [T, A] that follow on from ``before``, which is kept in front."""
    if before is None or not len(before.action_NA):
        return _on(ActionMemory.of(action, step_s), device)
    smooth = [
        ewma(action, alpha, before.smooth_NAL[-1, :, i].cpu().numpy())[0] for i, alpha in enumerate(lag_alphas(step_s))
    ]
    total = before.total_NA[-1].cpu().numpy() + np.cumsum(action, 0)
    new = _on(
        ActionMemory(torch.from_numpy(action), torch.from_numpy(total), torch.from_numpy(np.stack(smooth, 2)), step_s),
        device,
    )
    return ActionMemory(
        torch.cat([before.action_NA, new.action_NA]),
        torch.cat([before.total_NA, new.total_NA]),
        torch.cat([before.smooth_NAL, new.smooth_NAL]),
        step_s,
    )


def _on(memory: ActionMemory, device: torch.device) -> ActionMemory:
    return ActionMemory(
        memory.action_NA.to(device), memory.total_NA.to(device), memory.smooth_NAL.to(device), memory.step_s
    )


class Unroller:
    """Fills a trail tick by tick or in bulk; one use per piece of a stream."""

    def __init__(
        self, model: Jepa, before: Trail | None, linear_TR: Tensor, past_TP: Tensor, actions: ActionMemory
    ) -> None:
        config = model.config
        self.model = model
        self.first = 0 if before is None else len(before)
        ticks, device = self.first + len(past_TP), past_TP.device
        width = linear_TR.shape[1] + config.latent + past_TP.shape[1]
        self.inputs = torch.zeros(ticks, width, device=device)
        self.context = torch.zeros(ticks, config.context, device=device)
        self.z = torch.zeros(ticks, config.latent, device=device)
        self.actions = actions
        self.linear, self.past = linear_TR, past_TP
        if before is not None:
            self.inputs[: self.first] = before.inputs_TX
            self.context[: self.first] = before.context_TD
            self.z[: self.first] = before.z_TL

    def run(self, seen_TL: Tensor, empty_T: Tensor) -> Trail:
        """Latents as seen, except at empty ticks, where the prediction of the tick before stands."""
        ticks = len(seen_TL)
        stops = [*torch.nonzero(empty_T)[:, 0].tolist(), ticks]
        start = 0
        for stop in stops:
            if stop > start:
                self._fill(start, stop, seen_TL[start:stop])
            if stop < ticks:
                known = self.first + stop > 0
                self._fill(stop, stop + 1, self._predicted(self.first + stop) if known else seen_TL[stop : stop + 1])
            start = stop + 1
        return Trail(self.inputs, self.context, self.z, self.actions)

    def _predicted(self, tick: int) -> Tensor:
        before = slice(tick - 1, tick)
        return predicted(self.model, self.context[before], self.z[before], self.actions, tick - 1, 1, 0)

    def _fill(self, start: int, stop: int, z_TL: Tensor) -> None:
        a, b = self.first + start, self.first + stop
        self.z[a:b] = z_TL
        self.inputs[a:b] = self.model.inputs(self.linear[start:stop], z_TL, self.past[start:stop])
        self.context[a:b] = self._contexts(a, b)

    def _contexts(self, a: int, b: int) -> Tensor:
        """Contexts of ticks ``a`` to ``b``, each from its own window of the last W ticks."""
        window = self.model.config.window_ticks
        action = self.actions.action_NA.float()
        parts = []
        if a < window - 1:
            early = min(b, window - 1)
            made = self.model.predictor(self.inputs[None, :early], action[None, :early])
            parts.append(made[0, a:early])
        for start in range(max(a, window - 1), b, CHUNK):
            stop = min(b, start + CHUNK)
            span = slice(start - window + 1, stop)
            inputs, actions = (x[span].unfold(0, window, 1).transpose(1, 2) for x in (self.inputs, action))
            parts.append(self.model.predictor(inputs, actions)[:, -1])
        return torch.cat(parts)


def predicted(
    model: Jepa, context_TD: Tensor, z_TL: Tensor, actions: ActionMemory, start: int, ticks: int, row: int
) -> Tensor:
    """Latents [T, L] forecast ``ticks`` ahead (row ``row`` of the horizons) from consecutive ticks from ``start``."""
    now = torch.arange(start, start + len(z_TL), device=z_TL.device)
    summary = actions.summary(now, now + ticks, torch.full_like(now, ticks)).float()
    return torch.as_tensor(model.heads(context_TD, z_TL, summary[:, None], slice(row, row + 1))[1][:, 0])
