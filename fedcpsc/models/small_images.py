# SPDX-License-Identifier: Apache-2.0
"""Whether a network of a library was made for larger images than it is to see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcpsc.models.adapted import Adapted
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.frozen_body import FrozenBody
from fedcpsc.models.seeded import seeded

__all__ = ["made_for_larger"]


def made_for_larger(name: str, network: Classifier, image_shape: tuple[int, int, int]) -> str | None:
    """A line for whoever chose the network; None for a network of this project, or one that sees enough.

    Args:
        name: name of the network.
        network: the network; it computes two black images.
        image_shape: (C, H, W) of the images.
    """
    whole = network.network if isinstance(network, FrozenBody) else network
    if not isinstance(whole, Adapted) or not _sees_one_pixel(whole):
        return None
    return (
        f"{name} was made for larger images: of {image_shape[2]}x{image_shape[1]} pixels its last convolutions see a"
        " single one; networks of this project, such as convnet and resnet18, keep small images larger, and"
        " data.image_size enlarges images"
    )


def _sees_one_pixel(network: Classifier) -> bool:
    """Whether the last convolution with a kernel gives one pixel of each of its channels."""
    sides: list[int] = []

    def note(_: nn.Module, __: object, out: Tensor) -> None:
        sides.append(out.shape[2] * out.shape[3])

    kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    watches = [layer.register_forward_hook(note) for layer in kernels]
    device = next(network.parameters()).device
    try:
        with torch.no_grad(), seeded(0):
            network.eval()(torch.zeros(2, *network.image_shape, device=device))
    finally:
        network.train()
        for each in watches:
            each.remove()
    return bool(sides) and sides[-1] == 1
