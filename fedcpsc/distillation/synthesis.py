"""Inventing query images: a fresh conditional generator, guided by the committee, mixed with a procedural prior.

The teachers give no gradients; the committee (the student and its fellows, all fitted to the bank) lends its own. In
inference-only mode y is a device for diversity, not a label: a freshly initialised generator agrees with the teachers
about y hardly more than by chance, and teaches well all the same. Source: RECIPE (measured), CPSC-DFKD for the
generator and its conditional loss, IDEAL (arXiv 2205.11158) for re-initialisation and one query per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.config import SynthesisConfig
from fedcpsc.data.augment import random_shift
from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.frozen import frozen
from fedcpsc.losses.contrastive import supervised_contrastive
from fedcpsc.losses.synthesis import moment_loss, negative_batch_entropy
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.registry import Classifier
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.seeding import derive_seed

__all__ = ["balanced_labels", "generator_loss", "make_generator", "synthesise", "train_generator"]


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
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], ConditionalGenerator | None]:
    """One round's query images, all of whose randomness follows from `seed` and `round_index`.

    Returns:
        images uint8 [count, C, H, W]; y int64 [count], -1 where the image came from the prior; the generator, or None
        in the warm-up rounds.
    """
    generator = None
    from_prior = count
    if round_index >= config.warmup_share * rounds:
        generator = train_generator(config, committee, classes, image_shape, derive_seed(seed, round_index), device)
        from_prior = round(config.prior_share * count)
    cpu_stream = torch.Generator().manual_seed(derive_seed(seed, round_index, "prior"))
    images = [to_uint8(sample_prior(config.prior, from_prior, image_shape, cpu_stream))] if from_prior else []
    labels = [torch.full((from_prior,), -1)]
    if generator is not None and count > from_prior:
        stream = torch.Generator(device).manual_seed(derive_seed(seed, round_index, "draw"))
        y = balanced_labels(count - from_prior, classes, stream)
        with torch.no_grad():  # batch statistics, as in training: the generator is too young for running ones
            chunks = y.split(max(config.batch_size * 4, 256))
            drawn = [generator(torch.randn(len(c), config.latent, generator=stream, device=device), c) for c in chunks]
        images.append(to_uint8(torch.cat(drawn)).cpu())
        labels.append(y.cpu())
    return torch.cat(images).numpy(), torch.cat(labels).numpy(), generator


def make_generator(
    config: SynthesisConfig, classes: int, image_shape: tuple[int, int, int], seed: int
) -> ConditionalGenerator:
    """An untrained generator; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConditionalGenerator(config.latent, classes, image_shape, config.width)


def train_generator(
    config: SynthesisConfig,
    committee: Sequence[Classifier],
    classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    device: torch.device,
) -> ConditionalGenerator:
    """A generator from scratch, `config.steps` Adam steps against the frozen committee."""
    generator = make_generator(config, classes, image_shape, seed).to(device)
    stream = torch.Generator(device).manual_seed(derive_seed(seed, "train"))
    optimiser = torch.optim.Adam(generator.parameters(), lr=config.learning_rate, betas=(0.5, 0.999))
    with frozen(committee):
        for _ in range(config.steps):
            y = balanced_labels(config.batch_size, classes, stream)
            z = torch.randn(config.batch_size, config.latent, generator=stream, device=device)
            optimiser.zero_grad(set_to_none=True)
            generator_loss(config, generator(z, y), y, committee, stream).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return generator


def generator_loss(
    config: SynthesisConfig, pixels: Tensor, y: Tensor, committee: Sequence[Classifier], stream: torch.Generator
) -> Tensor:
    """Conditional cross-entropy + class balance + public moments (+ contrast over the committee's views).

    Args:
        pixels: [B, C, H, W] in [-1, 1], with gradient.
        y: int64 [B].
        committee: frozen; its mean logits judge the images.
        stream: for the shift, on the pixels' device.
    """
    seen = random_shift(pixels, config.shift, stream)
    if config.contrastive_weight > 0:
        outputs = [net.forward_with_features(seen) for net in committee]
        logits = torch.stack([output[0] for output in outputs]).mean(0)
    else:
        outputs = []
        logits = torch.stack([net(seen) for net in committee]).mean(0)
    loss = config.class_weight * F.cross_entropy(logits, y)
    loss = loss + config.balance_weight * negative_batch_entropy(logits)
    if config.moments is not None and config.moment_weight > 0:
        loss = loss + config.moment_weight * moment_loss(pixels, *config.moments)
    if outputs:
        # each network's features live in a space of their own: contrast two views within each, not across
        again = random_shift(pixels, config.shift, stream)
        for net, (_, features) in zip(committee, outputs, strict=True):
            views = torch.stack([features, net.features(again)])
            loss = loss + config.contrastive_weight * supervised_contrastive(views, y) / len(committee)
    return loss


def balanced_labels(count: int, classes: int, stream: torch.Generator) -> Tensor:
    """int64 [count] with every class equally often, up to one, in random order, on the stream's device."""
    order = torch.randperm(count, generator=stream, device=stream.device)
    offset = torch.randint(classes, (1,), generator=stream, device=stream.device)
    return (order + offset) % classes

