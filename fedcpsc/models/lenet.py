# SPDX-License-Identifier: Apache-2.0
"""LeNet-5 (LeCun et al. 1998), with ReLU and max-pooling as it is used today."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fedcpsc.models.classifier import HeadedClassifier

__all__ = ["LeNet5"]

_SIDE = 32  # its input layer; other sizes are brought to it


class LeNet5(HeadedClassifier):
    """Two 5x5 convolutions and three linear layers; 61,706 parameters for one channel and 10 classes.

    Args:
        classes: K.
        image_shape: (C, H, W); images of another size than 32x32 are resized (bilinear), as its authors did by padding.
    """

    def __init__(self, classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__(classes, image_shape, feature_size=84)
        self.body = nn.Sequential(
            nn.Conv2d(image_shape[0], 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 84]."""
        if x.shape[2:] != (_SIDE, _SIDE):
            x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
        features: Tensor = self.body(x)
        return features
