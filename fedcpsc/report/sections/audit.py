# SPDX-License-Identifier: Apache-2.0
"""What an audit found, and what it could have found."""

from __future__ import annotations

from collections.abc import Sequence

from fedcpsc.report.audit_folder import AuditFacts, Value
from fedcpsc.report.blocks import Block, Note, Picture, Section, Table
from fedcpsc.report.query_pictures import data_uri

__all__ = ["audited"]

_OLD_AUDIT = (
    "This audit was made before audits recorded the largest bound that their guesses could have shown: a bound below a "
    "claim may only mean that there were too few guesses. Run the audit again to know."
)
_NOT_TESTED = (
    "At least one claim lies above the largest bound that the audit's guesses could have shown (reachable epsilon), or "
    "was put to no test at all: whatever leaked, it could not have been refuted. That it was not says nothing for it."
)


def audited(audit: AuditFacts | None) -> Section:
    """What an audit found."""
    title = "Privacy audit"
    if audit is None:
        text = (
            "No audit belongs to this report: claims above are what the silos say, and nobody tried to disprove them."
        )
        return Section("audit", title, (Note(text),))
    blocks: list[Block] = [Note(audit.verdict.text, audit.verdict.in_short)]
    if audit.verdict.testable is None and audit.bounds:
        blocks.append(Note(_OLD_AUDIT, "Note"))
    elif audit.verdict.testable is False:
        blocks.append(Note(_NOT_TESTED, "Not tested"))
    if audit.run is None:
        blocks.append(Note("The audit made teachers and students of its own; it did not attack those of this run."))
    blocks += [_values("Attacks", audit.rows)] if audit.rows else []
    blocks += [_values("Lower bounds on epsilon, each with the unit it is about", audit.bounds)] if audit.bounds else []
    blocks += [Picture(plot.title, plot.alt, data_uri(plot.content, plot.kind)) for plot in audit.plots]
    return Section("audit", title, tuple(blocks))


def _values(caption: str, rows: Sequence[dict[str, Value]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    return Table.of(caption, [column.replace("_", " ") for column in columns], cells)


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
