# SPDX-License-Identifier: Apache-2.0
"""Descriptions of arguments, attributes and options, wherever the code gives one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["Description", "descriptions", "lacks_its_noun"]

FOLDERS = ("fedcpsc", "clients", "server", "website")
PREPOSITIONS = re.findall(
    r"\w+",
    "about above after against among as at before below beside between but by during for from if in inside into of on "
    "once over per since than that through to under until when where which while with within without",
)

_SECTION = re.compile(r"^(?P<indent> *)(?:Args|Attributes):$")
_ENTRY = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*): (?P<text>.*)$")


@dataclass(frozen=True)
class Description:
    """What is said of one argument, attribute, field or option.

    Attributes:
        place: file and line, as editors take them.
        name: the name or names that it describes, or the kind of call for fields and options.
        text: the description.
    """

    place: str
    name: str
    text: str


def descriptions(root: Path) -> Iterator[Description]:
    """Every entry of a docstring's `Args:` or `Attributes:`, every `description=` and `help=` in a call."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, _Documented):
                    yield from _entries(name, node)
                if isinstance(node, ast.Call):
                    yield from _keywords(name, node)


_Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _entries(path: str, node: _Documented) -> Iterator[Description]:
    text = ast.get_docstring(node, clean=False)
    if text is None:
        return
    first = node.body[0].lineno
    inside: int | None = None  # the indent of the section's entries
    for number, line in enumerate(text.splitlines(), first):
        if section := _SECTION.match(line):
            inside = len(section["indent"]) + 4
        elif inside is not None and line.strip():
            indent = len(line) - len(line.lstrip())
            entry = _ENTRY.match(line.strip())
            if indent < inside:
                inside = None
            elif indent == inside and entry:
                yield Description(f"{path}:{number}", entry["names"], entry["text"])


def _keywords(path: str, node: ast.Call) -> Iterator[Description]:
    for keyword in node.keywords:
        said = keyword.value
        if keyword.arg in ("description", "help") and isinstance(said, ast.Constant) and isinstance(said.value, str):
            yield Description(f"{path}:{said.lineno}", keyword.arg, said.value)


def lacks_its_noun(description: Description) -> bool:
    """Whether it begins with a bare preposition or conjunction: "of the run" says nothing of what the argument is."""
    first = re.match(r"[A-Za-z]+", description.text)
    return bool(first) and first[0].lower() in PREPOSITIONS
