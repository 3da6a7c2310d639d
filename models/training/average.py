"""The average of the weights over the last steps: what is validated, kept and served instead of the weights themselves.

Single steps scatter around where training is going; their average lies nearer to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

SOONEST = 10  # steps: at step n the average reaches back over about n / SOONEST, until that is as far as it may


class Average:
    """An exponential moving average of a module's trained parameters; ``keep`` is what a step leaves of it, 0 nothing.

    Source: Polyak and Juditsky 1992; with warm-up as in Tan and Le 2019.
    """

    def __init__(self, module: nn.Module, keep: float) -> None:
        self.keep = keep
        self._fast = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._slow = {name: p.detach().clone() for name, p in self._fast.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move towards the parameters as they are after ``step`` steps."""
        keep = min(self.keep, (1 + step) / (SOONEST + step))
        move = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        move(list(self._slow.values()), list(self._fast.values()), step)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the module has the average for its parameters; buffers are the caller's to settle."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, fast in self._fast.items():
            aside = fast.detach().clone()
            fast.copy_(self._slow[name])
            self._slow[name].copy_(aside)

    def state(self) -> dict[str, Tensor]:
        """Tensors to keep, by the name of the parameter."""
        return {name: value.clone() for name, value in self._slow.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of ``state``.

        Raises:
            RuntimeError: where the parameters are not those of this module.
        """
        if set(state) != set(self._slow):
            raise RuntimeError(f"averages of {len(state)} parameters, {len(self._slow)} expected")
        for name, value in state.items():
            self._slow[name].copy_(value)
