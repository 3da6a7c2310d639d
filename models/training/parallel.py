"""The networks on several processes: replicas with DDP, shards with FSDP2, or neither; full tensors in and out.

Source: Zhao et al. 2023 for sharding; https://docs.pytorch.org/docs/stable/distributed.html.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from models import distributed
from models.networks.jepa import Jepa
from models.networks.mixer import MixerLayer
from models.networks.predictor import AdaptiveLayer, HorizonLayers

T = TypeVar("T")
COMPILED = (MixerLayer, AdaptiveLayer)
SHARDED = (*COMPILED, HorizonLayers)  # tensors in, one tensor out, as often in every process


class Parallel(StrEnum):
    """How processes share the networks: each has a replica, or each a shard of every tensor, or as their size wants."""

    AUTO = "auto"
    DDP = "ddp"
    FSDP = "fsdp"


class Whole(nn.Module):
    """The networks as one call, as DDP and FSDP want them: whatever is asked of them is asked inside ``forward``."""

    def __init__(self, model: Jepa) -> None:
        super().__init__()
        self.model = model
        # DDP need not send buffers about: every process has computed the same
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    def forward(self, ask: Callable[[Jepa], T]) -> T:
        """The answer."""
        return ask(self.model)


class Networks:
    """Networks to train, alone or by several processes; changes ``model`` in place, so optimisers come after."""

    def __init__(self, model: Jepa, parallel: Parallel, *, compiled: bool = False) -> None:
        self._whole = Whole(model)
        self._replica: DistributedDataParallel | None = None
        self._replicated = distributed.count() > 1 and parallel is Parallel.DDP
        if compiled:
            _compile(model)
        if distributed.count() > 1 and parallel is Parallel.FSDP:
            _shard(self._whole)

    def train(self, ask: Callable[[Jepa], T], *, partly: bool = False) -> T:
        """The answer of all processes together, each for its rows of the batch; gradients are averaged over them.

        ``partly`` says that it needs some of the networks only.
        """
        with distributed.together():
            answer: T = self._ready(partly)(ask)
        return answer

    def _ready(self, partly: bool) -> nn.Module:
        """DDP must know beforehand whether to look for parameters that are not used."""
        if not self._replicated:
            return self._whole
        if self._replica is None or self._replica.find_unused_parameters != partly:
            self._replica = DistributedDataParallel(self._whole, find_unused_parameters=partly)
        return self._replica

    @torch.no_grad()
    def rest(self, ask: Callable[[Jepa], T]) -> T:
        """The answer in each process by itself; all must ask the same."""
        answer: T = self._whole(ask)
        if isinstance(self._whole, FSDPModule):
            self._whole.reshard()
        return answer


def _shard(whole: Whole) -> None:
    mesh = init_device_mesh(whole.model.device.type, (distributed.count(),))
    for module in whole.modules():
        if isinstance(module, SHARDED):
            fully_shard(module, mesh=mesh)
    fully_shard(whole, mesh=mesh)


def _compile(model: Jepa) -> None:
    """Block by block: what surrounds them has shapes and branches that follow the data."""
    for module in model.modules():
        if isinstance(module, COMPILED):
            made: Any = torch.compile(module.forward, dynamic=True)
            module.forward = made  # type: ignore[method-assign]


def full(tensor: Tensor) -> Tensor:
    """A copy of the whole of a tensor that may be sharded; all processes must ask."""
    if not isinstance(tensor, DTensor):
        return tensor.detach().clone()
    if not tensor.numel():  # what is empty cannot be gathered
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return tensor.full_tensor().detach()


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor, on the device of another and sharded as it is."""
    made = tensor.to(like.device, copy=True)
    if not isinstance(like, DTensor):
        return made
    return distribute_tensor(made, like.device_mesh, like.placements, src_data_rank=None)
