# SPDX-License-Identifier: Apache-2.0
"""The student's network and its fellows', as the configuration and the caller say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fedcpsc.models.adapted import Adapted, head_of
from fedcpsc.models.classifier import Classifier, HeadedClassifier
from fedcpsc.models.libraries import ZOO, Plan, named_network, skeleton
from fedcpsc.models.own_module import OwnModule
from fedcpsc.models.pretrained import Match, Pretrained, match, take
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.seeded import seeded
from fedcpsc.student_config import StudentConfig

__all__ = ["Start", "build_fellow", "build_student", "fellows_of", "learns_features", "match_of"]

_Shape = tuple[int, int, int]
_COLOURS = 3


@dataclass(frozen=True, eq=False)
class Start:
    """What the student begins as, where the configuration does not say it all.

    Attributes:
        own: module of the caller's own; None takes the configured architecture.
        weights: weights that the configured architecture begins with; None takes a random initialisation.
    """

    own: OwnModule | None = None
    weights: Pretrained | None = None


def build_student(
    config: StudentConfig, classes: int, image_shape: _Shape, seed: int | None, start: Start | None = None
) -> Classifier:
    """The student as it begins, on the CPU and in training mode.

    Args:
        config: section `student` of the run's configuration.
        classes: K.
        image_shape: (C, H, W) of the federation's images. A network of torchvision or timm takes a grey image's channel
            three times, as it takes the weights that others trained on colours; for other numbers of channels it has
            another first layer.
        seed: seed of the initialisation; a module of the caller's own keeps its weights. None builds the network for
            the shapes of its tensors: on the device `meta`, where that is possible.
        start: what it begins as; None for what the configuration alone says.

    Raises:
        ConfigError: there is no such network for such images, or the weights are of another.
    """
    start = start or Start()
    if start.own is not None:
        return _adapted(start.own.copied(), config, classes, image_shape, repeat=1)
    network = _built(config.architecture, "student.architecture", config, classes, image_shape, seed)
    if start.weights is not None and seed is not None:
        take(start.weights, network, match_of(start.weights, network, config, classes, image_shape))
    return _as_classifier(network, config, classes, image_shape)


def build_fellow(
    config: StudentConfig, classes: int, image_shape: _Shape, seed: int | None, start: Start | None = None
) -> Classifier:
    """A network that guides the generator beside the student, freshly initialised; arguments as for `build_student`.

    Raises:
        ConfigError: there is no such network for such images.
    """
    architecture = fellows_of(config, start)
    network = _built(architecture, "student.fellows", config, classes, image_shape, seed)
    if architecture != config.architecture or (start is not None and start.own is not None):
        config = config.model_copy(update={"normalisation": None})  # which the student alone expects
    return _as_classifier(network, config, classes, image_shape)


def fellows_of(config: StudentConfig, start: Start | None = None) -> str:
    """The architecture of the fellows: the configured one, else the student's, else the default of this project."""
    if config.fellows is not None:
        return config.fellows
    default: str = StudentConfig.model_fields["architecture"].default
    return config.architecture if start is None or start.own is None else default


def match_of(
    weights: Pretrained, network: nn.Module, config: StudentConfig, classes: int, image_shape: _Shape
) -> Match:
    """What of the student's weights is in the file.

    Args:
        weights: weights of the file.
        network: network of the student, or its skeleton.
        config, classes, image_shape: arguments of `build_student`.

    Raises:
        ConfigError: the weights are of another network.
    """
    library, name = named_network(config.architecture, "student.architecture")
    return match(weights, network, library, name, _plan(config.architecture, config, classes, image_shape))


def learns_features(network: Classifier) -> bool:
    """Whether the network has features, and weights that they depend on."""
    if isinstance(network, Adapted):
        return network.has_features
    return not (isinstance(network, HeadedClassifier) and network.only_head_learns)


def _plan(architecture: str, config: StudentConfig, classes: int, image_shape: _Shape) -> Plan:
    channels, height, width = image_shape
    taken = channels if "/" not in architecture or channels != 1 else _COLOURS
    return Plan(classes, taken, (height, width), config.width)


def _built(
    architecture: str, key: str, config: StudentConfig, classes: int, image_shape: _Shape, seed: int | None
) -> nn.Module:
    library, name = named_network(architecture, key)
    plan = _plan(architecture, config, classes, image_shape)
    if seed is None:
        return skeleton(library, name, plan).train()
    if library is ZOO:
        return build_classifier(name, classes, image_shape, config.width, seed=seed)
    with seeded(seed):
        return library.build(name, plan).train()


def _as_classifier(network: nn.Module, config: StudentConfig, classes: int, image_shape: _Shape) -> Classifier:
    if isinstance(network, Classifier) and config.normalisation is None:
        return network
    repeat = _COLOURS if not isinstance(network, Classifier) and image_shape[0] == 1 else 1
    return _adapted(network, config, classes, image_shape, repeat)


def _adapted(network: nn.Module, config: StudentConfig, classes: int, image_shape: _Shape, repeat: int) -> Adapted:
    constants = config.normalisation
    normalisation = None if constants is None else (constants.mean, constants.std)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    head = None
    if not isinstance(network, Classifier):
        channels, height, width = image_shape
        with seeded(0):
            head = head_of(network, torch.zeros(2, channels * repeat, height, width, device=device))
    made = Adapted(network, classes, image_shape, repeat=repeat, normalisation=normalisation, head=head)
    return made.to(device)
