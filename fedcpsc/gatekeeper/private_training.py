"""Training a teacher by kind; two kinds let a guarantee be built on it: DP-SGD, and K teachers on disjoint shards.

All return the weights and the proof that goes into the manifest. A guarantee needs randomness that nobody can repeat:
the noise and the sampling of DP-SGD are seeded by the operating system, never by the run's public seed. Two DP-SGD
teachers of one seed therefore differ.
"""

from __future__ import annotations

import secrets
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedcpsc.config import TeachersConfig
from fedcpsc.data.augment import random_flip, random_shift
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.errors import ConfigError, DataError, TeacherError, explain
from fedcpsc.gatekeeper.canaries import Canaries, draw_canaries, planted
from fedcpsc.gatekeeper.proof import DpSgdProof, ShardsProof
from fedcpsc.gatekeeper.shard_teacher import stacked
from fedcpsc.gatekeeper.sharding import read_or_make_key, record_ids, shards_of
from fedcpsc.gatekeeper.training import Progress, train_classifier
from fedcpsc.gatekeeper.training_plan import DpSgdTraining, PlainTraining, ShardsTraining, training_plan
from fedcpsc.models.device import torch_threads
from fedcpsc.models.registry import Classifier, build_classifier
from fedcpsc.privacy.accounting import dp_sgd_epsilon
from fedcpsc.seeding import derive_seed

__all__ = ["TrainedTeacher", "private_architecture", "train_dp_sgd", "train_shards", "train_teacher"]

_SECONDS_BETWEEN_LINES = 10.0
_GROUP_NORM_TWIN = {"convnet": "convnet_gn"}


@dataclass(frozen=True)
class TrainedTeacher:
    """What a training leaves.

    Attributes:
        kind: of the manifest.
        architecture: of the network or networks.
        states: what goes into the weights file.
        proof: what goes into the manifest as `privacy`; None where the training claims nothing.
        canaries: what was planted among the images; None where nothing was. The owner's secret.
    """

    kind: Literal["torch", "shards"]
    architecture: str
    states: dict[str, Tensor]
    proof: dict[str, Any] | None
    canaries: Canaries | None = None


def train_teacher(
    images: ImageSet,
    config: TeachersConfig,
    seed: int,
    architecture: str,
    progress: Progress,
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    public_size: bool = False,
) -> TrainedTeacher:
    """A teacher of the kind that `teachers.training` names, with canaries among its images where that asks for them.

    Args:
        images: the private images.
        config: epochs, batch size, learning rate, kind of training and so on.
        seed: of whatever need not be secret.
        architecture: a name of `models.registry`.
        progress: told how far it is.
        folder: the silo's, where its secrets lie.
        device: to train on.
        public_size: whether the number of records may be told.

    Raises:
        ConfigError: where the kind and the architecture do not fit, or there are too many canaries.
        DataError: where there are too few images.
        TeacherError: where training diverges.
    """
    plan = training_plan(config)
    if isinstance(plan, ShardsTraining):
        return train_shards(images, config, plan, seed, architecture, progress, folder, device)
    canaries = draw_canaries(images, plan.canaries) if plan.canaries else None
    images = planted(images, canaries) if canaries else images
    if isinstance(plan, DpSgdTraining):
        made = train_dp_sgd(images, config, plan, seed, architecture, progress, device)
    else:
        network = train_classifier(images, config, seed, architecture, progress, device, plan)
        states = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        made = TrainedTeacher("torch", architecture, states, None)
    return replace(made, canaries=canaries)


def private_architecture(architecture: str, image_shape: tuple[int, int, int], width: int) -> str:
    """The architecture itself, or its twin without batch norm: statistics across images have no per-image gradient.

    Raises:
        ConfigError: where it has batch norm and no twin.
    """
    network = build_classifier(architecture, 2, image_shape, width)
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return architecture
    if architecture in _GROUP_NORM_TWIN:
        return _GROUP_NORM_TWIN[architecture]
    remedy = "use scattering, convnet_gn or lenet5"
    raise ConfigError(explain("architecture", architecture, "has batch norm, which DP-SGD cannot train", remedy))


def train_dp_sgd(
    images: ImageSet,
    config: TeachersConfig,
    plan: DpSgdTraining,
    seed: int,
    architecture: str,
    progress: Progress,
    device: torch.device | str = "cpu",
) -> TrainedTeacher:
    """A classifier that is (epsilon, delta)-DP per record under add/remove, and with it all its answers.

    Proof: Opacus' PRV accountant over the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016, arXiv 1607.00133).
    Nothing else reads the private images: normalisation is public, nothing is selected or stopped by them, and the
    number of steps depends on the number of images only through `epochs` and `batch_size`.

    Args:
        images: the private images.
        config: epochs, batch size (the mean of the Poisson batches), learning rate and so on.
        plan: the guarantee.
        seed: decides the initialisation alone; noise and sampling are seeded by the operating system.
        architecture: a name of `models.registry`; `convnet` becomes `convnet_gn`.
        progress: told of that, and how far it is.
        device: to train on.

    Raises:
        ConfigError: where the architecture has batch norm and no twin, or delta is too large.
        TeacherError: where the weights diverge.
    """
    from opacus import PrivacyEngine  # noqa: PLC0415 - slow to import, used by this kind alone
    from opacus.utils.batch_memory_manager import BatchMemoryManager  # noqa: PLC0415

    if plan.delta * len(images) >= 1:
        raise ConfigError(
            explain("teachers.training.delta", plan.delta, f"must be below 1 / {len(images)} images", "lower it")
        )
    chosen = private_architecture(architecture, images.image_shape, config.width)
    if chosen != architecture:
        progress(
            f"{architecture} has batch norm, which DP-SGD cannot train: {chosen}, with group norm, takes its place"
        )
    device = torch.device(device)
    network = build_classifier(
        chosen, images.classes, images.image_shape, config.width, seed=derive_seed(seed, "initialisation")
    ).to(device)
    # where only the head learns and images are not moved about, their features are computed once
    head_only = config.shift == 0 and not config.flip and network.only_head_learns
    learner: Any = network.head if head_only else network
    optimiser: Any = _optimiser(learner, config, plan)
    inputs = _features(network, images, device) if head_only else torch.from_numpy(images.images)
    data = TensorDataset(inputs, torch.from_numpy(images.labels))
    loader: Any = DataLoader(data, batch_size=min(config.batch_size, len(images)), generator=_unrepeatable("cpu"))
    with warnings.catch_warnings():
        # torch's noise generator, seeded by the operating system, is what there is: Opacus' secure mode needs a package
        # whose last build is for torch 1.8
        warnings.filterwarnings("ignore", message="Secure RNG turned off")
        warnings.filterwarnings("ignore", message="Optimal order is the")
        warnings.filterwarnings("ignore", message="Full backward hook is firing")  # pixels need no gradient
        engine = PrivacyEngine(accountant="prv")
        learner, optimiser, loader = engine.make_private_with_epsilon(
            module=learner,
            optimizer=optimiser,
            data_loader=loader,
            target_epsilon=plan.epsilon,
            target_delta=plan.delta,
            epochs=config.epochs,
            max_grad_norm=plan.max_grad_norm,
            noise_generator=_unrepeatable(device),
        )
        stream, said = _unrepeatable(device), time.monotonic()
        for epoch in range(config.epochs):
            learner.train()
            with BatchMemoryManager(data_loader=loader, max_physical_batch_size=256, optimizer=optimiser) as batches:
                for raw, labels in batches:
                    x = raw.to(device) if head_only else _view(raw.to(device), config, stream)
                    optimiser.zero_grad()
                    torch.autograd.backward(F.cross_entropy(learner(x), labels.to(device)))
                    optimiser.step()
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                progress(f"epoch {epoch + 1} of {config.epochs}")
    history = tuple((float(noise), float(rate), int(steps)) for noise, rate, steps in engine.accountant.history)
    epsilon = dp_sgd_epsilon(history, plan.delta)
    proof = DpSgdProof(epsilon=epsilon, delta=plan.delta, n=len(images), history=history)
    states = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    if not all(torch.isfinite(tensor).all() for tensor in states.values()):
        raise TeacherError(explain("teachers.learning_rate", config.learning_rate, "training diverged", "lower it"))
    progress(f"epsilon {epsilon:.3f} at delta {plan.delta:g}, noise {history[0][0]:.3f}")
    return TrainedTeacher("torch", chosen, states, proof.model_dump(mode="json"))


def _features(network: Classifier, images: ImageSet, device: torch.device) -> Tensor:
    """What the head sees of each image, float32 [n, D], on the CPU."""
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(images.images), 256)
        return torch.cat([network.features(to_pixels(part.to(device))).cpu() for part in parts])


def _view(raw: Tensor, config: TeachersConfig, stream: torch.Generator) -> Tensor:
    x = random_shift(to_pixels(raw), config.shift, stream)
    return random_flip(x, stream) if config.flip else x


def train_shards(
    images: ImageSet,
    config: TeachersConfig,
    plan: ShardsTraining,
    seed: int,
    architecture: str,
    progress: Progress,
    folder: Path,
    device: torch.device | str = "cpu",
) -> TrainedTeacher:
    """K classifiers on disjoint shards. They are not private: only mechanisms that noise their votes are.

    Args:
        images: the private images.
        config: epochs, batch size, learning rate and so on, of each.
        plan: K.
        seed: of initialisation, order and augmentation; never of the dealing.
        architecture: a name of `models.registry`.
        progress: told how far it is.
        folder: the silo's, where its secret key lies.
        device: to train on.

    Raises:
        DataError: where there are fewer than two images a shard on average.
    """
    if len(images) < 2 * plan.shards:
        raise DataError(
            explain("teachers.training.shards", plan.shards, f"is too many for {len(images)} images", "use fewer")
        )
    dealt = shards_of(record_ids(images.images, images.labels), read_or_make_key(folder), plan.shards)
    networks, said = [], time.monotonic()
    with torch_threads(1):
        for shard in range(plan.shards):
            own = images.subset((dealt == shard).nonzero()[0])
            networks.append(_of_shard(own, config, plan, derive_seed(seed, "shard", shard), architecture, device))
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                progress(f"shard {shard + 1} of {plan.shards}")
    proof = ShardsProof(shards=plan.shards).model_dump(mode="json")
    return TrainedTeacher("shards", architecture, stacked(networks), proof)


def _of_shard(
    images: ImageSet,
    config: TeachersConfig,
    plan: ShardsTraining,
    seed: int,
    architecture: str,
    device: torch.device | str,
) -> Classifier:
    """A shard's teacher; one with too few images to train on votes for all classes alike."""
    if len(images) >= 2:
        return train_classifier(
            images, config, seed, architecture, None, device, PlainTraining(optimiser=plan.optimiser)
        )
    network = build_classifier(architecture, images.classes, images.image_shape, config.width, seed=seed)
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    return network.eval()


def _optimiser(network: nn.Module, config: TeachersConfig, plan: DpSgdTraining) -> torch.optim.Optimizer:
    if plan.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=config.learning_rate, momentum=0.9)
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate)


def _unrepeatable(device: torch.device | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(secrets.randbits(63))
