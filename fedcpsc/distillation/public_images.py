# SPDX-License-Identifier: Apache-2.0
"""Query images from the server's own unlabelled pictures (`synthesis.public`).

Augmented as usual in self-supervised learning, but mildly: what is learnt of a picture is what silos see in it. So
every round has new candidates, however few the pictures. Without augmentation a picture is asked about once at most:
the rounds share them out beforehand, since nothing is remembered between rounds.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.config import RunConfig, SynthesisConfig
from fedcpsc.data.augment import random_flip
from fedcpsc.data.images import to_pixels, to_uint8
from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.distillation.round_schedule import images_of_round
from fedcpsc.errors import ConfigError, explain
from fedcpsc.large_images import together
from fedcpsc.priors.colour import jittered
from fedcpsc.recipes.drawing import balanced_labels
from fedcpsc.seeding import derive_seed

__all__ = ["check_enough", "crops", "public_candidates", "public_count"]

_SMALLEST = 0.5  # side of a crop, of the picture's
_STRETCH = 1.25  # most that a crop is longer along one side than along the other
_JITTER = 0.35
_CHUNK = 512


def public_count(config: SynthesisConfig, count: int) -> int:
    """How many of a round's `count` images are from the public pictures."""
    return round(config.public_share * count) if config.public is not None else 0


def check_enough(config: RunConfig, pictures: int) -> None:
    """Does nothing where every round has as many pictures as it asks about.

    Args:
        config: configuration of the run.
        pictures: number of the public pictures.

    Raises:
        ConfigError: pictures are asked about as they are, and there are too few.
    """
    synthesis, queries = config.synthesis, config.queries
    if synthesis.public is None or synthesis.public.augment:
        return
    for r in range(queries.rounds):
        wanted = public_count(synthesis, images_of_round(queries, r))
        if wanted > len(_own(pictures, r, queries.rounds)):
            constraint = f"{pictures:,} pictures are too few to ask about {wanted:,} in each of {queries.rounds} rounds"
            remedy = "set synthesis.public.augment: true, lower synthesis.public_share, or give more pictures"
            raise ConfigError(explain("synthesis.public.augment", False, constraint, remedy))


def public_candidates(
    pictures: PublicPictures,
    config: SynthesisConfig,
    count: int,
    candidates: int,
    *,
    round_index: int,
    rounds: int,
    seed: int,
) -> tuple[int, Iterator[tuple[Tensor, Tensor]]]:
    """Candidates of one round.

    Args:
        pictures: the pictures.
        config: configuration of the synthesis, with `public`.
        count: number of images that are asked about, >= 1.
        candidates: number of candidates wanted for each of them.
        round_index, rounds: number of the round, and of all rounds.
        seed: seed of the run's synthesis, the same in every round.

    Returns:
        Number of candidates for each image, fewer where pictures are few and taken as they are; then images uint8
        [m, C, H, W] and their y, -1, chunk by chunk, on the CPU.
    """
    augment = config.public is None or config.public.augment
    stream = torch.Generator().manual_seed(derive_seed(seed, "public", round_index))
    if augment:
        rows = balanced_labels(count * candidates, len(pictures.images), stream)
    else:
        order = torch.randperm(
            len(pictures.images), generator=torch.Generator().manual_seed(derive_seed(seed, "public"))
        )
        rows = order[list(_own(len(order), round_index, rounds))]
        candidates = min(candidates, len(rows) // count)
        rows = rows[: count * candidates]

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        channels, height, width = pictures.images.shape[1:]
        for part in torch.split(rows, together(_CHUNK, (channels, height, width))):
            large = to_pixels(torch.from_numpy(pictures.images[part.numpy()]))
            made = _varied(large, pictures.zoom, stream) if augment else F.avg_pool2d(large, pictures.zoom)
            yield to_uint8(made), torch.full((len(part),), -1)

    return candidates, chunks()


def crops(images: Tensor, zoom: int, generator: torch.Generator) -> Tensor:
    """A crop of each image, of half its side to all of it, stretched a little, at 1/zoom of the image's size.

    Args:
        images: [N, C, zoom * H, zoom * W].
        zoom: number of pixels along each side that make one, >= 1.
        generator: stream of places and sizes, the only randomness.

    Returns:
        [N, C, H, W].
    """
    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, 1).uniform_(low, high, generator=generator)

    side, ratio = uniform(_SMALLEST, 1), uniform(1 / _STRETCH, _STRETCH).sqrt()
    tall, wide = (side * ratio).clamp_max(1), (side / ratio).clamp_max(1)  # shares of the image
    top, left = uniform(0, 1) * (1 - tall), uniform(0, 1) * (1 - wide)
    y = 2 * (top + tall * (torch.arange(height) + 0.5) / height) - 1  # [N, zoom * H] in [-1, 1]
    x = 2 * (left + wide * (torch.arange(width) + 0.5) / width) - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    cut = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(cut, zoom)


def _varied(images: Tensor, zoom: int, generator: torch.Generator) -> Tensor:
    """Random crops, half of them mirrored, with mild changes of tone and colour."""
    return jittered(random_flip(crops(images, zoom, generator), generator), generator, _JITTER)


def _own(pictures: int, round_index: int, rounds: int) -> range:
    """Which of so many pictures in random order are the round's own."""
    return range(pictures * round_index // rounds, pictures * (round_index + 1) // rounds)
