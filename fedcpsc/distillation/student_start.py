# SPDX-License-Identifier: Apache-2.0
"""What the run's student begins as: what the caller gave, and what the run's folder says of it."""

from __future__ import annotations

from fedcpsc.models.own_module import GivenStudent, own_module
from fedcpsc.models.students import Start
from fedcpsc.runs.student_start import StudentStart

__all__ = ["described_start", "student_start"]


def student_start(given: GivenStudent | None) -> Start:
    """What the student begins as.

    Args:
        given: module of the caller's own, or a function that makes it; None takes the configured architecture.

    Raises:
        ConfigError: it is no module, or cannot be copied.
    """
    return Start(None if given is None else own_module(given))


def described_start(start: Start) -> StudentStart:
    """What the run's folder says of it."""
    return {"module": None if start.own is None else start.own.name}
