# SPDX-License-Identifier: Apache-2.0
"""What public outliers add to a step of DP-SGD.

Formal guarantee: none is needed. The addition is a function of the weights before the step, which are post-processing
of earlier noisy sums, and of public pictures in an order that a public seed decides. No private record, no coin and no
clipped gradient has a part in it; sampling rate, sensitivity and noise of the private sum are what they are without it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedcpsc.data.augment import random_flip, random_shift
from fedcpsc.data.images import to_pixels
from fedcpsc.losses.outlier_exposure import outlier_exposure
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.outliers import Outliers

__all__ = ["PublicGradient"]


class PublicGradient:
    """Gradients of the outliers' loss at a network's present weights.

    Args:
        network: network to be trained, before anything is hooked into it.
        outliers: public pictures.
        config: batch size, shift and flip of the training.
        max_norm: largest L2 norm of the outliers' mean gradient before it is weighted, > 0; as large as a unit's, so
            that they weigh what they should however steep their loss is.
        seed: seed of their order and views; not a secret.
        device: device of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        outliers: Outliers,
        config: TeachersConfig,
        max_norm: float,
        seed: int,
        device: torch.device,
    ) -> None:
        self._bare = copy.deepcopy(network)  # the trained one will keep single records' gradients of what it sees
        self._outliers = outliers.to(device)
        self._config = config
        self._max_norm = max_norm
        self._stream = torch.Generator(device).manual_seed(derive_seed(seed, "outliers", "order"))
        self._count = outliers.beside(config.batch_size)

    def next(self, named: dict[str, nn.Parameter], parameters: Sequence[nn.Parameter]) -> Tensor:
        """What the next outliers add to the private images' mean gradient: float64 [P] on the CPU.

        Args:
            named: the trained network's parameters by name.
            parameters: those that are trained, in the order of the gradient.
        """
        x = random_shift(to_pixels(self._outliers.draw(self._count, self._stream)), self._config.shift, self._stream)
        x = random_flip(x, self._stream) if self._config.flip else x
        logits = torch.func.functional_call(self._bare, dict(named), (x,))
        loss = outlier_exposure(logits, self._outliers.none)
        parts = torch.autograd.grad(loss, list(parameters))
        mean = torch.cat([part.flatten() for part in parts]).double().cpu()
        mean *= (self._max_norm / mean.norm()).clamp(max=1.0).nan_to_num(0.0)
        return mean * self._outliers.weight
