# SPDX-License-Identifier: Apache-2.0
"""The white-box mode's one teacher: a classifier in this process, read from a file or trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedcpsc.data.sources import load_train
from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.registry import HeadedClassifier, build_classifier
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.plain import train_classifier
from fedcpsc.training.plan import PlainTraining
from fedcpsc.white_box.objective import batch_norms
from fedcpsc.white_box.plan import WhiteBoxConfig

__all__ = ["check_teacher", "make_teacher", "read_teacher", "save_network"]


def make_teacher(
    config: WhiteBoxConfig, device: torch.device, tell: Callable[[str], None] = lambda line: None
) -> HeadedClassifier:
    """The teacher, trained on the training images or read from `teacher.weights`; on the CPU, in evaluation mode.

    Args:
        config: the run's.
        device: device to train on.
        tell: called with how far the training is.

    Raises:
        ConfigError: the file does not hold this architecture, or the losses need what it has not.
        DataError: the data cannot be read as configured.
        TeacherError: the training diverged.
    """
    plan = config.teacher
    images = load_train(config.data, config.seed)
    if plan.weights is not None:
        return read_teacher(config, Path(plan.weights), images.classes, images.image_shape)
    check_teacher(config, build_classifier(plan.architecture, images.classes, images.image_shape, plan.width, seed=0))
    training = TeachersConfig(
        width=plan.width,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        shift=plan.shift,
        flip=plan.flip,
    )
    tell("training the teacher")
    return train_classifier(
        images,
        training,
        derive_seed(config.seed, "teacher"),
        plan.architecture,
        lambda line: tell(f"training the teacher: {line}"),
        device,
        PlainTraining(optimiser=plan.optimiser),
    )


def read_teacher(
    config: WhiteBoxConfig, path: Path, classes: int, image_shape: tuple[int, int, int]
) -> HeadedClassifier:
    """The teacher in a safetensors file, checked as `make_teacher` does.

    Args:
        config: names the architecture.
        path: path of the file.
        classes: K of the data.
        image_shape: (C, H, W) of the data.

    Raises:
        ConfigError: the file is missing, broken or of another architecture.
    """
    plan = config.teacher
    network = build_classifier(plan.architecture, classes, image_shape, plan.width, seed=0)
    check_teacher(config, network)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        constraint = f"is no {plan.architecture} for {classes} classes of {image_shape} ({str(error).splitlines()[0]})"
        raise ConfigError(
            explain("teacher.weights", str(path), constraint, "name the file's own architecture and data")
        ) from error
    return network.eval()


def check_teacher(config: WhiteBoxConfig, teacher: HeadedClassifier) -> None:
    """Does nothing where the losses find in the teacher what they look at.

    Raises:
        ConfigError: L_BN is wanted of a teacher without batch norm.
    """
    if config.loss.beta and not batch_norms(teacher):
        constraint = f"needs a teacher with batch norm, which {config.teacher.architecture} has not"
        raise ConfigError(explain("loss.beta", config.loss.beta, constraint, "set loss.beta=0 or take another"))


def save_network(network: torch.nn.Module, path: Path) -> None:
    """Its weights and statistics as safetensors, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, partial)
    partial.replace(path)
