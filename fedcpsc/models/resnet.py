# SPDX-License-Identifier: Apache-2.0
"""ResNet in its form for small images: 3x3 stem without pooling, four stages (He et al. 2015, arXiv 1512.03385)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fedcpsc.models.classifier import HeadedClassifier, Pointwise, channels_last, pooled

__all__ = ["ResNet"]


class ResNet(HeadedClassifier):
    """Stages of basic blocks with widths w, 2w, 4w, 8w; ResNet-18 has 11,173,962 parameters for CIFAR-10.

    Args:
        classes: K.
        image_shape: (C, H, W).
        blocks: basic blocks of each stage; (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) ResNet-34.
        width: w, 64 as published.
    """

    followed_by_norm = (("stem", "norm"),)

    def __init__(
        self, classes: int, image_shape: tuple[int, int, int], blocks: tuple[int, ...], width: int = 64
    ) -> None:
        super().__init__(classes, image_shape, width * 2 ** (len(blocks) - 1))
        self.stem = nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        body: list[nn.Module] = []
        before = width
        for stage, count in enumerate(blocks):
            after = width * 2**stage
            for block in range(count):
                body.append(_BasicBlock(before, after, stride=2 if stage and not block else 1))
                before = after
        self.body = nn.Sequential(*body)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 8w]."""
        return pooled(self.body(F.relu(self.norm(channels_last(self.stem(x))))))


class _BasicBlock(nn.Module):
    followed_by_norm = (("first", "first_norm"), ("second", "second_norm"))

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(Pointwise(before, after, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(y + self.shortcut(x))
