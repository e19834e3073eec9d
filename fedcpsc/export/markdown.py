# SPDX-License-Identifier: Apache-2.0
"""Cards in the form that Hugging Face's hub reads: how their templates are filled in."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fedcpsc.printable import printable

__all__ = ["one_line", "template"]

_TEMPLATES = Path(__file__).parent / "templates"
# of Markdown, with formulas; an underscore within a word, as in add_remove, is none. HTML is the template's to escape
_MARKUP = re.compile(r"[\\`*\[\]$~]|(?<!\w)_|_(?!\w)")


def template(name: str) -> Template:
    """A template of a card.

    Args:
        name: name of its file in `templates/`.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,  # what a silo calls itself is no markup
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["line"] = one_line
    return environment.get_template(name)


def one_line(text: object) -> str:
    """What others named, on one line and in one cell of a table, without any markup; "-" where there is nothing."""
    if text is None:
        return "-"
    return _MARKUP.sub(r"\\\g<0>", " ".join(printable(str(text)).split()).replace("|", "/"))
