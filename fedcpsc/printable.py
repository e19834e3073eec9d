# SPDX-License-Identifier: Apache-2.0
"""Text of others as one line that may be shown: it moves no cursor, changes no colour and begins no line of its own."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, longest: int | None = None) -> str:
    """The text with each character that cannot be printed shown as an escape, such as `\\x1b`.

    Args:
        text: text of any origin.
        longest: number of characters after which it is cut off, >= 4; None: nowhere.
    """
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return shown if longest is None or len(shown) <= longest else f"{shown[: longest - 3]}..."
