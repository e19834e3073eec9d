# SPDX-License-Identifier: Apache-2.0
"""Strided convolutions whose gradients a CPU leaves undefined in bfloat16; they compute in float32.

oneDNN errs in bfloat16 where a stride is larger than the image that it moves over, or than its kernel. In version 3.12,
which torch 2.14 brings, weights of such a convolution that touch no pixel get a gradient that nobody wrote: what lay in
that memory before, up to infinity. (A 3x3 kernel of stride 2 over a single pixel: torchvision's ResNets on 8x8 images.)
Forward passes on AMX were wrong where the stride is larger than the kernel (oneDNN, pull request 5494). Layers of the
class `torch.nn.Conv2d` and those derived of it are mended; a module that calls `torch.nn.functional.conv2d` is not.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["make_strides_exact"]

_Network = TypeVar("_Network", bound=nn.Module)


def make_strides_exact(network: _Network) -> _Network:
    """The same network, whose doubtful convolutions compute in float32 on a CPU where the rest computes in bfloat16.

    Outside of mixed precision nothing changes, and state dicts stay what they are.

    Args:
        network: network that is changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and not isinstance(module, _Exact):
            kind: Any = type(module)  # for the types, a class is no key of a cache
            module.__class__ = _exact(kind)
    return network


class _Exact(nn.Conv2d):
    """What the classes that `_exact` makes have in common."""

    def forward(self, input: Tensor, *others: Any, **named: Any) -> Tensor:
        """The convolution of [B, C, H, W]."""
        kind, sides = input.device.type, input.shape[-2:]
        doubtful = any(
            stride > min(side, kernel)
            for stride, side, kernel in zip(self.stride, sides, self.kernel_size, strict=True)
        )
        if kind == "cpu" and doubtful and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return super().forward(input.float(), *others, **named)
        return super().forward(input, *others, **named)


@cache
def _exact(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    return type(kind.__name__, (_Exact, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
