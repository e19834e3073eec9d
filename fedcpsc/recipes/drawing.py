# SPDX-License-Identifier: Apache-2.0
"""A recipe's images, made on the CPU: bit for bit the same wherever the same torch runs on the same kind of processor.

Candidates are made in chunks, each with a random stream of its own. So a chunk of which nothing was chosen need not be
made, and no more than one chunk lies in memory beside the chosen images. The number of threads changes nothing
(tested); another version of torch or another family of processors may round otherwise, which the digest that a query
carries shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcpsc.choices import check_mixture
from fedcpsc.data.images import to_uint8
from fedcpsc.large_images import together
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.priors.mixture import draw_kinds, sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.protocol.recipe import Pool, Recipe
from fedcpsc.recipes.weights import recipe_generator
from fedcpsc.seeding import derive_seed

__all__ = ["PRIOR_PIXELS", "balanced_labels", "draw_candidates", "draw_images", "generator_batch", "prior_kinds"]

# all part of the protocol: another chunk makes other images
_PRIOR_CHUNK, _GENERATOR_CHUNK = 500, 256
_MOST_PIXELS, _MOST_ACTIVATIONS = 2**14, 2**17  # of an image; a chunk has fewer of larger ones
PRIOR_PIXELS = 2**20
"""Pixels of large images of a prior that are drawn together: 20 of 224x224, which take 300 MB at most."""
_ACTIVATIONS = 6 * 2**20  # of a generator's last layers: 7 images of 224x224 at width 16


def draw_images(recipe: Recipe) -> npt.NDArray[np.uint8]:
    """The images asked about, uint8 [N, C, H, W].

    Raises:
        ConfigError: a prior that is none of this project's own.
        ProtocolError: weights that are not this generator's, or not finite.
    """
    wanted = np.unpackbits(recipe.chosen)[: recipe.candidates].astype(bool)
    kept, first, row = [], 0, 0
    for pool in recipe.pools:
        generator = None
        if pool.from_generator:
            sizes = (recipe.latent, recipe.classes, recipe.image_shape, recipe.width)
            generator = recipe_generator(*sizes, pool.seed, recipe.weights[row])
            row += 1
        mask = wanted[first : first + pool.size]
        for start, images, _ in _chunks(pool, recipe.image_shape, recipe.classes, recipe.latent, generator, mask):
            kept.append(images[torch.from_numpy(mask[start : start + len(images)])])
        first += pool.size
    return torch.cat(kept).numpy()


def draw_candidates(
    pool: Pool, image_shape: tuple[int, int, int], classes: int, latent: int, generator: ConditionalGenerator | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Candidates of a pool in chunks, uint8 [m, C, H, W], and their y, int64 [m]: -1 where the prior made them.

    Args:
        generator: network that `recipe_generator` gives: its images; None: those of the prior.
    """
    wanted = np.arange(pool.size) >= pool.from_prior
    for _, images, y in _chunks(
        pool, image_shape, classes, latent, generator, ~wanted if generator is None else wanted
    ):
        yield images, y


def prior_kinds(pool: Pool, image_shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Which prior each of a pool's images of priors is from: int64 [from_prior], numbers into its sorted names.

    No image is drawn for it.
    """
    kinds = [draw_kinds(dict(pool.mixture), count, stream) for _, count, stream in _prior_chunks(pool, image_shape)]
    return torch.cat(kinds).numpy() if kinds else np.zeros(0, np.int64)


def generator_batch(usual: int, image_shape: tuple[int, int, int], width: int) -> int:
    """Number of images that a generator makes together: `usual`, of large ones fewer.

    Args:
        usual: number of small images, >= 1.
        image_shape: (C, H, W).
        width: channels of the generator.
    """
    return together(usual, image_shape, _ACTIVATIONS // width)


def balanced_labels(count: int, classes: int, stream: torch.Generator) -> Tensor:
    """int64 [count] with every class equally often, up to one, in random order, on the stream's device."""
    order = torch.randperm(count, generator=stream, device=stream.device)
    offset = torch.randint(classes, (1,), generator=stream, device=stream.device)
    return (order + offset) % classes


def _chunks(
    pool: Pool,
    image_shape: tuple[int, int, int],
    classes: int,
    latent: int,
    generator: ConditionalGenerator | None,
    wanted: npt.NDArray[np.bool_],
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(first index, images, y) of each chunk of which something is wanted."""
    if pool.from_prior:  # a message must not make a silo import what else is installed there
        check_mixture(dict(pool.mixture), built_in=True)
    tones = None if pool.mean is None else Tones(pool.mean, pool.spread, pool.anywhere)
    for start, count, stream in _prior_chunks(pool, image_shape):
        if wanted[start : start + count].any():
            pixels = sample_prior(dict(pool.mixture), count, image_shape, stream, tones)
            yield start, to_uint8(pixels), torch.full((count,), -1)
    if generator is None:
        return
    activations = image_shape[1] * image_shape[2] * generator.width
    step = _GENERATOR_CHUNK if activations <= _MOST_ACTIVATIONS else max(1, _ACTIVATIONS // activations)
    for start in range(0, pool.from_generator, step):
        count = min(step, pool.from_generator - start)
        at = pool.from_prior + start
        if wanted[at : at + count].any():
            stream = torch.Generator().manual_seed(derive_seed(pool.seed, "draw", start))
            y = balanced_labels(count, classes, stream)
            with torch.no_grad():
                images = to_uint8(generator(torch.randn(count, latent, generator=stream), y))
            yield at, images, y


def _prior_chunks(pool: Pool, image_shape: tuple[int, int, int]) -> Iterator[tuple[int, int, torch.Generator]]:
    """First index, size and random stream of each chunk of a pool's images of priors."""
    area = image_shape[1] * image_shape[2]
    step = _PRIOR_CHUNK if area <= _MOST_PIXELS else max(1, PRIOR_PIXELS // area)
    for start in range(0, pool.from_prior, step):
        stream = torch.Generator().manual_seed(derive_seed(pool.seed, "prior", start))
        yield start, min(step, pool.from_prior - start), stream
