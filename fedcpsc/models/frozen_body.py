# SPDX-License-Identifier: Apache-2.0
"""Networks of which only the linear head is trained; the body gives the features that its weights were made for."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from fedcpsc.models.classifier import Classifier, HeadedClassifier

__all__ = ["FrozenBody"]


class FrozenBody(HeadedClassifier):
    """A classifier in which all but the last linear layer is fixed.

    The body stays in evaluation mode, whatever mode is asked for: batch norms keep their running statistics, so that an
    image's features depend on no other image, but for rounding. No gradient is computed for its weights.

    Args:
        network: network whose weights the body keeps; it is changed: only its head still requires a gradient.
        head: last linear layer of that network, a part of it.
    """

    def __init__(self, network: Classifier, head: nn.Linear) -> None:
        Classifier.__init__(self, network.classes, network.image_shape)  # the head is there already
        self.memory_format = network.memory_format
        self.feature_size = head.in_features
        self.network = network.requires_grad_(False)
        self.head = head.requires_grad_(True)
        self.train(self.training)

    @property
    def stored(self) -> nn.Module:
        """The whole network: its file opens wherever the network is known."""
        return self.network.stored

    @property
    def only_head_learns(self) -> bool:
        """True."""
        return True

    def train(self, mode: bool = True) -> Self:
        """The head's mode; the body's is always evaluation."""
        super().train(mode)
        self.network.eval()
        self.head.train(mode)
        return self

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> inputs of the head [B, D]; with gradients for images that want them, as a generator does."""
        return self.network.forward_with_features(x)[1]
