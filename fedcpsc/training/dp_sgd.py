# SPDX-License-Identifier: Apache-2.0
"""DP-SGD with a record or a person as the unit: Poisson batches, one clipped gradient a unit, noise nobody can replay.

Formal guarantee: the weights are (epsilon, delta)-DP per unit under add/remove, and with them every answer. Proof:
each step is the Poisson-subsampled Gaussian mechanism. Every unit is drawn by a coin of its own. The sum of clipped
gradients (`unit_gradients`) moves by at most `max_grad_norm` with one unit; Gaussian noise of noise multiplier times
that is added; the rest (division, momentum, learning rate) is post-processing. Opacus' PRV accountant composes the
steps (Abadi et al. 2016, arXiv 1607.00133; Gopi, Lee & Wutschitz 2021, arXiv 2106.02848).

Nothing else depends on the private records: noise, rate, steps and the divisor follow from the configuration
(`planned_history`); normalisation is public, and so must the weights be that a training starts from; nothing is
selected or stopped by the data. What the proof in the manifest says is therefore the same for neighbouring data sets,
byte for byte.

| case | what is done |
|---|---|
| an empty batch | a step all the same, of noise alone |
| more or fewer units than planned | batches are larger or smaller; rate, noise, steps and divisor stay |
| no units at all | noise alone |
| a person with many records | one mean gradient, clipped as one |
| a frozen public network | a fixed function of each image by itself: its batch norms see no private statistics |
| public outliers | added after the noise: post-processing (`public_gradient`) |
| weights that are no longer finite | an error: a function of released weights, hence post-processing |

Coins, noise and the random views of private images come from `SecretStream`: a cipher keyed by the operating system.
Two trainings of one configuration and one seed therefore differ. That normals are floats is covered there as far as it
can be; `privacy.randomness` says what remains.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from fedcpsc.data.augment import mirrored, shifted
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.data.units import unit_numbers
from fedcpsc.errors import TeacherError, explain
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.privacy.randomness import NOISE_SOURCE, SecretStream
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.teachers.proof import DpSgdProof
from fedcpsc.training.network import begun, private_architecture
from fedcpsc.training.outliers import make_outliers
from fedcpsc.training.plain import Progress, TrainedTeacher, fixed_features, has_still_features, trained
from fedcpsc.training.plan import DpSgdTraining, planned_history
from fedcpsc.training.public_gradient import PublicGradient
from fedcpsc.training.sharding import unit_of
from fedcpsc.training.unit_gradients import GradientSource, HeadGradients, NetworkGradients, clipped_sum, members_of

__all__ = ["train_dp_sgd"]

_SECONDS_BETWEEN_LINES = 10.0
_FAR_OFF = 2  # the owner hears of a true number of units so many times the planned one, or so many times less


def train_dp_sgd(
    images: ImageSet,
    config: TeachersConfig,
    plan: DpSgdTraining,
    units: int,
    seed: int,
    architecture: str,
    progress: Progress,
    device: torch.device | str = "cpu",
    weights: Pretrained | None = None,
) -> TrainedTeacher:
    """A classifier that is (epsilon, delta)-DP per unit, and with it all its answers.

    Args:
        images: the private images; persons, where they are named, are the units.
        config: epochs, batch size (expected number of units in a batch), learning rate and so on.
        plan: the guarantee.
        units: public number of units (`public_units`).
        seed: seed of the initialisation and of public outliers alone.
        architecture: name of the network; `convnet` becomes `convnet_gn`, unless its body is frozen.
        progress: function that is called with that, and with how far the training is. For the owner alone: it may say
            how many units there are.
        device: device to train on.
        weights: public weights that the network starts from; None where it starts at random.

    Raises:
        ConfigError: where the architecture has batch norm and no twin, or the plan cannot be kept.
        TeacherError: where the weights diverge.
    """
    history = planned_history(plan, config.epochs, config.batch_size, units)
    ((noise_multiplier, rate, steps),) = history
    frozen = config.frozen  # its batch norms take no statistics of private images
    chosen = architecture if frozen else private_architecture(architecture, images.image_shape, config.width)
    if chosen != architecture:
        progress(
            f"{architecture} has batch norm, which DP-SGD cannot train: {chosen}, with group norm, takes its place"
        )
    members = members_of(unit_numbers(images))
    if not units / _FAR_OFF <= len(members) <= units * _FAR_OFF:
        progress(f"{len(members)} {unit_of(images)}s, planned for {units}: teachers.training.records should be nearer")
    device, stream = torch.device(device), SecretStream()
    outliers = make_outliers(config, images.image_shape, seed)
    outputs = images.classes + (outliers is not None)
    network = begun(config, chosen, outputs, images.image_shape, seed, weights).to(device)
    public = None
    if outliers is not None:
        public = PublicGradient(network, outliers, config, plan.max_grad_norm, seed, device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")  # pixels need no gradient
        source = _source(network, images, config, stream, device)
        optimiser, said = _optimiser(source.parameters, config, plan), time.monotonic()
        for step in range(steps):
            drawn = np.flatnonzero(stream.coins(rate, len(members)))
            total = clipped_sum(source, [members[unit] for unit in drawn], plan.max_grad_norm)
            noise = torch.from_numpy(stream.normals((len(total),))) * (noise_multiplier * plan.max_grad_norm)
            gradient = (total + noise) / config.batch_size
            if public is not None:
                gradient += public.next(dict(network.named_parameters()), source.parameters)
            _give(gradient, source.parameters)
            optimiser.step()
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                progress(f"step {step + 1} of {steps}")
    proof = DpSgdProof(
        epsilon=plan.epsilon,
        delta=plan.delta,
        unit=unit_of(images),
        records=units,
        noise_source=NOISE_SOURCE,
        history=tuple(history),
        public_weights=None if weights is None else weights.sha256,
    )
    made = trained(network, chosen, proof.model_dump(mode="json", exclude_none=True))
    if not all(torch.isfinite(tensor).all() for tensor in made.states.values()):
        raise TeacherError(explain("teachers.learning_rate", config.learning_rate, "training diverged", "lower it"))
    progress(f"epsilon {plan.epsilon:g} at delta {plan.delta:g} per {proof.unit}, noise {noise_multiplier:.3f}")
    return made


def _source(
    network: HeadedClassifier, images: ImageSet, config: TeachersConfig, stream: SecretStream, device: torch.device
) -> GradientSource:
    """Where only the head learns and images are not moved about, their features are computed once."""
    pictures, labels = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    if has_still_features(network, config):
        features = fixed_features(network, pictures, device)
        return HeadGradients(network.head, features, labels, device)
    return NetworkGradients(network, pictures, labels, lambda raw: _view(raw, config, stream), device)


def _view(raw: Tensor, config: TeachersConfig, stream: SecretStream) -> Tensor:
    """uint8 [B, C, H, W] -> pixels, moved and mirrored by secret draws."""
    x, count = to_pixels(raw), len(raw)
    if config.shift:
        down, right = (
            torch.from_numpy(stream.below(2 * config.shift + 1, count)).to(raw.device) for _ in ("down", "right")
        )
        x = shifted(x, config.shift, down, right)
    return mirrored(x, torch.from_numpy(stream.coins(0.5, count)).to(raw.device)) if config.flip else x


def _give(gradient: Tensor, parameters: list[nn.Parameter]) -> None:
    """Cuts a gradient [P] into those of the parameters."""
    pieces = torch.split(gradient, [parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter)


def _optimiser(parameters: list[nn.Parameter], config: TeachersConfig, plan: DpSgdTraining) -> torch.optim.Optimizer:
    if plan.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=0.9)
    return torch.optim.Adam(parameters, lr=config.learning_rate)
