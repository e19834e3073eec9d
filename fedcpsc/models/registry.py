# SPDX-License-Identifier: Apache-2.0
"""Classifiers by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TypeAlias

import torch

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.classifier import Classifier, initialise
from fedcpsc.models.convnet import ConvNet, group_norm
from fedcpsc.models.lenet import LeNet5
from fedcpsc.models.resnet import ResNet
from fedcpsc.models.scattering import ScatteringClassifier
from fedcpsc.models.vgg import Vgg11
from fedcpsc.models.wide_resnet import WideResNet

__all__ = ["ARCHITECTURES", "SMALLEST_SIDE", "Classifier", "build_classifier", "check_architecture"]

_Shape: TypeAlias = tuple[int, int, int]

_MAKERS: dict[str, Callable[[int, _Shape, int], Classifier]] = {
    "convnet": ConvNet,
    "convnet_gn": lambda classes, shape, width: ConvNet(classes, shape, width, group_norm),
    "lenet5": lambda classes, shape, _: LeNet5(classes, shape),
    "resnet18": lambda classes, shape, _: ResNet(classes, shape, (2, 2, 2, 2)),
    "resnet18_narrow": lambda classes, shape, width: ResNet(classes, shape, (2, 2, 2, 2), width),
    "resnet34": lambda classes, shape, _: ResNet(classes, shape, (3, 4, 6, 3)),
    "wrn16_1": lambda classes, shape, _: WideResNet(classes, shape, 16, 1),
    "wrn16_2": lambda classes, shape, _: WideResNet(classes, shape, 16, 2),
    "wrn40_1": lambda classes, shape, _: WideResNet(classes, shape, 40, 1),
    "wrn40_2": lambda classes, shape, _: WideResNet(classes, shape, 40, 2),
    "vgg11": lambda classes, shape, _: Vgg11(classes, shape),
    "scattering": lambda classes, shape, _: ScatteringClassifier(classes, shape),
}

ARCHITECTURES = tuple(_MAKERS)
SMALLEST_SIDE = 4
"""Fewest pixels of an image's side that every architecture takes."""


def build_classifier(
    architecture: str, classes: int, image_shape: _Shape, width: int = 16, *, seed: int | None = None
) -> Classifier:
    """A freshly initialised classifier, on the CPU and in training mode.

    Args:
        architecture: one of `ARCHITECTURES`.
        classes: K >= 2.
        image_shape: (C, H, W), sides of at least 4.
        width: channels of the first stage of `convnet`, `convnet_gn` and `resnet18_narrow`; the other architectures
            have the widths they were published with.
        seed: seed of the initialisation; torch's global generators are left alone. None draws from the global one.

    Raises:
        ConfigError: for an unknown architecture, naming the nearest, or sizes out of range.
    """
    check_architecture(architecture)
    if classes < 2 or image_shape[0] < 1 or min(image_shape[1:]) < SMALLEST_SIDE or width < 1:
        raise ConfigError(
            explain(
                "classes, image_shape, width",
                (classes, image_shape, width),
                "must be >= 2, at least (1, 4, 4), >= 1",
                "check the data and the configuration",
            )
        )
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the CUDA generators too
        network = _MAKERS[architecture](classes, image_shape, width)
        initialise(network)
    return network


def check_architecture(architecture: str) -> None:
    """Does nothing for a name of `ARCHITECTURES`.

    Raises:
        ConfigError: for another, naming the nearest.
    """
    if architecture not in _MAKERS:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, n=1, cutoff=0.0)[0]
        remedy = f"use one of {', '.join(ARCHITECTURES)}"
        raise ConfigError(explain("architecture", architecture, f"unknown; the nearest is {near!r}", remedy))
