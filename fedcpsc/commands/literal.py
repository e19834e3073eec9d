# SPDX-License-Identifier: Apache-2.0
"""Text that the terminal shows as it is: the name of a silo, a folder or a policy is no markup and moves no cursor."""

from __future__ import annotations

from rich.text import Text

from fedcpsc.printable import printable

__all__ = ["literal"]


def literal(text: str) -> Text:
    """`text` for rich, which would read `[bold]` as a command, fail at `[/]`, and pass on a terminal's escape codes.

    Args:
        text: text of any origin; a line break stays one, and what else cannot be printed is shown as an escape.
    """
    return Text("\n".join(map(printable, text.split("\n"))))
