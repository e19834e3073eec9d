# SPDX-License-Identifier: Apache-2.0
"""The generator that the peers share, and pictures that a server of FedDF's kind has of its own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.silos import PeerError
from fedcpsc.config import RunConfig
from fedcpsc.data.images import to_pixels
from fedcpsc.data.readers.source import read_split
from fedcpsc.data.sources import as_images, limited
from fedcpsc.errors import explain
from fedcpsc.models.seeded import seeded
from fedcpsc.seeding import numpy_generator
from fedcpsc.silo_config import DataConfig

__all__ = ["LATENT", "Generator", "make_generator", "public_pictures"]

LATENT = 64


class Generator(nn.Module):
    """z -> image, not conditional, as DENSE, IDEAL and DFME have it: linear, two upsamplings, three convolutions.

    Their papers take 256 latent numbers and 64 channels for images of 28x28 and 32x32 pixels.

    Args:
        image_shape: (C, H, W), sides of at least 4.
        width: number of channels after the second convolution; before it there are twice as many.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        self.size, self.start, self.width = (height, breadth), (math.ceil(height / 4), math.ceil(breadth / 4)), width
        self.project = nn.Linear(LATENT, 2 * width * self.start[0] * self.start[1])
        self.norm0, self.norm1 = nn.BatchNorm2d(2 * width), nn.BatchNorm2d(2 * width)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, channels, 3, padding=1)
        self.last = nn.BatchNorm2d(channels, affine=False)  # so that tanh is used over its whole range

    def before_tanh(self, z: Tensor) -> Tensor:
        """z [N, LATENT] -> [N, C, H, W], of which tanh makes pixels."""
        x = self.norm0(self.project(z).view(-1, 2 * self.width, *self.start))
        x = F.leaky_relu(self.norm1(self.conv1(F.interpolate(x, scale_factor=2.0))), 0.2)
        x = F.leaky_relu(self.norm2(self.conv2(F.interpolate(x, size=self.size))), 0.2)
        found: Tensor = self.last(self.conv3(x))
        return found

    def forward(self, z: Tensor) -> Tensor:
        """z [N, LATENT] -> pixels [N, C, H, W] in [-1, 1]."""
        return torch.tanh(self.before_tanh(z))


def make_generator(image_shape: tuple[int, int, int], seed: int, width: int = 16) -> Generator:
    """An untrained generator; torch's global random state is left as it was."""
    with seeded(seed):
        return Generator(image_shape, width)


def public_pictures(source: str, config: RunConfig, data: Path, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Pictures in the silos' size, labels left unread: float32 [count, C, H, W] in [-1, 1].

    Args:
        source: name of a folder of `data` with train.parquet and test.parquet. Where the silos hold pictures of it
            themselves, only pictures of its training split that no silo was dealt are taken.
        config: configuration of the silos.
        data: folder of the data sets.
        count: number of pictures.
        shape: (C, H, W) of the silos' images.

    Raises:
        PeerError: there are fewer.
        DataError: they cannot be read.
    """
    place = data / source
    own = config.data.path is not None and Path(config.data.path).resolve() == place.resolve()
    reading = DataConfig(source="parquet", path=str(place), image_size=shape[1], channels=1 if shape[0] == 1 else 3)
    split = read_split(reading, place, "train")
    index = np.arange(len(split.labels))
    if own:
        index = np.setdiff1d(index, limited(index, config.data.train_limit, config.seed, "train"))
    if len(index) < count:
        remedy = "lower --calls, or deal the silos fewer of them (data.train_limit)"
        raise PeerError(
            explain("public pictures", str(place), f"has {len(index)} that no silo holds, not {count}", remedy)
        )
    drawn = np.sort(numpy_generator(config.seed, "benchmark public pictures").choice(index, count, replace=False))
    images = as_images(split, drawn, reading, "public pictures").images
    return to_pixels(torch.from_numpy(images))
