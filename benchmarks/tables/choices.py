# SPDX-License-Identifier: Apache-2.0
"""What a configuration may choose by name, from what each choice says of itself."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tables.markdown import table
from fedcpsc.aggregation.rule import RULES
from fedcpsc.choices import DEFAULT_MIXTURE
from fedcpsc.data.readers.source import SOURCES
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.registry import Entry

__all__ = ["data_sources", "prior_kinds", "rules"]


def rules() -> list[str]:
    """Values of `aggregation.rule`."""
    return _table("rule", RULES.documented())


def data_sources() -> list[str]:
    """Values of `data.source`."""
    return _table("source", SOURCES.documented())


def prior_kinds() -> list[str]:
    """Kinds in `synthesis.prior`."""
    rows = (
        (f"`{e.name}`", e.summary, e.when, "yes" if e.name in DEFAULT_MIXTURE else "no")
        for e in PRIOR_KINDS.documented()
    )
    return table("prior | what it draws | when to take it | in the default mixture", rows)


def _table(noun: str, entries: Iterable[Entry]) -> list[str]:
    rows = ((f"`{e.name}`", e.summary, e.when, e.needs or "nothing", _keys(e.parameters)) for e in entries)
    return table(f"{noun} | what it is | when to take it | what it needs | further keys", rows)


def _keys(parameters: tuple[str, ...]) -> str:
    return ", ".join(f"`{key}`" for key in parameters) or "none"
