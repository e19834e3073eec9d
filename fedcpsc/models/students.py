# SPDX-License-Identifier: Apache-2.0
"""The student's network and its fellows', as the configuration and the caller say."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedcpsc.models.adapted import Adapted, head_of
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.own_module import OwnModule
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.seeded import seeded
from fedcpsc.student_config import StudentConfig

__all__ = ["Start", "build_fellow", "build_student"]

_Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Start:
    """What the student begins as, where the configuration does not say it all.

    Attributes:
        own: module of the caller's own; None takes the configured architecture.
    """

    own: OwnModule | None = None


def build_student(
    config: StudentConfig, classes: int, image_shape: _Shape, seed: int, start: Start | None = None
) -> Classifier:
    """The student as it begins, on the CPU and in training mode.

    Args:
        config: section `student` of the run's configuration.
        classes: K.
        image_shape: (C, H, W) of the federation's images.
        seed: seed of the initialisation; a module of the caller's own keeps its weights.
        start: what it begins as; None for what the configuration alone says.

    Raises:
        ConfigError: there is no such network for such images.
    """
    if start is None or start.own is None:
        return build_classifier(config.architecture, classes, image_shape, config.width, seed=seed)
    module = start.own.copied()
    with seeded(0):
        head = head_of(module, torch.zeros(2, *image_shape))
    return Adapted(module, classes, image_shape, head=head)


def build_fellow(
    config: StudentConfig, classes: int, image_shape: _Shape, seed: int, start: Start | None = None
) -> Classifier:
    """A network that guides the generator beside the student, freshly initialised; arguments as for `build_student`.

    Raises:
        ConfigError: there is no such network for such images.
    """
    return build_classifier(fellows_of(config, start), classes, image_shape, config.width, seed=seed)


def fellows_of(config: StudentConfig, start: Start | None = None) -> str:
    """The architecture of the fellows: the configured one, else the student's, else the default of this project."""
    if config.fellows is not None:
        return config.fellows
    default: str = StudentConfig.model_fields["architecture"].default
    return config.architecture if start is None or start.own is None else default
