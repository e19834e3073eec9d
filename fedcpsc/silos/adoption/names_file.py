# SPDX-License-Identifier: Apache-2.0
"""A text file with the names of a model's classes: one a line in the order of the outputs, numbered lines, or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from fedcpsc.class_names import fault_of_class_names, folded, names_of_outputs
from fedcpsc.errors import ConfigError, explain

__all__ = ["read_class_names"]

_LARGEST_FILE = 2**24  # bytes of a file of names
_PLAIN = "write one name a line, as the outputs go, and nothing else"
_BEFORE = re.compile(r"(?P<number>\d{1,9})(?:\s*[:;,)=\t]\s*|\.\s+|\s+)(?P<name>[^\s\d].*)")
_AFTER = re.compile(r"(?P<name>.*[^\s\d])\s*[:;,=\t]\s*(?P<number>\d{1,9})")
_MARKUP = (
    (re.compile(r"[-*] .*"), "begins with a dash, as in YAML"),
    (re.compile(r"""(["']).*\1\s*,?"""), "is in quotes"),
    (re.compile(r".*[,;]"), "ends with a comma or semicolon"),
)
_YAML_KEY = re.compile(r"(names|classes|labels|nc)\s*:.*", re.IGNORECASE)


def read_class_names(path: Path, notes: list[str] | None = None) -> tuple[str, ...]:
    """The names in a file, UTF-8, in the order of the model's outputs.

    One a line; spaces around a name are left out. Where every line has a number, before its name or after it, and these
    are 0, 1, ... once each, they are the numbers of the outputs. JSON is read too: a list of names, or names with the
    numbers of their outputs.

    Args:
        path: path of the file.
        notes: sentences for the owner, to which this may add how the file was understood.

    Raises:
        ConfigError: where it cannot be read, is empty, has a line without a name between others, is written in a form
            whose names or order are in doubt, or has names that are the same but for case and space.
    """
    text = _text(path)
    names = _of_json(path, text, notes)
    if names is None:
        lines = [line.strip() for line in text.rstrip().splitlines()]
        if not lines:
            raise ConfigError(explain("--classes", str(path), "names no class", "name one a line, as the outputs go"))
        if "" in lines:
            remedy = "remove the line; each line stands for one output of the model"
            raise ConfigError(explain("--classes", str(path), f"line {lines.index('') + 1} is empty", remedy))
        _check_plain(path, lines)
        names = _of_numbered(path, lines, notes) or tuple(lines)
    if fault := fault_of_class_names(names, len(names)):
        raise ConfigError(f"--classes {path}: {fault}")
    return names


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(explain("--classes", str(path), "is too large for a file of names", "name one a line"))
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        remedy = "give a text file with the names of the classes, one a line"
        raise ConfigError(explain("--classes", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(explain("--classes", str(path), "is no UTF-8 text", "save it as UTF-8")) from error


def _of_json(path: Path, text: str, notes: list[str] | None) -> tuple[str, ...] | None:
    """The names in JSON; None where the text is none.

    Raises:
        ConfigError: where it looks like JSON, and does not name each output.
    """
    plain = text.strip()
    if (plain[:1], plain[-1:]) not in (("[", "]"), ("{", "}")):
        return None
    try:
        names = names_of_outputs(json.loads(plain))
    except (ValueError, RecursionError):
        names = None
    if names is None:
        shown = "looks like JSON, and is neither a list of names nor names with the numbers of their outputs from 0 on"
        raise ConfigError(explain("--classes", str(path), shown, _PLAIN))
    if notes is not None:
        notes.append(f"{path.name} is read as JSON: output 0 is {names[0]!r}")
    return names


def _check_plain(path: Path, lines: Sequence[str]) -> None:
    """Does nothing where the lines can be names as they are, or numbered ones.

    Raises:
        ConfigError: where they look like another format.
    """
    shown = next((fault for form, fault in _MARKUP if all(map(form.fullmatch, lines))), None)
    if shown is None and len(lines) > 1 and all(line.endswith(",") for line in lines[:-1]):
        shown = "but the last ends with a comma"
    if shown is not None:
        raise ConfigError(explain("--classes", str(path), f"every line {shown}", _PLAIN))
    key = next((line for line in lines if _YAML_KEY.fullmatch(line)), None)
    if key is not None:
        raise ConfigError(explain("--classes", str(path), f"has the line {key[:60]!r}, as in YAML", _PLAIN))
    if len(lines) == 1 and re.search(r"[,;\t]", lines[0]):
        raise ConfigError(explain("--classes", str(path), "has one line alone, with several names in it", _PLAIN))


def _of_numbered(path: Path, lines: Sequence[str], notes: list[str] | None) -> tuple[str, ...] | None:
    """The names of numbered lines by their numbers; None where the lines are not numbered.

    Raises:
        ConfigError: where they are numbered from 1 on, or all but a first line are.
    """
    numbered = _numbers(lines)
    if numbered is None:
        if len(lines) > 2 and _order(_numbers(lines[1:])) == 0:
            shown = f"has a line without a number, {lines[0][:60]!r}, before numbered ones"
            raise ConfigError(explain("--classes", str(path), shown, "remove that line, if it names no class"))
        return None
    first = _order(numbered)
    if first == 1:
        shown = f"numbers its lines from 1 to {len(lines)}, and outputs are numbered from 0"
        raise ConfigError(explain("--classes", str(path), shown, f"number them from 0; or {_PLAIN}"))
    if first is None:
        return None
    names = tuple(numbered[number] for number in range(len(numbered)))
    if notes is not None:
        notes.append(f"every line of {path.name} is numbered: names go by these numbers, output 0 is {names[0]!r}")
    return names


def _numbers(lines: Sequence[str]) -> dict[int, str] | None:
    """The names by the numbers of their lines; None where not every line has one of its own, or names repeat."""
    for form in (_BEFORE, _AFTER):
        found = [each for each in map(form.fullmatch, lines) if each is not None]
        named = {int(each["number"]): each["name"] for each in found}
        if len(named) == len(lines) == len({folded(name) for name in named.values()}):
            return named
    return None


def _order(numbered: dict[int, str] | None) -> int | None:
    """0 or 1 where the numbers are so many from there on, each once; else None."""
    numbers = sorted(numbered or ())
    return next((first for first in (0, 1) if numbers == list(range(first, first + len(numbers))) and numbers), None)
