# SPDX-License-Identifier: Apache-2.0
"""Where the answers came from: earlier runs, and what each silo was charged for there and here."""

from __future__ import annotations

from fedcpsc.report.blocks import Block, Note, Section, Table, folded_where_long
from fedcpsc.runs.lineage import Lineage
from fedcpsc.runs.payments import payments, run_in_words
from fedcpsc.runs.read import RunFacts

__all__ = ["earlier_runs"]


def earlier_runs(run: RunFacts) -> list[Section]:
    """The section; none where the run asked for all of its answers itself.

    Args:
        run: facts of the run.
    """
    lineage = run.lineage
    if lineage is None:
        return []
    names = " and ".join(run_in_words(one) for one in lineage.runs)
    text = f"This run began with the answers of {names}, and asked for more."
    if lineage.kind == "refit":
        text = f"This run asked no silo anything: its student was fitted to what {names} had banked."
    rows = [
        (paid.silo, *(f"{count:,}" for count in paid.before), f"{paid.here:,}", f"{sum(paid.before) + paid.here:,}")
        for paid in payments(run)
    ]
    columns = ("silo", *(one.run for one in lineage.runs), "this run", "all")
    table = Table.of("Images that each silo answered, and was charged for", columns, rows)
    blocks: list[Block] = [Note(text), folded_where_long(table), *(Note(line) for line in _apart(lineage))]
    return [Section("earlier-runs", "Where the answers came from", tuple(blocks))]


def _apart(lineage: Lineage) -> list[str]:
    """A line for each silo whose earlier answers are kept apart."""
    return [
        f"{column.column}: what {column.silo} answered "
        + ("by an earlier teacher." if column.replaced else "in another form, or under other noise.")
        for column in lineage.earlier
    ]
