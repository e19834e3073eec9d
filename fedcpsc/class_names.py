# SPDX-License-Identifier: Apache-2.0
"""Names of classes: what a name may be, and when two names are too alike to be told apart.

Silos, their owners and the federation tell classes apart by these names. They are public. Torch-free and numpy-free.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from fedcpsc.errors import explain

__all__ = ["NAME_LIMIT", "fault_of_class_names", "folded", "is_class_name", "moved_name", "names_of_outputs"]

NAME_LIMIT = 100  # characters


def folded(name: str) -> str:
    """What of a name is left without case, space and width: two names that are equal in it are too alike."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def is_class_name(name: object) -> bool:
    """Whether it is text of 1 to `NAME_LIMIT` printable characters without space at its ends."""
    return isinstance(name, str) and 0 < len(name) <= NAME_LIMIT and name.isprintable() and name == name.strip()


def names_of_outputs(tree: object) -> tuple[str, ...] | None:
    """Names that a tree, as JSON has it, gives to the outputs 0, 1, ..., without space at their ends.

    Args:
        tree: list of names; or mapping of numbers, also as text, to names, or of names to numbers.

    Returns:
        The names in the order of the outputs; None where it is something else, or the numbers are not 0, 1, ... once
        each. They may still be no names of classes (`fault_of_class_names`).
    """
    if isinstance(tree, Mapping):
        pairs = [(_number(key), name) for key, name in tree.items()]
        if any(number is None for number, _ in pairs):
            pairs = [(_number(number), name) for name, number in tree.items()]
        named = dict(pairs)
        tree = [named.get(number) for number in range(len(tree))]
    if not isinstance(tree, list | tuple) or not tree or not all(isinstance(name, str) for name in tree):
        return None
    return tuple(name.strip() for name in tree)


def moved_name(names: Sequence[str], others: Sequence[str]) -> tuple[int, int] | None:
    """The place of the first name that stands elsewhere among the others, and its place there; None without one.

    Args:
        names: names in the order of the outputs.
        others: other names of the same outputs; case and space make no difference.
    """
    elsewhere = {folded(name): place for place, name in enumerate(others)}
    for place, name in enumerate(names):
        here = place < len(others) and folded(others[place]) == folded(name)
        if not here and (other := elsewhere.get(folded(name))) is not None:
            return place, other
    return None


def _number(value: object) -> int | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def fault_of_class_names(names: Sequence[object], classes: int) -> str | None:
    """What is wrong with the names of `classes` classes, as an explained message; None where nothing is.

    Args:
        names: names in the order of the classes.
        classes: number of classes, >= 1.
    """
    if len(names) != classes:
        return explain("class_names", f"{len(names)} names", f"must be one for each of {classes} classes", "fix them")
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not is_class_name(name):
            shown = name if not isinstance(name, str) or len(name) <= NAME_LIMIT else f"{name[:NAME_LIMIT]}..."
            constraint = f"must be 1 to {NAME_LIMIT} printable characters without space at the ends"
            return explain("class_names", shown, constraint, "rename the class")
        before = seen.get(folded(name))
        if before is not None:
            same = "is there twice" if before == name else f"differs from {before!r} by case or space alone"
            return explain("class_names", name, same, "give each class a name of its own")
        seen[folded(name)] = name
    return None
