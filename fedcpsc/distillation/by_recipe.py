# SPDX-License-Identifier: Apache-2.0
"""Query images that are made from a recipe, so that a query may carry that instead of them.

As `synthesis.py`, but for what keeps a recipe small and its images the same everywhere: the generator's projection
stays as its seed drew it, its other weights are rounded to float16 before it draws, and drawing is on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.config import SynthesisConfig
from fedcpsc.distillation.selection import Chosen, choose
from fedcpsc.distillation.synthesis import Synthesised, shares, train_generator
from fedcpsc.models.registry import Classifier
from fedcpsc.priors.tones import Tones
from fedcpsc.protocol.recipe import Pool, Recipe
from fedcpsc.recipes.drawing import draw_candidates, prior_kinds
from fedcpsc.recipes.weights import pack_weights, recipe_generator
from fedcpsc.runs.origins import GENERATOR, codes_of_priors
from fedcpsc.seeding import derive_seed

__all__ = ["Source", "cut_recipe", "synthesise_by_recipe"]


@dataclass(frozen=True, eq=False)
class Source:
    """What one round's images were made from.

    Attributes:
        pool: all candidates.
        weights: weights of its generator, uint16 [W]; None where the prior made them all.
        chosen: mask of the candidates that are the round's images, bool [M].
    """

    pool: Pool
    weights: npt.NDArray[np.uint16] | None
    chosen: npt.NDArray[np.bool_]


def synthesise_by_recipe(
    config: SynthesisConfig,
    committee: Sequence[Classifier],
    count: int,
    *,
    round_index: int,
    rounds: int,
    classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    device: torch.device,
    tones: Tones | None = None,
) -> tuple[Synthesised, Source]:
    """As `synthesise`, of prior and generator alone; also what the images are made from."""
    seed = derive_seed(seed, round_index)
    from_prior, candidates = shares(config, count, round_index, rounds)
    pool = Pool(
        seed=seed,
        from_prior=from_prior * candidates,
        from_generator=(count - from_prior) * candidates,
        mixture=tuple(sorted(config.prior.items())),
        **({} if tones is None else vars(tones)),
    )
    chosen: list[Chosen] = []
    if from_prior:
        drawn = draw_candidates(pool, image_shape, classes, config.latent, None)
        chosen.append(choose(drawn, candidates, from_prior, committee, device, config.precision))
    generator, weights = None, None
    if pool.from_generator:
        trained = train_generator(
            config, committee, classes, image_shape, derive_seed(seed, "generator"), device, projection_seed=seed
        )
        weights = pack_weights(trained)
        generator = recipe_generator(config.latent, classes, image_shape, config.width, seed, weights)
        drawn = draw_candidates(pool, image_shape, classes, config.latent, generator)
        chosen.append(choose(drawn, candidates, count - from_prior, committee, device, config.precision))
    images, y = torch.cat([one.images for one in chosen]), torch.cat([one.y for one in chosen])
    among = np.concatenate([one.among for one in chosen])
    kinds = prior_kinds(pool, image_shape)[among[: pool.from_prior]]
    origins = np.concatenate([codes_of_priors(kinds), np.full(count - from_prior, GENERATOR, np.uint8)])
    return Synthesised(images.numpy(), y.numpy(), generator, origins), Source(pool, weights, among)


def cut_recipe(
    sources: Sequence[Source],
    start: int,
    stop: int,
    config: SynthesisConfig,
    classes: int,
    image_shape: tuple[int, int, int],
) -> Recipe:
    """The recipe of images [start, stop) of all that these sources made, one after the other."""
    touched, first = [], 0
    for source in sources:
        number = np.cumsum(source.chosen) - 1 + first  # of each candidate among all images, where it is one
        chosen = source.chosen & (number >= start) & (number < stop)
        if chosen.any():
            touched.append((source, chosen))
        first += int(source.chosen.sum())
    weights = [source.weights for source, _ in touched if source.weights is not None]
    return Recipe(
        image_shape=image_shape,
        classes=classes,
        latent=config.latent,
        width=config.width,
        pools=tuple(source.pool for source, _ in touched),
        weights=np.stack(weights) if weights else np.zeros((0, 0), np.uint16),
        chosen=np.packbits(np.concatenate([chosen for _, chosen in touched])),
    )
