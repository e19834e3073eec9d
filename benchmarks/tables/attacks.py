# SPDX-License-Identifier: Apache-2.0
"""The attacks of an audit, from what each says of itself."""

from __future__ import annotations

from benchmarks.tables.markdown import table
from fedcpsc.audit.attacks.attack import ATTACKS

__all__ = ["attacks"]


def attacks() -> list[str]:
    """Values of `attacks` in an audit's plan."""
    rows = (
        (f"`{e.name}`", e.summary, e.when, e.needs or "nothing", f"[{e.source}](https://arxiv.org/abs/{e.source})")
        for e in ATTACKS.documented()
    )
    return table("attack | what it is | when to take it | what it needs | source", rows)
