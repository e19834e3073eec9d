# SPDX-License-Identifier: Apache-2.0
"""Training a silo's teacher on its private images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.data.augment import random_flip, random_shift
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.errors import DataError, TeacherError, explain
from fedcpsc.losses.outlier_exposure import outlier_exposure
from fedcpsc.models.adapted import stored_tensors
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.models.device import mixed_precision
from fedcpsc.models.exact_strides import make_strides_exact
from fedcpsc.models.fused import fused_on_gpu
from fedcpsc.models.libraries import named_network
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.canaries import Canaries
from fedcpsc.training.network import begun
from fedcpsc.training.outliers import Outliers
from fedcpsc.training.plan import PlainTraining
from fedcpsc.transfers import uploaded

__all__ = ["Progress", "TrainedTeacher", "fixed_features", "has_still_features", "train_classifier", "trained"]

Progress: TypeAlias = Callable[[str], None]
"""Takes a line of text for whoever waits."""

_WARM_UP = 0.05  # share of the steps over which the learning rate rises
_SECONDS_BETWEEN_LINES = 10.0
_PIECE = 256  # images whose features are computed together
_MOST_FEATURES = 2**32  # bytes of features that are kept


@dataclass(frozen=True)
class TrainedTeacher:
    """What a training leaves.

    Attributes:
        kind: kind of teacher, as the manifest has it.
        architecture: architecture of the network or networks, as the manifest has it.
        states: content of the weights file.
        proof: content of the manifest's `privacy`; None where the training claims nothing.
        canaries: roles of the units among the images; None where no canaries were asked for. The owner's secret.
    """

    kind: str
    architecture: str
    states: dict[str, Tensor]
    proof: dict[str, Any] | None
    canaries: Canaries | None = None


def train_classifier(
    images: ImageSet,
    config: TeachersConfig,
    seed: int,
    architecture: str,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    plan: PlainTraining | None = None,
    outliers: Outliers | None = None,
    weights: Pretrained | None = None,
) -> HeadedClassifier:
    """A classifier fitted to `images`: cross-entropy, linear warm-up and cosine decay, random shift and flip.

    The whole set lies on the device as uint8; a batch is an index into it. With outliers the classifier has one output
    more than classes, the last, and each batch has outliers beside the private images (`losses.outlier_exposure`).

    Args:
        images: the private images, at least 2.
        config: epochs, batch size, learning rate and so on.
        seed: decides initialisation, order and augmentation; torch's global generators are left alone.
        architecture: name of the network.
        progress: function that is called every ten seconds with how far it is.
        device: device to train on.
        plan: plan that names the optimiser; None for Adam.
        outliers: public pictures of none of the classes; None for a classifier of the classes alone.
        weights: public weights that the network starts from; None where it starts at random.

    Returns:
        The network with its last weights, on the CPU, in evaluation mode.

    Raises:
        ConfigError: for an unknown architecture.
        DataError: where there are too few images.
        TeacherError: where training diverges.
    """
    plan = plan or PlainTraining()
    if len(images) < 2:
        raise DataError(explain("train_size", len(images), "a teacher needs at least 2 images", "use fewer silos"))
    device = torch.device(device)
    precision = config.precision or ("float32" if device.type == "cpu" else "bfloat16")
    outputs = images.classes + (outliers is not None)
    network = begun(config, architecture, outputs, images.image_shape, seed, weights).to(device)
    network = network.to(memory_format=network.memory_format)  # channels last is faster on either device
    if precision == "bfloat16":
        make_strides_exact(network)
    pixels, labels = uploaded(images.images, device), uploaded(images.labels, device)
    still = outliers is None and has_still_features(network, config) and _fits(network, len(images))
    features = fixed_features(network, pixels, device) if still else None
    stream = torch.Generator(device).manual_seed(derive_seed(seed, "order"))
    outliers = outliers and outliers.to(device)
    batch_size = min(config.batch_size, len(images))
    steps = config.epochs * math.ceil(len(images) / batch_size)
    optimiser = _optimiser(network, config, plan)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    said = time.monotonic()
    for epoch in range(config.epochs):
        network.train()
        loss = torch.zeros(())
        for batch in _batches(len(images), batch_size, stream):
            with mixed_precision(device, precision):
                if features is not None:
                    logits = network.head(features[batch])
                else:
                    logits = network(_views(pixels[batch], config, stream, outliers))
                loss = _loss(logits, labels[batch], outliers)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        if not torch.isfinite(loss):
            raise TeacherError(
                explain("teachers.learning_rate", config.learning_rate, "training diverged", "lower it, try a tenth")
            )
        if progress and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            progress(f"epoch {epoch + 1} of {config.epochs}")
    return network.cpu().to(memory_format=torch.contiguous_format).eval()


def fixed_features(network: HeadedClassifier, images: Tensor, device: torch.device) -> Tensor:
    """Inputs of the head, float32 [N, D], where no weight that is trained changes them; where the images lie.

    Args:
        network: network of which only the head learns.
        images: uint8 [N, C, H, W], on any device.
        device: device of the network, which never holds more than a piece of them for this.
    """
    found = torch.empty(len(images), network.feature_size, device=images.device)
    with torch.no_grad():
        for first in range(0, len(images), _PIECE):
            piece = images[first : first + _PIECE].to(device)
            found[first : first + _PIECE] = network.features(to_pixels(piece)).to(images.device)
    return found


def has_still_features(network: HeadedClassifier, config: TeachersConfig) -> bool:
    """Whether the network's features of an image are the same in every epoch."""
    return network.only_head_learns and config.shift == 0 and not config.flip


def _fits(network: HeadedClassifier, images: int) -> bool:
    """Whether the features of so many images may be kept; else they are computed in every epoch anew."""
    return images * network.feature_size * 4 <= _MOST_FEATURES


def _views(shown: Tensor, config: TeachersConfig, stream: torch.Generator, outliers: Outliers | None) -> Tensor:
    """What the network sees of a batch: its pixels, moved and mirrored, behind them those of outliers."""
    if outliers is not None:
        shown = torch.cat([shown, outliers.draw(outliers.beside(len(shown)), stream)])
    x = random_shift(to_pixels(shown), config.shift, stream)
    return random_flip(x, stream) if config.flip else x


def trained(network: HeadedClassifier, architecture: str, proof: dict[str, Any] | None) -> TrainedTeacher:
    """What a training leaves of one network.

    Args:
        network: network on any device.
        architecture: name of the network in the configuration.
        proof: content of the manifest's `privacy`.
    """
    library, name = named_network(architecture, "teachers.architecture")
    return TrainedTeacher(library.kind, name, stored_tensors(network), proof)


def _loss(logits: Tensor, labels: Tensor, outliers: Outliers | None) -> Tensor:
    """Mean loss over a batch whose first images have `labels`; the others are outliers."""
    own = F.cross_entropy(logits[: len(labels)], labels)
    if outliers is None:
        return own
    return own + outliers.weight * outlier_exposure(logits[len(labels) :], outliers.none)


def _optimiser(network: HeadedClassifier, config: TeachersConfig, plan: PlainTraining) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    fused = fused_on_gpu(weights)
    if plan.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=fused)
    return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=fused)


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step`."""
    rise = max(1, round(_WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _batches(count: int, size: int, stream: torch.Generator) -> list[Tensor]:
    """A shuffled epoch; a lone last image joins the batch before it, since batch norm needs two."""
    batches = list(torch.split(torch.randperm(count, generator=stream, device=stream.device), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches
