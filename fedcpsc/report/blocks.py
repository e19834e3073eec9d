# SPDX-License-Identifier: Apache-2.0
"""What a report's page is made of: sections of plain blocks, each with one accessible form in the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

__all__ = [
    "LONG",
    "MOST_CLASSES",
    "Block",
    "Card",
    "Cell",
    "Chart",
    "Code",
    "Facts",
    "Folded",
    "Gallery",
    "KeyFigure",
    "Note",
    "Picture",
    "Section",
    "Strip",
    "Table",
    "class_label",
    "duration",
    "folded_where_long",
    "percent",
    "share_cell",
    "short_label",
    "stand_upright",
]


LONG = 30
"""Rows of a table, or silos, from which on the page shows a summary of them first."""

MOST_CLASSES = 20
"""Classes up to which a table has a column for each."""


_SHORT = 18  # characters of a class's name at the head of a column, where it stands upright
_LONG_NAME = 30  # characters from which on a row's header takes several lines
_NARROW = 4  # characters that fit above a figure


def class_label(names: Sequence[str] | None, k: int) -> str:
    """The name of class k, or where it has none, its number."""
    return names[k] if names is not None and k < len(names) else f"class {k}"


def short_label(names: Sequence[str] | None, k: int) -> str:
    """The same for the head of a narrow column."""
    name = names[k] if names is not None and k < len(names) else str(k)
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def stand_upright(heads: Sequence[str]) -> bool:
    """Whether the heads of narrow columns, the first apart, are so long that they should stand upright."""
    return any(len(head) > _NARROW for head in heads[1:])


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: words of the cell; meaning never hangs on shade or picture alone.
        shade: strength of its tint, in [0, 1]; 0 dims the text, None leaves it plain.
        picture: data URI shown above the text.
        alt: description of the picture in words.
        size: width and height of the picture, in pixels.
    """

    text: str
    shade: float | None = None
    picture: str | None = None
    alt: str = ""
    size: tuple[int, int] = (0, 0)

    @property
    def form(self) -> str:
        """How a row's header of this text is set: "short" stays on one line, "long" breaks also within a word."""
        if len(self.text) <= _SHORT:
            return "short"
        return "long" if len(self.text) > _LONG_NAME else ""


@dataclass(frozen=True)
class Note:
    """A paragraph; `mark` puts a word before it that does not depend on colour, e.g. "Alarm"."""

    kind: ClassVar[str] = "note"
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Facts:
    """Terms and their values."""

    kind: ClassVar[str] = "facts"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyFigure:
    """One figure of the strip at the head of the page.

    Attributes:
        term: name of the figure, a few words.
        value: the figure itself, large.
        note: words below it.
        main: whether it is the one that the page is about.
    """

    term: str
    value: str
    note: str = ""
    main: bool = False


@dataclass(frozen=True)
class Strip:
    """The figures to see first, side by side."""

    kind: ClassVar[str] = "strip"
    items: tuple[KeyFigure, ...]


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first cell of each row is its header.

    Attributes:
        dense: whether figures stand small and close together, as in a confusion matrix.
        foot: number of rows at the end that are set apart.
        words: number of columns at the end that hold words rather than figures, and so begin at the left.
        beside: whether the next block stands beside it where the screen is wide enough.
        upright: whether the heads of all columns but the first stand upright, so that long names leave columns narrow.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    dense: bool = False
    foot: int = 0
    words: int = 0
    upright: bool = False
    beside: bool = False

    @classmethod
    def of(
        cls,
        caption: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Cell | str]],
        foot: int = 0,
        words: int = 0,
        beside: bool = False,
    ) -> Table:
        """From rows of texts."""
        cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
        return cls(caption, tuple(columns), cells, foot=foot, words=words, beside=beside)


@dataclass(frozen=True)
class Chart:
    """A drawing, what it shows in words, and its figures as a table, where no other table of the page has them.

    Attributes:
        svg: HTML of the drawing, as `fedcpsc.report.figures` makes it; its colours are the page's variables.
        beside: whether the next block stands beside it where the screen is wide enough.
    """

    kind: ClassVar[str] = "chart"
    title: str
    description: str
    svg: str
    table: Table | None
    beside: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture made elsewhere, on a white ground."""

    kind: ClassVar[str] = "picture"
    title: str
    alt: str
    source: str


@dataclass(frozen=True)
class Card:
    """One picture of a gallery: a name above, the picture as data URI, its description, a note below.

    Attributes:
        size: width and height of the picture, in pixels.
    """

    label: str
    picture: str
    alt: str
    note: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many in a row as the reader's screen holds."""

    kind: ClassVar[str] = "gallery"
    caption: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that are opened on demand."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Note | Facts | Strip | Table | Chart | Picture | Gallery | Code | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: name that links lead to, unique on the page: letters and hyphens.
        quiet: whether its title is for screen readers and the list of contents alone.
    """

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    quiet: bool = False


def folded_where_long(table: Table) -> Table | Folded:
    """The table, behind its caption where it has more rows than are read at a glance."""
    return table if len(table.rows) <= LONG else Folded(f"{table.caption} ({len(table.rows)} rows)", (table,))


def percent(share: float | None, decimals: int = 1) -> str:
    """0.123 -> "12.3 %"; None -> "-"."""
    return "-" if share is None else f"{100 * share:.{decimals}f} %"


def share_cell(share: float) -> Cell:
    """A share in [0, 1] as whole per cent, tinted by it; what rounds to nothing is dimmed."""
    text = f"{100 * share:.0f}"
    return Cell(text, 0.0 if text == "0" else share)


def duration(seconds: float) -> str:
    """125 -> "2 min 5 s"; below ten seconds with one decimal."""
    if seconds < 0.05:
        return "less than 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
