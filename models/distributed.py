"""Processes that train one model together: rows of the global batch for each, statistics of all of it for every one.

Inside ``together()`` the leading axis of a tensor holds this process's rows of the global batch, in the order of
processes. Random numbers are drawn for the global batch and then shared out, and sums run over all processes, so that
neither a loss nor its gradient depends on how many there are. Alone, and outside, all of it is the identity.
The gradient of a sum over processes is a sum over processes too: each then has the gradient of the loss by its own rows
times the number of processes, and DDP and FSDP take the mean of these. Processes are started by torchrun.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fusion.errors import ConfigError, FusionError

T = TypeVar("T")
K = TypeVar("K")
LONGEST_WAIT = timedelta(days=1)  # for what the first process does alone: it may read for hours


@dataclass(slots=True)
class _Groups:
    """Groups of our own, so that no sum is taken for one of DDP's or FSDP's; ``together`` while a loss is computed."""

    sums: Any = None
    waits: Any = None
    together: bool = False


_groups = _Groups()


# --- who


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if _groups.sums is not None else 1


def rank() -> int:
    """Place of this process among all; the first reads, writes and speaks."""
    return dist.get_rank() if _groups.sums is not None else 0


def is_first() -> bool:
    """Whether this process speaks for all; known before they have met."""
    return int(os.environ.get("RANK", "0")) == 0


def local(name: str, alone: int) -> int:
    """``RANK`` or ``WORLD_SIZE`` of this process on its own machine."""
    return int(os.environ.get(f"LOCAL_{name}", alone))


def per_rank(rows: int) -> int:
    """Rows of each process.

    Raises:
        ConfigError: where they cannot be shared out evenly.
    """
    if rows % count():
        raise ConfigError(f"train.batch: {rows} is not accepted; expected a multiple of the {count()} processes")
    return rows // count()


def device(choice: str) -> torch.device:
    """``cpu``, ``cuda``, or ``auto``: a GPU of this process's own where there are any.

    Raises:
        ConfigError: where there is no GPU for it.
    """
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    found, own = torch.cuda.device_count() if torch.cuda.is_available() else 0, local("RANK", 0)
    if own >= found:
        raise ConfigError(f"train.device: {own + 1} processes on a machine with {found} GPUs; start one for each")
    return torch.device("cuda", own)


@contextmanager
def joined(place: torch.device, timeout_s: float) -> Iterator[None]:
    """Meet the other processes, if torchrun started any; none waits longer than this for another's part of a step."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    backend = "gloo"
    if place.type == "cuda":
        torch.cuda.set_device(place)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    _groups.sums, _groups.waits = dist.new_group(), dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    try:
        yield
        dist.destroy_process_group()  # not after an error: the others may be waiting, and the end of this one ends them
    finally:
        _groups.sums = _groups.waits = None


# --- one decides or speaks for all


def agreed(value: T) -> T:
    """The first process's value, such as a time or a score, for all."""
    if count() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_groups.waits, device=torch.device("cpu"))
    return box[0]


def led(make: Callable[[], tuple[T, K]]) -> tuple[T, K | None]:
    """What the first process makes: one part to share with all, one it keeps. Where it fails, all end.

    Raises:
        SystemExit: in the others, with its exit code.
    """
    if count() == 1:
        return make()
    if not is_first():
        code, shared = agreed((0, None))
        if code:
            raise SystemExit(code)
        return shared, None  # type: ignore[return-value]
    try:
        made = make()
    except BaseException as error:
        agreed((error.exit_code if isinstance(error, FusionError) else 1, None))
        raise
    agreed((0, made[0]))
    return made


@contextmanager
def one_voice() -> Iterator[None]:
    """What all processes find wrong alike is said by the first."""
    try:
        yield
    except FusionError as error:
        if is_first():
            raise
        raise SystemExit(error.exit_code) from error


# --- one batch


@contextmanager
def together() -> Iterator[None]:
    """The computation of one loss by all processes."""
    _groups.together = count() > 1
    try:
        yield
    finally:
        _groups.together = False


def share(rows: Tensor) -> Tensor:
    """Rows of this process, of what all have."""
    if not _groups.together:
        return rows
    own = per_rank(len(rows))
    return rows[rank() * own : (rank() + 1) * own]


def rows(draw: Callable[[int], Tensor], own: int) -> Tensor:
    """Rows of this process, ``own`` of what ``draw`` makes at random for a number of rows; all must draw alike."""
    return share(draw(own * count() if _groups.together else own))


class _Sum(torch.autograd.Function):
    """Ours: torch's all-reduce with a gradient (torch.distributed.nn) is deprecated for one in a private module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        made = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(made, group=_groups.sums)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(None, gradients[0])


def total(x: Tensor) -> Tensor:
    """Sum of each process's ``x``."""
    return torch.as_tensor(_Sum.apply(x)) if _groups.together else x  # type: ignore[no-untyped-call]


def length(x: Tensor) -> Tensor:
    """Rows of ``x`` in all processes; they may have different numbers."""
    return total(torch.full((), float(len(x)), device=x.device))


def mean(x: Tensor) -> Tensor:
    """Mean over the rows of all processes."""
    if not _groups.together:
        return x.mean(0)
    sums = total(torch.cat([x.sum(0).flatten(), x.new_full((1,), len(x))]))
    return (sums[:-1] / sums[-1]).reshape(x.shape[1:])


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean where valid, in all processes; zero where nothing is."""
    sums = total(torch.stack([(values * valid).sum(), valid.sum().to(values.dtype)]))
    return sums[0] / sums[1].clamp_min(1)


def var_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (not corrected) and mean over the rows of all processes."""
    if not _groups.together:
        variance, centre = torch.var_mean(x, 0, correction=0)
        return variance, centre
    centre = mean(x)
    return mean((x - centre).square()), centre
