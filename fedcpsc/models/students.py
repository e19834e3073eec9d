# SPDX-License-Identifier: Apache-2.0
"""The student's network and its fellows', as the configuration and the caller say."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedcpsc.models.adapted import Adapted
from fedcpsc.models.classifier import Classifier, HeadedClassifier
from fedcpsc.models.named import NamedNetwork, adapted
from fedcpsc.models.own_module import OwnModule
from fedcpsc.models.pretrained import Match, Pretrained, take
from fedcpsc.student_config import StudentConfig

__all__ = ["Start", "build_fellow", "build_student", "fellows_of", "learns_features", "match_of"]

_Shape = tuple[int, int, int]


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
        return adapted(start.own.copied(), config.normalisation, classes, image_shape)
    named = _student(config, classes, image_shape)
    network, matched = named.built(seed), None
    if start.weights is not None and seed is not None:
        matched = named.match(start.weights, network)
        take(start.weights, network, matched)
    made = named.classifier(network)
    return named.frozen(made, matched) if config.frozen else made


def build_fellow(
    config: StudentConfig, classes: int, image_shape: _Shape, seed: int | None, start: Start | None = None
) -> Classifier:
    """A network that guides the generator beside the student, freshly initialised; arguments as for `build_student`.

    Raises:
        ConfigError: there is no such network for such images.
    """
    architecture = fellows_of(config, start)
    as_student = architecture == config.architecture and (start is None or start.own is None)
    constants = config.normalisation if as_student else None  # which the student alone expects
    named = NamedNetwork(
        "student.fellows", architecture, classes, image_shape, config.width, constants, grey_as_colour=True
    )
    return named.classifier(named.built(seed))


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
    return _student(config, classes, image_shape).match(weights, network)


def learns_features(network: Classifier) -> bool:
    """Whether the network has features, and weights that they depend on."""
    if isinstance(network, Adapted):
        return network.has_features
    return not (isinstance(network, HeadedClassifier) and network.only_head_learns)


def _student(config: StudentConfig, classes: int, image_shape: _Shape) -> NamedNetwork:
    key, normalisation = "student.architecture", config.normalisation
    return NamedNetwork(
        key, config.architecture, classes, image_shape, config.width, normalisation, grey_as_colour=True
    )
