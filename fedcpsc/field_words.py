# SPDX-License-Identifier: Apache-2.0
"""What a configuration's class says of itself and of its fields: descriptions first, then its docstring."""

from __future__ import annotations

import inspect
import re

from pydantic import BaseModel

__all__ = ["about_of", "meanings_of"]

_ATTRIBUTE = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*)$")


def about_of(model: type[BaseModel]) -> str:
    """The class's docstring on one line, without its list of attributes."""
    about = inspect.cleandoc(model.__doc__ or "").partition("Attributes:")[0]
    return re.sub(r"\s+", " ", about).strip()


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """What each field means, by its name: its `description`, else its line in the docstring, its parents' included.

    A field that nothing is said of is missing.
    """
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            found |= _attributes(inspect.cleandoc(parent.__doc__ or ""))
    said = {name: field.description for name, field in model.model_fields.items() if field.description}
    return found | said


def _attributes(docstring: str) -> dict[str, str]:
    """A Google-style `Attributes:` list; one entry may speak of several names."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("Attributes:")[2].splitlines():
        match = _ATTRIBUTE.match(line)
        if match:
            names = match["names"].split(", ")
            found |= dict.fromkeys(names, match["text"])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
