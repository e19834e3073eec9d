# SPDX-License-Identifier: Apache-2.0
"""Small networks, many at a time: every layer works on all shadows at once, and each shadow's gradient is its own.

Linear layers are one batched matrix product, convolutions one grouped convolution; measured on one core with 64
networks, both are faster than `torch.func.vmap` over a module (`docs/audit.md`). There is no batch norm: no statistics
across images, as DP-SGD demands, so that plain and private shadows differ in their training alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Parameters", "ShadowNet", "Tap"]

Parameters: TypeAlias = list[Tensor]
"""Weight and bias of each layer in turn, the shadow's number first: linear [S, I, O] and [S, O]; convolution
[S, O, C, 3, 3] and [S, O]."""


@dataclass(frozen=True)
class Tap:
    """What a layer took and gave, from which each image's own gradient follows.

    Attributes:
        taken: input of the layer: linear [S, B, I]; convolution [B, S * C, H, W].
        given: output of the layer before the non-linearity: linear [S, B, O]; convolution [B, S * O, H, W].
    """

    taken: Tensor
    given: Tensor


@dataclass(frozen=True)
class ShadowNet:
    """An architecture, for any number of shadows.

    Attributes:
        architecture: "mlp": one hidden layer of `width`; "convnet": two 3x3 convolutions of `width` and 2 `width`
            channels, each with ReLU and max-pooling, and a linear head.
        width: number of units or channels, >= 1.
        classes: number of classes K.
        image_shape: (C, H, W), sides of at least 4.
    """

    architecture: Literal["mlp", "convnet"]
    width: int
    classes: int
    image_shape: tuple[int, int, int]

    def initial(self, seeds: Sequence[int]) -> Parameters:
        """One initialisation a seed (He et al. 2015, fan in), float32, with gradient."""
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        parameters = []
        for shape in self._weight_shapes():
            fan_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
            drawn = torch.stack([torch.randn(shape, generator=stream) for stream in streams])
            parameters.append((drawn * math.sqrt(2 / fan_in)).requires_grad_())
            parameters.append(torch.zeros(len(seeds), shape[-1] if len(shape) == 2 else shape[0]).requires_grad_())
        return parameters

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Each shadow's logits [S, B, K] of its own images x [S, B, C, H, W] in [-1, 1]."""
        return self.tapped(parameters, x)[0]

    def tapped(self, parameters: Parameters, x: Tensor) -> tuple[Tensor, list[Tap]]:
        """`logits`, and what every layer took and gave."""
        shadows, batch = x.shape[:2]
        taps = []
        layers = list(zip(parameters[0::2], parameters[1::2], strict=True))
        if self.architecture == "convnet":
            x = x.transpose(0, 1).flatten(1, 2)  # [B, S C, H, W]
            for weight, bias in layers[:2]:
                given = F.conv2d(x, weight.flatten(0, 1), bias.flatten(), padding=1, groups=shadows)
                taps.append(Tap(x, given))
                x = F.max_pool2d(F.relu(given), 2)
            x = x.reshape(batch, shadows, -1).transpose(0, 1)
            layers = layers[2:]
        x = x.reshape(shadows, batch, -1)
        for number, (weight, bias) in enumerate(layers):
            x = F.relu(x) if number else x
            given = torch.baddbmm(bias[:, None], x, weight)
            taps.append(Tap(x, given))
            x = given
        return x, taps

    def clipped_sum(self, taps: list[Tap], gradients: Sequence[Tensor], most: float, counted: Tensor) -> list[Tensor]:
        """Sum over images of each image's own gradient, clipped to L2 norm `most`: DP-SGD's one look at the data.

        An image's gradient at a linear layer is an outer product, whose norm is the product of the norms; at a
        convolution it is made and measured. Only the sum is kept.

        Args:
            taps: inputs and outputs of the layers in the forward pass.
            gradients: gradient of the summed loss by each tap's `given`.
            most: clipping norm, > 0.
            counted: whether each image counts, bool [S, B]; the others are padding.

        Returns:
            One tensor for each of the parameters, in their order.
        """
        shadows = len(counted)
        squares = torch.zeros(counted.shape)
        kernels: list[Tensor | None] = []
        for tap, gradient in zip(taps, gradients, strict=True):
            if tap.given.ndim == 3:
                squares += gradient.square().sum(2) * (tap.taken.square().sum(2) + 1)
                kernels.append(None)
            else:
                own = _per_image_kernels(tap.taken, gradient, shadows)
                squares += own.square().sum((2, 3))
                kernels.append(own)
        factor = (most / squares.sqrt().clamp_min(1e-12)).clamp_max(1.0) * counted
        sums = []
        for tap, gradient, each in zip(taps, gradients, kernels, strict=True):
            if each is None:
                scaled = gradient * factor[:, :, None]
                sums += [tap.taken.transpose(1, 2) @ scaled, scaled.sum(1)]
            else:
                total = torch.einsum("sb,sboi->soi", factor, each)  # [S, O, 9 C + 1], the bias last
                sums += [total[..., :-1].reshape(*total.shape[:2], -1, 3, 3), total[..., -1]]
        return sums

    def _weight_shapes(self) -> list[tuple[int, ...]]:
        channels, height, width = self.image_shape
        if self.architecture == "mlp":
            return [(channels * height * width, self.width), (self.width, self.classes)]
        flat = 2 * self.width * (height // 4) * (width // 4)
        kernels = [(self.width, channels, 3, 3), (2 * self.width, self.width, 3, 3)]
        return [*kernels, (flat, self.classes)]


def _per_image_kernels(taken: Tensor, gradient: Tensor, shadows: int) -> Tensor:
    """Each image's gradient of a 3x3 convolution, kernel and bias: [S, B, O, 9 C + 1]."""
    batch = len(taken)
    alone = taken.reshape(batch * shadows, -1, *taken.shape[2:])
    folds = F.unfold(alone, 3, padding=1)  # [B S, 9 C, P]
    folds = torch.cat([folds, torch.ones_like(folds[:, :1])], 1)
    own = gradient.reshape(batch * shadows, -1, folds.shape[2]) @ folds.transpose(1, 2)
    return own.reshape(batch, shadows, *own.shape[1:]).transpose(0, 1)
