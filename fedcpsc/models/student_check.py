# SPDX-License-Identifier: Apache-2.0
"""Whether a student can be fitted, looked at before anything is asked."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedcpsc.config import RunConfig
from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.adapted import Adapted
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.device import choose_device
from fedcpsc.models.frozen_body import FrozenBody
from fedcpsc.models.own_module import OwnModule, check_own_module
from fedcpsc.models.registry import check_network
from fedcpsc.models.small_images import made_for_larger
from fedcpsc.models.students import Start, build_fellow, build_student, fellows_of, learns_features, match_of

__all__ = ["check_student"]

_Shape = tuple[int, int, int]


def check_student(
    config: RunConfig,
    classes: int,
    image_shape: _Shape,
    start: Start | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Does nothing where the student, and the committee beside it, can be fitted to such images.

    Args:
        config: configuration of the run.
        classes: K.
        image_shape: (C, H, W) of the federation's images.
        start: what the student begins as; None for what the configuration alone says.
        tell: function called with one line for each event an operator should know.

    Raises:
        ConfigError: naming what does not fit.
    """
    student, start = config.student, start or Start()
    batch_size, name = student.batch_size, student.architecture
    if start.own is not None:
        name = start.own.name
        _check_own(start.own, config, classes, image_shape)
    _check_constants(config, name, image_shape[0], own=start.own is not None)
    network = check_network(
        "student", name, lambda: build_student(student, classes, image_shape, None, start), image_shape, batch_size
    )
    fellows, besides = fellows_of(student, start), [(name, network)]
    if student.committee > 1 and (start.own is not None or fellows != student.architecture):
        besides.append(
            (
                fellows,
                check_network(
                    "student", fellows, lambda: build_fellow(student, classes, image_shape, None, start), image_shape,
                    batch_size, "fellows",
                ),
            )
        )  # fmt: skip
    for each, built in besides:
        _check_norms(config, each, built)
        if config.synthesis.contrastive_weight > 0:
            _check_features("synthesis", config.synthesis.contrastive_weight, each, built)
    if student.contrastive_weight > 0:
        _check_features("student", student.contrastive_weight, name, network)
    if student.pretraining_steps and not learns_features(network):
        constraint = f"is for features that are learnt, and {name} has none"
        remedy = "set it to 0"
        raise ConfigError(explain("student.pretraining_steps", student.pretraining_steps, constraint, remedy))
    if start.weights is not None:
        matched = match_of(start.weights, network.stored, student, classes, image_shape)
        tell(f"student.weights: of {start.weights.path.name} {matched.in_words(frozen=student.frozen)}")
    if start.own is None and (line := made_for_larger(name, network, image_shape)) is not None:
        tell(line)


def _check_own(own: OwnModule, config: RunConfig, classes: int, image_shape: _Shape) -> None:
    """Does nothing where a module of the caller's own can be fitted.

    Raises:
        ConfigError: it cannot, or not by several processes.
    """
    if config.runtime.processes > 1:
        constraint = f"the other processes cannot make {own.name}, a module of the caller's own"
        remedy = "set runtime.processes: 1"
        raise ConfigError(explain("runtime.processes", config.runtime.processes, constraint, remedy))
    check_own_module(
        own,
        classes,
        image_shape,
        batch_size=config.student.batch_size,
        device=choose_device(config.runtime.device),
        precision=config.student.precision,
    )


def _check_constants(config: RunConfig, name: str, channels: int, *, own: bool) -> None:
    """Does nothing where there is one constant of the normalisation for each channel, or one for all.

    Raises:
        ConfigError: there are others.
    """
    constants = config.student.normalisation
    if constants is None or len(constants.mean) == 1:
        return
    repeated = channels == 1 and "/" in config.student.architecture and not own
    taken = 3 if repeated else channels
    if len(constants.mean) != taken:
        constraint = f"has {len(constants.mean)} means, and {name} takes images of {taken} channels"
        remedy = "give one mean and one std for all channels, or one for each"
        raise ConfigError(explain("student.normalisation", list(constants.mean), constraint, remedy))


def _check_norms(config: RunConfig, name: str, network: Classifier) -> None:
    """Does nothing where several processes can share the network's norms (`data_parallel`).

    Raises:
        ConfigError: it has one that takes statistics over a batch in a way of its own.
    """
    processes = config.runtime.processes
    strange = [
        type(m).__name__ for m in network.modules() if isinstance(m, _BatchNorm) and type(m) is not nn.BatchNorm2d
    ]
    if processes > 1 and strange:
        constraint = f"cannot share a batch of {name}, whose norm {strange[0]} is no plain batch norm of images"
        raise ConfigError(explain("runtime.processes", processes, constraint, "set runtime.processes: 1"))


def _check_features(section: str, weight: float, name: str, network: Classifier) -> None:
    """Does nothing where the network has features, which a contrast looks at.

    Raises:
        ConfigError: it has none.
    """
    if section == "student" and isinstance(network, FrozenBody):
        constraint = f"contrasts features that are learnt, and those of {name} are frozen"
        raise ConfigError(explain("student.contrastive_weight", weight, constraint, "set it to 0"))
    if isinstance(network, Adapted) and not network.has_features:
        constraint = f"contrasts features, and {name} ends in no linear layer whose input they would be"
        raise ConfigError(explain(f"{section}.contrastive_weight", weight, constraint, "set it to 0"))
