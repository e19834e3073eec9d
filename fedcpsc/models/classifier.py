# SPDX-License-Identifier: Apache-2.0
"""What every classifier offers, and the little that those of this project share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Classifier", "HeadedClassifier", "Pointwise", "channels_last", "initialise", "pooled"]

_VECTOR = 8  # float32 values in an AVX2 register


class Classifier(nn.Module):
    """An image classifier that also gives the features that its logits are made of.

    Inputs are float32 [B, C, H, W] in [-1, 1].

    Args:
        classes: K.
        image_shape: (C, H, W) it was made for.

    Attributes:
        memory_format: order of its weights in memory on a device; see `device.to_device`.
    """

    memory_format: torch.memory_format = torch.channels_last

    def __init__(self, classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.classes = classes
        self.image_shape = image_shape

    @property
    def stored(self) -> nn.Module:
        """The module whose state dict a file of this network's weights holds."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        logits, _ = self.forward_with_features(x)
        return logits

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (logits [B, K], features [B, D], not normalised) in one pass."""
        raise NotImplementedError


class HeadedClassifier(Classifier):
    """A network of this project: a body that gives features, and a linear head.

    A module of it that passes a convolution's output to a batch norm alone says so in `followed_by_norm`, a tuple of
    pairs of names, (convolution, batch norm); of neighbours in an `nn.Sequential` it is known. See `models.folded`.

    Args:
        classes: K.
        image_shape: (C, H, W) it was made for.
        feature_size: D.
    """

    def __init__(self, classes: int, image_shape: tuple[int, int, int], feature_size: int) -> None:
        super().__init__(classes, image_shape)
        self.feature_size = feature_size
        self.head = nn.Linear(feature_size, classes)

    @property
    def only_head_learns(self) -> bool:
        """Whether all but the head is fixed by the architecture: features are then the same for all weights."""
        return set(self.state_dict()) == {"head.weight", "head.bias"}

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> pooled features [B, D], not normalised."""
        raise NotImplementedError

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (logits [B, K], features [B, D]) in one pass."""
        features = self.features(x)
        logits: Tensor = self.head(features)
        return logits, features


def channels_last(x: Tensor) -> Tensor:
    """On a CPU, x with channels last in memory, which the following layers keep: a third faster for small networks.

    Applied after the first convolution: with one channel the two layouts are the same, and torch then picks the other.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


class Pointwise(nn.Conv2d):
    """A convolution of kernel size 1 without bias.

    With fewer input channels than an AVX2 register holds it computes with channels first: oneDNN's kernel for the
    gradient of such weights writes past its buffer where channels lie last (torch 2.14.1, CPUs with AVX2 but not
    AVX-512), which ends the process.

    Args:
        channels: number of channels of the input.
        filters: number of channels of the output.
        stride: step of the convolution in pixels.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__(channels, filters, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, filters, ceil(H / stride), ceil(W / stride)]."""
        if self.in_channels >= _VECTOR or x.device.type != "cpu":
            return super().forward(x)
        weight = self.weight.flatten(1)[:, :, None, None]  # strides of channels first, whatever the module's layout is
        return F.conv2d(x.contiguous(), weight, stride=self.stride)


def pooled(x: Tensor) -> Tensor:
    """Global average: [B, D, H, W] -> [B, D]."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)  # unlike a mean, its backward pass keeps channels last


def initialise(network: nn.Module) -> None:
    """He et al. 2015 (arXiv 1502.01852) for convolutions, fan out; from torch's global generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
