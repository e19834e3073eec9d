# SPDX-License-Identifier: Apache-2.0
"""What a silo's owner may choose by name, from what each choice says of itself."""

from __future__ import annotations

from benchmarks.tables.markdown import table
from fedcpsc.gatekeeper.mechanisms.mechanism import MECHANISM_KINDS
from fedcpsc.teachers.format import FORMATS

__all__ = ["mechanisms", "teacher_formats"]


def mechanisms() -> list[str]:
    """Values of a policy's `mechanism.kind`."""
    rows = (
        (f"`{e.name}`", e.summary, e.when, e.teacher.words, e.cost, e.guarantee) for e in MECHANISM_KINDS.documented()
    )
    head = "`mechanism.kind` | what it is | when to take it | teacher | one answer costs mu² | what is proven"
    return table(head, rows)


def teacher_formats() -> list[str]:
    """Values of a manifest's `kind`."""
    rows = (
        (f"`{e.name}`", e.weights_file, e.when, e.needs or "nothing", e.code, e.checks) for e in FORMATS.documented()
    )
    return table("`kind` | weights file | when to take it | needs | code that it can run | what is checked", rows)
