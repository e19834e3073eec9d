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
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.protocol.recipe import Pool, Recipe
from fedcpsc.recipes.weights import recipe_generator
from fedcpsc.seeding import derive_seed

__all__ = ["balanced_labels", "draw_candidates", "draw_images"]

_PRIOR_CHUNK, _GENERATOR_CHUNK = 500, 256  # part of the protocol: another chunk makes other images


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
) -> tuple[Tensor, Tensor]:
    """All candidates of a pool, uint8 [M, C, H, W], and their y, int64 [M]: -1 where the prior made them.

    Args:
        generator: network that `recipe_generator` gives; None where the pool has none of its images.
    """
    everything = np.ones(pool.size, bool)
    chunks = list(_chunks(pool, image_shape, classes, latent, generator, everything))
    return torch.cat([images for _, images, _ in chunks]), torch.cat([y for _, _, y in chunks])


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
    for start in range(0, pool.from_prior, _PRIOR_CHUNK):
        count = min(_PRIOR_CHUNK, pool.from_prior - start)
        if wanted[start : start + count].any():
            stream = torch.Generator().manual_seed(derive_seed(pool.seed, "prior", start))
            pixels = sample_prior(dict(pool.mixture), count, image_shape, stream, pool.mean)
            yield start, to_uint8(pixels), torch.full((count,), -1)
    for start in range(0, pool.from_generator if generator else 0, _GENERATOR_CHUNK):
        count = min(_GENERATOR_CHUNK, pool.from_generator - start)
        at = pool.from_prior + start
        if generator is not None and wanted[at : at + count].any():
            stream = torch.Generator().manual_seed(derive_seed(pool.seed, "draw", start))
            y = balanced_labels(count, classes, stream)
            with torch.no_grad():
                images = to_uint8(generator(torch.randn(count, latent, generator=stream), y))
            yield at, images, y
