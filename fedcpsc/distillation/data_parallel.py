# SPDX-License-Identifier: Apache-2.0
"""One batch shared among processes, each of which takes its part through the network.

Every process draws the same rows and the same views of them, and passes its own part. Logits and features, which are
small beside images, are gathered: so every process has the loss of the whole batch, also where it compares images with
each other. Gradients flow through a process's own part and are summed over all by torch's DistributedDataParallel (Li
et al. 2020, arXiv 2006.15704). Batch norm takes mean and variance of the whole batch, as SyncBatchNorm does, which
torch has for GPUs alone. What comes out is what one process finds, but for the order in which floats are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fedcpsc.config import Precision
from fedcpsc.models.device import forward_float32
from fedcpsc.models.registry import Classifier

__all__ = ["ONE_PROCESS", "Networks", "Passes", "Rank"]

Passes: TypeAlias = Callable[[list[Tensor]], list[tuple[Tensor, Tensor]]]
"""Views of a batch, each [B, C, H, W] -> for each its logits [B, K] and features [B, D]."""


@dataclass(frozen=True)
class Rank:
    """This process among those that share every batch.

    Attributes:
        index: number of its part of a batch, in [0, world_size).
        world_size: number of processes, each with a part of equal size, >= 1.
    """

    index: int = 0
    world_size: int = 1


ONE_PROCESS = Rank()
"""The whole batch, without other processes."""


class Networks:
    """How this process passes batches through networks, over a whole run: alone, or as one of several.

    What a network is wrapped in is kept: torch's DistributedDataParallel compares and broadcasts weights when it is
    made, and a compiled network is compiled once.

    Args:
        rank: this process among those that share every batch.
        compiled: whether passes are compiled by torch.compile, on a GPU with CUDA graphs; for one process alone.
        backend: name of a backend of torch.compile, or the backend itself.
    """

    def __init__(
        self, rank: Rank = ONE_PROCESS, *, compiled: bool = False, backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        self.rank = rank
        self._compiled, self._backend = compiled, backend
        self._kept: list[tuple[Classifier, Callable[..., list[tuple[Tensor, Tensor]]]]] = []

    @contextmanager
    def passes(self, network: Classifier, precision: Precision | None = "float32") -> Iterator[Passes]:
        """How to pass a batch through the network; with other processes they all must, as often, with the same batches.

        Entered for the first time together with the others, of torch's default process group: all then have rank 0's
        weights and buffers. Within, gradients are summed over the processes and divided by their number: multiply the
        loss by `rank.world_size`.

        Args:
            network: network in training mode; its batch size must be divisible by `rank.world_size`.
            precision: number format of the passes, the same at every call for a network; logits and features are
                float32 in any case.
        """
        wrapped = self._wrapped(network, precision)
        if self.rank.world_size == 1:
            yield lambda views: wrapped(*views)
            return
        rank = self.rank
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.__dict__["forward"] = partial(_normalise, norm, rank.world_size)
        try:
            yield lambda views: [
                (_gather(logits, rank), _gather(features, rank))
                for logits, features in wrapped(*(view.chunk(rank.world_size)[rank.index] for view in views))
            ]
        finally:  # a copy of the network must not be given this one's norms
            for norm in norms:
                del norm.__dict__["forward"]

    def _wrapped(self, network: Classifier, precision: Precision | None) -> Callable[..., list[tuple[Tensor, Tensor]]]:
        for known, wrapped in self._kept:
            if known is network:
                return wrapped
        views = _SeveralViews(network, precision)
        made: Callable[..., list[tuple[Tensor, Tensor]]] = views
        if self.rank.world_size > 1:
            made = DistributedDataParallel(views)
        elif self._compiled:
            made = compiled(views, next(network.parameters()).device, self._backend)
        self._kept.append((network, made))
        return made


def compiled(
    views: nn.Module, device: torch.device, backend: str | Callable[..., Any] = "inductor"
) -> Callable[..., list[tuple[Tensor, Tensor]]]:
    """The passes compiled at their first call; on a GPU as CUDA graphs, which a step replays.

    Args:
        views: module that passes several views of a batch.
        device: device of its weights.
        backend: name of a backend of torch.compile, or the backend itself.
    """
    on_gpu = device.type == "cuda"
    mode = "reduce-overhead" if on_gpu and backend == "inductor" else None
    passed = torch.compile(views, backend=backend, mode=mode)

    def call(*given: Tensor) -> list[tuple[Tensor, Tensor]]:
        if on_gpu:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call] # what the last step left is used
        found: list[tuple[Tensor, Tensor]] = passed(*given)
        return found

    return call


class _SeveralViews(nn.Module):
    """All passes of a step as one: DistributedDataParallel takes one forward for each backward."""

    def __init__(self, network: Classifier, precision: Precision | None) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, *views: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [forward_float32(self.network, view, self.precision) for view in views]


def _gather(own: Tensor, rank: Rank) -> Tensor:
    """All processes' parts in order, [B, ...]; only the own one has a gradient."""
    parts = [torch.empty_like(own) for _ in range(rank.world_size)]
    dist.all_gather(parts, own.detach().contiguous())
    parts[rank.index] = own
    return torch.cat(parts)


def _normalise(norm: nn.BatchNorm2d, processes: int, x: Tensor) -> Tensor:
    """Batch norm (Ioffe and Szegedy 2015, arXiv 1502.03167) over the equal parts of all processes."""
    if not norm.training:
        return nn.BatchNorm2d.forward(norm, x)
    given, x = x.dtype, x.float()
    mean = _summed(x.mean((0, 2, 3))) / processes
    centred = x - mean[:, None, None]
    variance = _summed(centred.square().mean((0, 2, 3))) / processes  # two passes: the mean of squares would cancel
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        step = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)
        count = processes * x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean.detach(), step)
        norm.running_var.lerp_(variance.detach() * count / (count - 1), step)
    scaled = centred * torch.rsqrt(variance + norm.eps)[:, None, None]
    if not norm.affine:
        return scaled.to(given)
    return (scaled * norm.weight[:, None, None] + norm.bias[:, None, None]).to(given)


class _Sum(torch.autograd.Function):
    """Over all processes; so are the gradients on their way back."""

    @staticmethod
    def forward(ctx: object, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, own: Tensor) -> Tensor:
        return _Sum.forward(ctx, own)


def _summed(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)
    return total
