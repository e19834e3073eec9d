# SPDX-License-Identifier: Apache-2.0
"""Classifiers by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.classifier import Classifier, HeadedClassifier, initialise
from fedcpsc.models.convnet import ConvNet, group_norm
from fedcpsc.models.lenet import LeNet5
from fedcpsc.models.resnet import ResNet
from fedcpsc.models.scattering import ScatteringClassifier
from fedcpsc.models.seeded import seeded
from fedcpsc.models.vgg import Vgg11
from fedcpsc.models.wide_resnet import WideResNet

__all__ = [
    "ARCHITECTURES",
    "Classifier",
    "HeadedClassifier",
    "build_classifier",
    "check_architecture",
    "check_network",
    "check_trainable",
]

_Shape: TypeAlias = tuple[int, int, int]

_MAKERS: dict[str, Callable[[int, _Shape, int], HeadedClassifier]] = {
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


def build_classifier(
    architecture: str, classes: int, image_shape: _Shape, width: int = 16, *, seed: int | None = None
) -> HeadedClassifier:
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
    if classes < 2 or image_shape[0] < 1 or min(image_shape[1:]) < 4 or width < 1:
        raise ConfigError(
            explain(
                "classes, image_shape, width",
                (classes, image_shape, width),
                "must be >= 2, at least (1, 4, 4), >= 1",
                "check the data and the configuration",
            )
        )
    with nullcontext() if seed is None else seeded(seed):
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


def check_trainable(
    section: str,
    architecture: str,
    classes: int,
    image_shape: _Shape,
    width: int,
    batch_size: int,
) -> None:
    """Does nothing where a network of this architecture can be trained on such images; computes nothing.

    Args:
        section: section of the configuration that names it, "teachers" or "student".
        architecture: one of `ARCHITECTURES`.
        classes: number of its outputs, >= 2.
        image_shape: (C, H, W) of the images.
        width: width of the network, as in `build_classifier`.
        batch_size: number of images in a batch.

    Raises:
        ConfigError: for an unknown architecture, images that it cannot take, or batches that its norm cannot take.
    """
    check_architecture(architecture)

    def skeleton() -> Classifier:
        with torch.device("meta"):  # shapes alone
            return build_classifier(architecture, classes, image_shape, width, seed=0)

    check_network(section, architecture, skeleton, image_shape, batch_size)


def check_network(
    section: str,
    architecture: str,
    make: Callable[[], Classifier],
    image_shape: _Shape,
    batch_size: int,
    key: str = "architecture",
) -> Classifier:
    """Gives a network that can be trained on such images in such batches.

    Args:
        section: section of the configuration that names it, "teachers" or "student".
        architecture: name of the network, for messages.
        make: function that makes the network, in training mode; on the device `meta` nothing is computed.
        image_shape: (C, H, W) of the images.
        batch_size: number of images in a batch.
        key: key of the section that names it.

    Raises:
        ConfigError: for images that it cannot take, or batches that its norm cannot take.
    """
    try:
        network = make()
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        with torch.no_grad(), seeded(0):  # it may drop out
            logits = network(torch.zeros(2, *image_shape, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:  # AssertionError: sides that a library checks
        channels, height, side = image_shape
        constraint = f"cannot take images of {side}x{height} pixels and {channels} channels ({_first_line(error)})"
        remedy = "set data.image_size, or use another architecture, such as convnet"
        raise ConfigError(explain(f"{section}.{key}", architecture, constraint, remedy)) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, network.classes):
        shown = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        constraint = f"gives {shown} for two images, must give logits {[2, network.classes]}"
        raise ConfigError(explain(f"{section}.{key}", architecture, constraint, "use another architecture"))
    if batch_size < 2 and any(isinstance(module, _BatchNorm) for module in network.modules()):
        remedy = f"raise it, or use an architecture without batch norm ({section}.{key}=convnet_gn)"
        constraint = f"batch norm, which {architecture} has, needs {section}.batch_size >= 2"
        raise ConfigError(explain(f"{section}.batch_size", batch_size, constraint, remedy))
    return network


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
