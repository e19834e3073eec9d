# SPDX-License-Identifier: Apache-2.0
"""A teacher's network as its training begins: at random, or with public weights of a file; whole, or its head alone.

Weights of a file must be public: no guarantee of a training covers the images that they were made with.
"""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.classifier import Classifier, HeadedClassifier
from fedcpsc.models.named import NamedNetwork
from fedcpsc.models.pretrained import Pretrained, read_pretrained, take
from fedcpsc.models.registry import build_classifier, check_architecture, check_network, check_trainable
from fedcpsc.models.small_images import made_for_larger
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.plan import DpSgdTraining, ShardsTraining, training_plan

__all__ = ["begun", "check_architectures", "check_begins", "private_architecture", "public_weights"]

_GROUP_NORM_TWIN = {"convnet": "convnet_gn"}

_Shape = tuple[int, int, int]


def public_weights(config: TeachersConfig) -> Pretrained | None:
    """The weights that every teacher starts from; None where they start at random.

    Raises:
        ConfigError: the file cannot be read, or holds anything but one state dict.
    """
    return None if config.weights is None else read_pretrained(config.weights, "teachers.weights")


def check_architectures(config: TeachersConfig, architectures: list[str]) -> None:
    """Does nothing where networks of these names can be trained as configured; no file and no data is looked at.

    Raises:
        ConfigError: a name is unknown, or of a network that is trained with a frozen body alone; or shards are to have
            frozen bodies.
    """
    if config.frozen and isinstance(plan := training_plan(config), ShardsTraining):
        constraint = f"would store the frozen network {plan.shards} times, once for each shard"
        raise ConfigError(explain("teachers.frozen", True, constraint, "use teachers.training.kind plain or dp_sgd"))
    remedy = "set teachers.frozen: true, or train the network yourself and adopt it: fedcpsc adopt"
    if config.normalisation is not None and not config.frozen:
        constraint = "is for the frozen network of teachers.weights"
        raise ConfigError(explain("teachers.normalisation", list(config.normalisation.mean), constraint, remedy))
    for name in architectures:
        if config.frozen:
            _ = _named(config, name, 2, (3, 32, 32)).library
        elif "/" in name:
            constraint = "is a network of a library, of which only the head can be trained here"
            raise ConfigError(explain("teachers.architecture", name, constraint, remedy))
        else:
            check_architecture(name)


def check_begins(
    config: TeachersConfig, architecture: str, classes: int, image_shape: _Shape, weights: Pretrained | None
) -> str | None:
    """What a network starts from, in words, where it can be trained on such images; computes nothing but shapes.

    Args:
        config: section `teachers` of the configuration.
        architecture: name of the network.
        classes: number of its outputs.
        image_shape: shape (C, H, W) of the images.
        weights: what `public_weights` gave.

    Returns:
        None where it starts at random.

    Raises:
        ConfigError: for images that it cannot take, batches that its norm cannot take, or weights of another network.
    """
    if weights is None:
        check_trainable("teachers", architecture, classes, image_shape, config.width, config.batch_size)
        return None
    if isinstance(training_plan(config), DpSgdTraining) and not config.frozen:
        chosen = private_architecture(architecture, image_shape, config.width)
        if chosen != architecture:
            constraint = f"has batch norm, which DP-SGD cannot train, and {chosen} takes other weights"
            remedy = f"set teachers.frozen: true, or give weights of {chosen} and set teachers.architecture to it"
            raise ConfigError(explain("teachers.architecture", architecture, constraint, remedy))
    named = _named(config, architecture, classes, image_shape)
    _check_constants(config, image_shape[0])

    def skeleton() -> Classifier:
        return named.classifier(named.built(None))

    batch_size = max(config.batch_size, 2) if config.frozen else config.batch_size  # frozen norms need no two images
    network = check_network("teachers", architecture, skeleton, image_shape, batch_size)
    _check_channels(named, network, weights)
    matched = named.match(weights, network.stored)
    if config.frozen:
        named.frozen(network)
    told = f"teachers.weights: of {weights.path.name} {matched.in_words(frozen=config.frozen)}"
    small = made_for_larger(architecture, network, image_shape)
    return told if small is None else f"{told}; {small}"


def begun(
    config: TeachersConfig,
    architecture: str,
    outputs: int,
    image_shape: _Shape,
    seed: int,
    weights: Pretrained | None = None,
) -> HeadedClassifier:
    """The network as its training begins, on the CPU and in training mode.

    Args:
        config: section `teachers` of the configuration.
        architecture: name of the network.
        outputs: number of its outputs.
        image_shape: shape (C, H, W) of the images.
        seed: seed of the teacher; decides the initialisation of what the weights do not give.
        weights: what `public_weights` gave.

    Raises:
        ConfigError: the weights are of another network.
    """
    seed = derive_seed(seed, "initialisation")
    if weights is None:
        return build_classifier(architecture, outputs, image_shape, config.width, seed=seed)
    named = _named(config, architecture, outputs, image_shape)
    network = named.built(seed)
    matched = named.match(weights, network)
    take(weights, network, matched)
    if config.frozen:
        return named.frozen(named.classifier(network), matched)
    assert isinstance(network, HeadedClassifier)  # noqa: S101 - `check_architectures` lets no other pass
    return network


def private_architecture(architecture: str, image_shape: tuple[int, int, int], width: int) -> str:
    """The architecture itself, or its twin without batch norm: statistics across images have no per-image gradient.

    Raises:
        ConfigError: where it has batch norm and no twin.
    """
    network = build_classifier(architecture, 2, image_shape, width)
    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return architecture
    if architecture in _GROUP_NORM_TWIN:
        return _GROUP_NORM_TWIN[architecture]
    remedy = "use scattering, convnet_gn or lenet5"
    raise ConfigError(explain("architecture", architecture, "has batch norm, which DP-SGD cannot train", remedy))


def _named(config: TeachersConfig, architecture: str, classes: int, image_shape: _Shape) -> NamedNetwork:
    key, normalisation = "teachers.architecture", config.normalisation
    return NamedNetwork(key, architecture, classes, image_shape, config.width, normalisation)


def _check_constants(config: TeachersConfig, channels: int) -> None:
    constants = config.normalisation
    if constants is not None and len(constants.mean) not in (1, channels):
        constraint = f"has {len(constants.mean)} means, and the images have {channels} channels"
        remedy = "give one mean and one std for all channels, or one for each; or set data.channels"
        raise ConfigError(explain("teachers.normalisation", list(constants.mean), constraint, remedy))


def _check_channels(named: NamedNetwork, network: Classifier, weights: Pretrained) -> None:
    """Says so where only the number of channels is not that of the weights, as of grey images."""
    own = {key: tuple(tensor.shape) for key, tensor in network.stored.state_dict().items()}
    first = next((key for key, shape in own.items() if len(shape) == 4), None)
    if first is None or first not in weights.state or not isinstance(weights.state[first], torch.Tensor):
        return
    found, wanted = tuple(weights.state[first].shape), own[first]
    if len(found) == len(wanted) and found[1] != wanted[1] and (found[0], *found[2:]) == (wanted[0], *wanted[2:]):
        constraint = f"is for images of {found[1]} channels, and these have {named.image_shape[0]}"
        remedy = f"set data.channels: {found[1]}, or use other weights"
        raise ConfigError(explain("teachers.weights", str(weights.path), constraint, remedy))
