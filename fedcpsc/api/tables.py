# SPDX-License-Identifier: Apache-2.0
"""A small table for whoever looks at an object: text in a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from fedcpsc.printable import printable

__all__ = ["Table", "percent"]


@dataclass(frozen=True)
class Table:
    """A table; its texts may come from strangers, and are escaped.

    Attributes:
        title: line above it.
        columns: heads of the columns; the first is set to the left, the others to the right.
        rows: cells of each row.
        notes: lines below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def as_text(self) -> str:
        """Aligned columns, without a frame."""
        cells = [self.columns, *(tuple(map(printable, row)) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
        return "\n".join([printable(self.title), *lines, *map(printable, self.notes)])

    def as_html(self) -> str:
        """One `<table>` without style of its own: a notebook sets it."""

        def row(cells: tuple[str, ...], tag: str) -> str:
            sides = ["left"] + ["right"] * (len(cells) - 1)
            return "".join(
                f'<{tag} style="text-align:{side}">{escape(text)}</{tag}>'
                for text, side in zip(cells, sides, strict=True)
            )

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes)
        head = f"<thead><tr>{row(self.columns, 'th')}</tr></thead>"
        return f"<table><caption>{escape(self.title)}</caption>{head}<tbody>{body}</tbody></table>{notes}"


def percent(share: float | None) -> str:
    """A share as percents with one decimal; a dash for None."""
    return "-" if share is None else f"{share:.1%}"
