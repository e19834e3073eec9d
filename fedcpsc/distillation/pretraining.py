# SPDX-License-Identifier: Apache-2.0
"""What the student learns before any silo is asked: to tell images of the priors apart, whatever the view.

Two views of an image are pulled together and those of other images pushed away (SimCLR, Chen et al. 2020, arXiv
2002.05709: the contrastive loss of this project with every image a class of its own). Images of the priors cost
nothing, so there is no end of them; features of procedural images serve for photographs (Baradad et al. 2021, arXiv
2106.05963). The head stays as it was, and the projection is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedcpsc.config import Precision, SynthesisConfig
from fedcpsc.data.images import to_pixels, to_uint8
from fedcpsc.data.random_views import random_view
from fedcpsc.large_images import together
from fedcpsc.losses.contrastive import supervised_contrastive
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.device import forward_float32
from fedcpsc.models.seeded import seeded
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.recipes.drawing import PRIOR_PIXELS
from fedcpsc.seeding import derive_seed
from fedcpsc.transfers import uploaded

__all__ = ["pretrain"]

_IMAGES, _BYTES = 20_000, 2**27  # images that are drawn for it: so many, or as many as fill so much memory
_BATCH = 192  # images a step, of which two views each are passed
_RATE, _WARM_UP = 2e-3, 50  # Adam's highest learning rate, and the steps over which it rises to that
_TEMPERATURE = 0.2
_HIDDEN, _PROJECTED = 128, 64


def pretrain(
    network: Classifier,
    steps: int,
    config: SynthesisConfig,
    *,
    seed: int,
    device: torch.device,
    precision: Precision | None = "float32",
    flip: bool = False,
    tones: Tones | None = None,
    meanwhile: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Pre-trains all but the head on images of the priors; returns the loss at each step, float32 [steps].

    Args:
        network: network on the device, in training mode.
        steps: number of Adam steps, >= 1; the learning rate rises over the first and falls to zero as a cosine.
        config: section `synthesis` of the run's configuration, whose priors are drawn.
        seed: seed of all its randomness.
        device: device of the network.
        precision: number format of the network's passes.
        flip: whether a mirrored image is another view.
        tones: how light the images are to be; None leaves them as they are.
        meanwhile: function called after each step with the number of steps done.
    """
    images = uploaded(_images(config, network.image_shape, derive_seed(seed, "images"), tones), device)
    batch = min(len(images), together(_BATCH, network.image_shape))
    stream = torch.Generator(device).manual_seed(derive_seed(seed, "views"))
    with torch.no_grad():  # in evaluation mode, in which norms keep no statistics of this black image
        width = network.eval().forward_with_features(torch.zeros(1, *network.image_shape, device=device))[1].shape[1]
    network.train()
    with seeded(derive_seed(seed, "projection")):
        projection = nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _PROJECTED)).to(device)
    optimiser = torch.optim.Adam([*network.parameters(), *projection.parameters()], lr=_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_rate(step, steps))
    losses = torch.zeros(steps, device=device)
    each = torch.arange(batch, device=device)
    with seeded(derive_seed(seed, "network"), device):  # a network of others may drop out
        for step in range(steps):
            pixels = to_pixels(images[torch.randint(len(images), (batch,), generator=stream, device=device)])
            views = torch.cat([random_view(pixels, stream, flip=flip) for _ in range(2)])
            optimiser.zero_grad(set_to_none=True)
            _, features = forward_float32(network, views, precision)
            loss = supervised_contrastive(projection(features).unflatten(0, (2, batch)), each, _TEMPERATURE)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses[step] = loss.detach()
            meanwhile(step + 1)
    return losses


def _share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _images(config: SynthesisConfig, image_shape: tuple[int, int, int], seed: int, tones: Tones | None) -> Tensor:
    """Images of the priors, uint8 [n, C, H, W], on the CPU."""
    channels, height, width = image_shape
    count = max(2, min(_IMAGES, _BYTES // (channels * height * width)))
    stream, step = torch.Generator().manual_seed(seed), together(2048, image_shape, PRIOR_PIXELS)
    parts = [
        to_uint8(sample_prior(config.prior, min(step, count - first), image_shape, stream, tones))
        for first in range(0, count, step)
    ]
    return torch.cat(parts)
