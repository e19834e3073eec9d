# SPDX-License-Identifier: Apache-2.0
"""A generator in few bytes: its projection follows from a seed, all else is rounded to float16.

The projection of the noise vector holds most of a generator's weights (87 % at width 16 and 28x28). A generator that is
to be sent therefore leaves it as it was drawn and trains the rest, and both sides draw with the rounded weights.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedcpsc.errors import ProtocolError, explain
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.seeded import seeded
from fedcpsc.seeding import derive_seed

__all__ = ["pack_weights", "recipe_generator", "seed_projection", "sent_parameters"]


def seed_projection(generator: ConditionalGenerator, seed: int) -> None:
    """Draws the projection anew from the pool's seed, uniformly as `nn.Linear` does, and stops its training."""
    stream = torch.Generator().manual_seed(derive_seed(seed, "projection"))
    with torch.no_grad():
        bound = 1 / math.sqrt(generator.project.in_features)
        for parameter in (generator.project.weight, generator.project.bias):
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=stream)
            parameter.copy_(drawn).requires_grad_(False)


def sent_parameters(generator: ConditionalGenerator) -> list[nn.Parameter]:
    """What a recipe carries of a generator, in its order: all but the projection."""
    return [parameter for name, parameter in generator.named_parameters() if not name.startswith("project.")]


def pack_weights(generator: ConditionalGenerator) -> npt.NDArray[np.uint16]:
    """uint16 [W]: the bits of its parameters as float16."""
    parts = [parameter.detach().reshape(-1) for parameter in sent_parameters(generator)]
    rounded: npt.NDArray[np.float16] = torch.cat(parts).to(torch.float16).cpu().numpy()
    return rounded.view(np.uint16)


def recipe_generator(
    latent: int,
    classes: int,
    image_shape: tuple[int, int, int],
    width: int,
    seed: int,
    weights: npt.NDArray[np.uint16],
) -> ConditionalGenerator:
    """The generator of a pool, on the CPU; torch's global random state is left as it was.

    Args:
        seed: seed of the pool.
        weights: uint16 [W], as `pack_weights` gives them.

    Raises:
        ProtocolError: another number of weights, or NaN or infinity among them.
    """
    with seeded(0):  # what is drawn here is replaced
        generator = ConditionalGenerator(latent, classes, image_shape, width)
    seed_projection(generator, seed)
    parameters = sent_parameters(generator)
    values = torch.from_numpy(np.ascontiguousarray(weights).view(np.float16).astype(np.float32))
    if len(values) != sum(parameter.numel() for parameter in parameters) or not torch.isfinite(values).all():
        wanted = f"must be the {sum(p.numel() for p in parameters)} finite numbers of its generator"
        raise ProtocolError(explain("weights", len(values), wanted, "make recipes with fedcpsc.recipes"))
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(values, [p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))
    return generator.train()
