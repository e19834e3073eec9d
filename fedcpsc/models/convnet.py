# SPDX-License-Identifier: Apache-2.0
"""The project's small ConvNet: a teacher or student that trains in seconds on one core."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from torch import Tensor, nn

from fedcpsc.models.classifier import HeadedClassifier, channels_last, pooled

__all__ = ["ConvNet", "group_norm"]


def group_norm(channels: int) -> nn.Module:
    """GroupNorm with up to 8 groups of at least 4 channels: no statistics across images, as DP-SGD demands."""
    groups = max(g for g in range(1, 9) if channels % g == 0 and (g == 1 or channels // g >= 4))
    return nn.GroupNorm(groups, channels)


class ConvNet(HeadedClassifier):
    """Stages of 3x3 convolution, norm and ReLU, halved by max-pooling in between; the last stage has two convolutions.

    Widths are w, 2w, 4w, ... Three stages up to 32x32, one more for each doubling: the last map has at most 8x8 pixels.
    A side of one pixel is halved no further, so that an electrocardiogram of 8x300 pixels has its stages too.

    Args:
        classes: K.
        image_shape: (C, H, W), sides of at least 4.
        width: w, channels of the first stage.
        norm: channels -> the norm layer.
    """

    followed_by_norm = (("stem", "body.0"),)

    def __init__(
        self,
        classes: int,
        image_shape: tuple[int, int, int],
        width: int = 16,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        stages = max(3, 1 + math.ceil(math.log2(max(image_shape[1:]) / 8)))
        widths = [width * 2**stage for stage in range(stages)]
        super().__init__(classes, image_shape, widths[-1])
        self.stem = nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)
        layers: list[nn.Module] = [norm(width), nn.ReLU()]
        height, breadth = image_shape[1:]
        for before, after in itertools.pairwise(widths):
            halved = (min(2, height), min(2, breadth))
            layers += [nn.MaxPool2d(halved), *_convolution(before, after, norm)]
            height, breadth = height // halved[0], breadth // halved[1]
        layers += _convolution(widths[-1], widths[-1], norm)
        self.body = nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D], D = 4w up to 32x32."""
        return pooled(self.body(channels_last(self.stem(x))))


def _convolution(before: int, after: int, norm: Callable[[int], nn.Module]) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), norm(after), nn.ReLU()]
