# SPDX-License-Identifier: Apache-2.0
"""Standard output for commands that print more than plain lines; rich is imported when the first of them does."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console"]


@cache
def console() -> Console:
    """The console of this process; it takes no `:name:` for an emoji."""
    from rich.console import Console  # noqa: PLC0415

    return Console(emoji=False)
