# SPDX-License-Identifier: Apache-2.0
"""Networks as copies for passes without training: batch norms are part of the convolutions before them.

In evaluation mode a batch norm is an affine map of each channel (Ioffe and Szegedy 2015, arXiv 1502.03167), and so is
what remains of it when it follows a convolution: another weight and a bias. The mathematics is the same, a pass over
the feature maps is saved; outputs differ by float rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import nn

from fedcpsc.models.classifier import Classifier, HeadedClassifier
from fedcpsc.models.frozen import frozen
from fedcpsc.models.frozen_body import FrozenBody

__all__ = ["folded", "for_inference"]


@contextmanager
def for_inference(networks: Sequence[Classifier]) -> Iterator[list[Classifier]]:
    """The networks as they are now, in the form in which passes without training are fastest.

    Networks of this project are folded copies, see `folded`. Of others it is not known which layer follows which, and a
    frozen body may be one of them: they are the given ones, in evaluation mode within the context.

    Args:
        networks: networks in any mode, which is as it was after the context.
    """
    with frozen([network for network in networks if not _foldable(network)]):
        yield [folded(network) if _foldable(network) else network for network in networks]


def _foldable(network: Classifier) -> TypeGuard[HeadedClassifier]:
    return isinstance(network, HeadedClassifier) and not isinstance(network, FrozenBody)


def folded(network: HeadedClassifier) -> HeadedClassifier:
    """A copy in evaluation mode, without gradients, its convolutions and the batch norms after them made one.

    Args:
        network: network in any mode; it is left as it is.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(copied.modules()):
        for before, after in _pairs(module):
            convolution, norm = module.get_submodule(before), module.get_submodule(after)
            # a subclass may compute something else
            if isinstance(convolution, nn.Conv2d) and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
                _replace(module, before, _joined(convolution, norm))
                _replace(module, after, nn.Identity())
    return copied.to(memory_format=copied.memory_format)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of submodules of which the second takes the first one's output, which nothing else takes."""
    own = getattr(module, "followed_by_norm", ())
    return (
        [*own, *pairwise(name for name, _ in module.named_children())] if isinstance(module, nn.Sequential) else [*own]
    )


def _joined(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution: of norm(conv(x)) = scale * (weight * x + bias - mean) + shift."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # noqa: S101 - `folded` takes no other
    assert variance is not None  # noqa: S101 - as above
    scale = torch.rsqrt(variance + norm.eps)
    shift = torch.zeros_like(mean)
    if norm.affine:
        scale, shift = scale * norm.weight, norm.bias.detach().clone()
    bias = torch.zeros_like(mean) if convolution.bias is None else convolution.bias
    with torch.device("meta"):
        joined = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            convolution.stride,  # type: ignore[arg-type]
            convolution.padding,  # type: ignore[arg-type]
            convolution.dilation,  # type: ignore[arg-type]
            convolution.groups,
            padding_mode=convolution.padding_mode,
        )
    joined.weight = nn.Parameter(convolution.weight * scale[:, None, None, None], requires_grad=False)
    joined.bias = nn.Parameter((bias - mean) * scale + shift, requires_grad=False)
    return joined.eval()


def _replace(module: nn.Module, name: str, by: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, by)
