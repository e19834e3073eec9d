# SPDX-License-Identifier: Apache-2.0
"""What the run's student begins as: what the caller gave, and what the run's folder says of it."""

from __future__ import annotations

from fedcpsc.errors import ConfigError, explain
from fedcpsc.models.own_module import GivenStudent, own_module
from fedcpsc.models.pretrained import read_pretrained
from fedcpsc.models.students import Start
from fedcpsc.runs.student_start import StudentStart
from fedcpsc.student_config import StudentConfig

__all__ = ["described_start", "student_start"]


def student_start(config: StudentConfig, given: GivenStudent | None) -> Start:
    """What the student begins as.

    Args:
        config: section `student` of the run's configuration.
        given: module of the caller's own, or a function that makes it; None takes the configured architecture.

    Raises:
        ConfigError: it is no module, or cannot be copied; or the file of weights cannot be read.
    """
    own = None if given is None else own_module(given)
    if config.weights is None:
        return Start(own)
    if own is not None:
        constraint = f"are for student.architecture, and the student is {own.name}, a module of the caller's own"
        raise ConfigError(explain("student.weights", config.weights, constraint, "load them into the module instead"))
    return Start(weights=read_pretrained(config.weights))


def described_start(start: Start) -> StudentStart:
    """What the run's folder says of it."""
    return {
        "module": None if start.own is None else start.own.name,
        "weights": None if start.weights is None else start.weights.sha256,
    }
