# SPDX-License-Identifier: Apache-2.0
"""Inventing query images: fresh conditional generators, guided by the committee, mixed with a procedural prior.

Where the server has pictures of its own (`synthesis.public`), a share of the images is made from those.

The teachers give no gradients; the committee (the student and its fellows, all fitted to the bank) lends its own. In
inference-only mode y is a device for diversity, not a label: a freshly initialised generator agrees with the teachers
about y hardly more than by chance, and teaches well all the same. Sources: CPSC-DFKD (arXiv 2510.03375) for the
generator and its conditional loss, IDEAL (arXiv 2205.11158) for re-initialisation and one query per image; measured in
docs/recipe.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.config import SynthesisConfig
from fedcpsc.data.augment import random_shift
from fedcpsc.data.images import to_uint8
from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.distillation.public_images import public_candidates, public_count
from fedcpsc.distillation.selection import Chosen, choose
from fedcpsc.large_images import together
from fedcpsc.losses.contrastive import supervised_contrastive
from fedcpsc.losses.synthesis import moment_loss, negative_batch_entropy
from fedcpsc.models.device import forward_float32, mixed_precision, to_device
from fedcpsc.models.frozen import frozen
from fedcpsc.models.fused import fused_on_gpu
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.registry import Classifier
from fedcpsc.models.seeded import seeded
from fedcpsc.priors.mixture import draw_kinds, sample_kinds
from fedcpsc.priors.tones import Tones
from fedcpsc.recipes.drawing import PRIOR_PIXELS, balanced_labels, generator_batch
from fedcpsc.recipes.weights import seed_projection
from fedcpsc.runs.origins import GENERATOR, PUBLIC, Codes, codes_of_priors
from fedcpsc.seeding import derive_seed

__all__ = ["Images", "Synthesised", "generator_loss", "make_generator", "shares", "synthesise", "train_generator"]

Images = npt.NDArray[np.uint8]


class Synthesised(NamedTuple):
    """One round's query images.

    Attributes:
        images: images, uint8 [count, C, H, W].
        y: classes that they were made for, int64 [count]; -1 where no generator made the image.
        generator: the generator; None where it made none.
        origins: where each image comes from, uint8 [count], codes of `origin_table(config.prior)`.
    """

    images: Images
    y: npt.NDArray[np.int64]
    generator: ConditionalGenerator | None
    origins: Codes


def synthesise(
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
    public: PublicPictures | None = None,
    tones: Tones | None = None,
) -> Synthesised:
    """One round's query images, all of whose randomness follows from `seed` and `round_index`.

    Args:
        public: the server's own pictures; None: it has none.
        tones: how light images of priors are to be; None leaves them as they are.
    """
    from_public = 0 if public is None else public_count(config, count)
    from_prior, candidates = shares(config, count - from_public, round_index, rounds)
    from_generator = count - from_public - from_prior
    of_round = derive_seed(seed, round_index)
    asked: list[Chosen] = []
    origins: list[Codes] = []
    if from_prior:
        stream = torch.Generator().manual_seed(derive_seed(of_round, "prior"))
        kinds: list[Tensor] = []
        drawn = _prior_chunks(config, from_prior * candidates, image_shape, stream, kinds, device, tones)
        asked.append(choose(drawn, candidates, from_prior, committee, device, config.precision))
        origins.append(codes_of_priors(torch.cat(kinds).numpy()[asked[-1].among]))
    generator = None
    if from_generator:
        generator = train_generator(config, committee, classes, image_shape, derive_seed(of_round, "generator"), device)
        wanted = from_generator * candidates
        drawn = draw(generator, config, wanted, classes, derive_seed(of_round, "draw"), device)
        asked.append(choose(drawn, candidates, from_generator, committee, device, config.precision))
        origins.append(np.full(from_generator, GENERATOR, np.uint8))
    if public is not None and from_public:
        each, drawn = public_candidates(
            public, config, from_public, candidates, round_index=round_index, rounds=rounds, seed=seed
        )
        asked.append(choose(drawn, each, from_public, committee, device, config.precision))
        origins.append(np.full(from_public, PUBLIC, np.uint8))
    images, y = torch.cat([one.images for one in asked]), torch.cat([one.y for one in asked])
    return Synthesised(images.numpy(), y.numpy(), generator, np.concatenate(origins))


def shares(config: SynthesisConfig, count: int, round_index: int, rounds: int) -> tuple[int, int]:
    """How many of a round's images the prior makes, and how many candidates there are for each image.

    Args:
        count: number of images that prior and generator make together, >= 0.
    """
    if round_index < config.warmup_share * rounds:
        return count, 1  # before the first answers the committee knows nothing
    return round(config.prior_share * count), config.candidates


def _prior_chunks(
    config: SynthesisConfig,
    count: int,
    image_shape: tuple[int, int, int],
    stream: torch.Generator,
    kinds: list[Tensor],
    device: torch.device,
    tones: Tones | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` 8-bit images of the prior and their y, -1, on the device: small ones in one go.

    Args:
        stream: random generator of the CPU, which says which prior each image is from.
        kinds: list to which each chunk adds the numbers of its images' priors, as `draw_kinds` gives them.
        device: device that images are drawn on, but for priors that can only be drawn on the CPU.
        tones: how light they are to be; None leaves them as they are.
    """
    own = stream if device.type == "cpu" else torch.Generator(device).manual_seed(stream.initial_seed())
    step = together(count, image_shape, PRIOR_PIXELS)
    for start in range(0, count, step):
        kinds.append(draw_kinds(config.prior, min(step, count - start), stream))
        images = to_uint8(sample_kinds(config.prior, kinds[-1], image_shape, stream, tones, own))
        yield images, torch.full((len(images),), -1, device=images.device)


def draw(
    generator: ConditionalGenerator, config: SynthesisConfig, count: int, classes: int, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` 8-bit images and their y, on the device, in chunks.

    The generator's norms use batch statistics, as in training: it is too young for running ones.
    """
    stream = torch.Generator(device).manual_seed(seed)
    y = balanced_labels(count, classes, stream)
    with torch.no_grad():
        for part in torch.split(y, generator_batch(256, generator.image_shape, config.width)):
            pixels = generator(torch.randn(len(part), config.latent, generator=stream, device=device), part)
            yield to_uint8(pixels), part


def make_generator(
    config: SynthesisConfig, classes: int, image_shape: tuple[int, int, int], seed: int
) -> ConditionalGenerator:
    """An untrained generator; torch's global random state is left as it was."""
    with seeded(seed):
        return ConditionalGenerator(config.latent, classes, image_shape, config.width)


def train_generator(
    config: SynthesisConfig,
    committee: Sequence[Classifier],
    classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    device: torch.device,
    projection_seed: int | None = None,
) -> ConditionalGenerator:
    """A generator from scratch, `config.steps` Adam steps against the frozen committee.

    Of large images a step takes fewer than `config.batch_size`, see `recipes.drawing.generator_batch`.

    Args:
        projection_seed: seed of a projection that stays as drawn, where given, see `recipes.weights`.
    """
    generator = make_generator(config, classes, image_shape, seed)
    if projection_seed is not None:
        seed_projection(generator, projection_seed)
    generator = to_device(generator, device)
    stream = torch.Generator(device).manual_seed(derive_seed(seed, "train"))
    weights = list(generator.parameters())
    optimiser = torch.optim.Adam(weights, lr=config.learning_rate, betas=(0.5, 0.999), fused=fused_on_gpu(weights))
    batch = generator_batch(config.batch_size, image_shape, config.width)
    with frozen(committee):
        for _ in range(config.steps):
            y = balanced_labels(batch, classes, stream)
            z = torch.randn(batch, config.latent, generator=stream, device=device)
            optimiser.zero_grad(set_to_none=True)
            with mixed_precision(device, config.precision):
                pixels = generator(z, y)
            generator_loss(config, pixels.float(), y, committee, stream).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return generator


def generator_loss(
    config: SynthesisConfig, pixels: Tensor, y: Tensor, committee: Sequence[Classifier], stream: torch.Generator
) -> Tensor:
    """Conditional cross-entropy + class balance + public moments (+ contrast over views).

    Args:
        pixels: images, [B, C, H, W] in [-1, 1], with gradient.
        y: wanted classes, int64 [B].
        committee: frozen; its mean logits judge the images.
        stream: random generator of the shift, on the pixels' device.
    """
    seen = random_shift(pixels, config.shift, stream)
    outputs = [forward_float32(net, seen, config.precision) for net in committee]
    logits = torch.stack([logits for logits, _ in outputs]).mean(0)
    loss = config.class_weight * F.cross_entropy(logits, y)
    loss = loss + config.balance_weight * negative_batch_entropy(logits)
    if config.moments is not None and config.moment_weight > 0:
        loss = loss + config.moment_weight * moment_loss(pixels, *config.moments)
    if config.contrastive_weight > 0:
        # each network's features live in a space of their own: contrast two views within each, not across
        again = random_shift(pixels, config.shift, stream)
        for net, (_, features) in zip(committee, outputs, strict=True):
            views = torch.stack([features, forward_float32(net, again, config.precision)[1]])
            loss = loss + config.contrastive_weight * supervised_contrastive(views, y) / len(committee)
    return loss
