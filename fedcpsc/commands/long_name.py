# SPDX-License-Identifier: Apache-2.0
"""A name in a narrow column: over as many lines as it needs, broken where it is joined, and never cut off."""

from __future__ import annotations

import textwrap

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement

from fedcpsc.commands.literal import literal
from fedcpsc.printable import printable

__all__ = ["LongName"]

_LEAST = 16  # columns that a longer name asks for


class LongName:
    """Renderable for a cell of a table.

    Args:
        text: text of any origin.
    """

    def __init__(self, text: str) -> None:
        self._text = printable(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = textwrap.wrap(self._text, max(4, options.max_width)) or [""]
        yield literal("\n".join(lines))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = literal(self._text).cell_len
        return Measurement(min(whole, _LEAST), whole)
