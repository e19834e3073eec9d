# SPDX-License-Identifier: Apache-2.0
"""VGG-11 with batch norm for small images: one linear layer after global pooling (Simonyan and Zisserman 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from fedcpsc.models.classifier import HeadedClassifier, channels_last, pooled

__all__ = ["Vgg11"]

_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class Vgg11(HeadedClassifier):
    """Eight 3x3 convolutions in five stages; 9,231,114 parameters for CIFAR-10.

    Args:
        classes: K.
        image_shape: (C, H, W).
    """

    followed_by_norm = (("stem", "body.0"),)

    def __init__(self, classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__(classes, image_shape, feature_size=512)
        self.stem = nn.Conv2d(image_shape[0], 64, 3, padding=1)
        layers: list[nn.Module] = [nn.BatchNorm2d(64), nn.ReLU()]
        before = 64
        for stage in _STAGES[1:]:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # so that 8x8 images survive four halvings
            for after in stage:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
        self.body = nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 512]."""
        return pooled(self.body(channels_last(self.stem(x))))
