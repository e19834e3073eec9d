# SPDX-License-Identifier: Apache-2.0
"""Whether a student can be fitted, looked at before anything is asked."""

from __future__ import annotations

from fedcpsc.config import RunConfig
from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.adapted import Adapted
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.device import choose_device
from fedcpsc.models.own_module import check_own_module
from fedcpsc.models.registry import check_network, check_trainable
from fedcpsc.models.students import Start, build_student, fellows_of

__all__ = ["check_student"]

_Shape = tuple[int, int, int]


def check_student(config: RunConfig, classes: int, image_shape: _Shape, start: Start | None = None) -> None:
    """Does nothing where the student, and the committee beside it, can be fitted to such images.

    Args:
        config: configuration of the run.
        classes: K.
        image_shape: (C, H, W) of the federation's images.
        start: what the student begins as; None for what the configuration alone says.

    Raises:
        ConfigError: naming what does not fit.
    """
    student, start = config.student, start or Start()
    if start.own is None:
        check_trainable("student", student.architecture, classes, image_shape, student.width, student.batch_size)
    else:
        if config.runtime.processes > 1:
            constraint = f"the other processes cannot make {start.own.name}, a module of the caller's own"
            remedy = "set runtime.processes: 1"
            raise ConfigError(explain("runtime.processes", config.runtime.processes, constraint, remedy))
        check_own_module(
            start.own,
            classes,
            image_shape,
            batch_size=student.batch_size,
            device=choose_device(config.runtime.device),
            precision=student.precision,
        )
        network = build_student(student, classes, image_shape, 0, start)
        check_network("student", start.own.name, network, student.batch_size)
        _check_features(config, start.own.name, network)
    fellows = fellows_of(student, start)
    if student.committee > 1 and (start.own is not None or fellows != student.architecture):
        check_trainable("student", fellows, classes, image_shape, student.width, student.batch_size, "fellows")


def _check_features(config: RunConfig, name: str, network: Classifier) -> None:
    """Does nothing where the network has the features that the configured losses look at.

    Raises:
        ConfigError: it has none, and a contrast of features is wanted.
    """
    if not isinstance(network, Adapted) or network.has_features:
        return
    for section, weight in (
        ("student", config.student.contrastive_weight),
        ("synthesis", config.synthesis.contrastive_weight),
    ):
        if weight > 0:
            constraint = f"contrasts features, and {name} ends in no linear layer whose input they would be"
            raise ConfigError(explain(f"{section}.contrastive_weight", weight, constraint, "set it to 0"))
