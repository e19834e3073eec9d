# SPDX-License-Identifier: Apache-2.0
"""Public pictures from which a teacher learns to say "none of my classes" (`teachers.outliers`).

Formal guarantee: which outliers there are, and which of them a step sees, follows from the configuration, the shape of
the images and the seed, never from a private record or from how many there are. For the trainings with a guarantee:

| training | why its proof stands |
|---|---|
| DP-SGD | a step adds a function of the weights so far and of public pictures to the noisy sum: post-processing |
| shards | all shards see the same outliers, so that a unit more or less still changes the content of one shard alone |
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcpsc.data.images import to_uint8
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.photograph_crops import photograph_crops
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig

__all__ = ["Outliers", "make_outliers"]

_MOST_BYTES = 256 * 2**20  # of all outliers of a training


@dataclass(frozen=True, eq=False)
class Outliers:
    """Outliers of one training.

    Attributes:
        images: pictures, uint8 [P, C, H, W].
        share: their share of a batch, in (0, 1).
        weight: weight of their mean loss beside that of the private images, > 0.
        none: probability of "none" that the teacher is to give them, in (0, 1].
    """

    images: Tensor
    share: float
    weight: float
    none: float

    def beside(self, own: int) -> int:
        """Number of outliers in a batch with `own` private images, >= 1."""
        return max(1, round(own * self.share / (1 - self.share)))

    def draw(self, count: int, stream: torch.Generator) -> Tensor:
        """So many of the pictures, with replacement: uint8 [count, C, H, W], on the device of the pictures."""
        return self.images[torch.randint(len(self.images), (count,), generator=stream, device=stream.device)]

    def to(self, device: torch.device) -> Outliers:
        """The same on a device."""
        return replace(self, images=self.images.to(device))


def make_outliers(config: TeachersConfig, image_shape: tuple[int, int, int], seed: int) -> Outliers | None:
    """Outliers as `teachers.outliers` says, in random order; None where the teacher has no output for them.

    Args:
        config: settings of the training.
        image_shape: shape (C, H, W) of the private images.
        seed: seed of the pictures; not a secret.
    """
    wanted = config.outliers
    if wanted is None:
        return None
    channels, height, width = image_shape
    count = max(1, min(wanted.count, _MOST_BYTES // (channels * height * width)))
    stream = torch.Generator().manual_seed(derive_seed(seed, "outliers"))
    pictures = photograph_crops(round(count * wanted.photographs), image_shape, stream)
    if len(pictures) < count:
        pictures = torch.cat([pictures, sample_prior(wanted.prior, count - len(pictures), image_shape, stream)])
    pictures = to_uint8(pictures)[torch.randperm(count, generator=stream)]
    return Outliers(pictures, wanted.share, wanted.weight, wanted.none)
