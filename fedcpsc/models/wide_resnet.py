# SPDX-License-Identifier: Apache-2.0
"""Wide ResNet, WRN-depth-factor (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fedcpsc.models.classifier import HeadedClassifier, Pointwise, channels_last, pooled

__all__ = ["WideResNet"]


class WideResNet(HeadedClassifier):
    """Three stages of pre-activation blocks, widths 16k, 32k, 64k; WRN-40-2 has 2,243,546 parameters for CIFAR-10.

    Args:
        classes: K.
        image_shape: (C, H, W).
        depth: 6n + 4; n blocks in each stage.
        factor: k.
    """

    def __init__(self, classes: int, image_shape: tuple[int, int, int], depth: int, factor: int) -> None:
        super().__init__(classes, image_shape, 64 * factor)
        self.stem = nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False)
        body: list[nn.Module] = []
        before = 16
        for stage in range(3):
            after = 16 * factor * 2**stage
            for block in range((depth - 4) // 6):
                body.append(_PreActivationBlock(before, after, stride=2 if stage and not block else 1))
                before = after
        self.body = nn.Sequential(*body)
        self.norm = nn.BatchNorm2d(before)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 64k]."""
        return pooled(F.relu(self.norm(self.body(channels_last(self.stem(x))))))


class _PreActivationBlock(nn.Module):
    followed_by_norm = (("first", "second_norm"),)

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(before)
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if before != after:
            self.shortcut = Pointwise(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.first_norm(x))
        # where the width changes, the shortcut too starts from the activated input
        past: Tensor = x if self.shortcut is None else self.shortcut(activated)
        y: Tensor = self.second(F.relu(self.second_norm(self.first(activated))))
        return past + y
