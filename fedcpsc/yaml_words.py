# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a YAML text, in one line that names the line of the text and how to fix it."""

from __future__ import annotations

import codecs
from pathlib import Path

import yaml

__all__ = ["LARGEST", "NotPlain", "in_words", "read_text", "shown_key"]

LARGEST = 2**21
"""Bytes of the largest file that is read; a configuration has a few thousand."""

_TAB = r"character '\t'"
_MARK = "\ufeff"


class NotPlain(yaml.YAMLError):
    """The text is not YAML, says something twice, or is no configuration.

    Args:
        constraint: rule that the text breaks, with the place where it does.
        remedy: advice for whoever wrote it.
    """

    def __init__(self, constraint: str, remedy: str) -> None:
        super().__init__(f"{constraint}; {remedy}")
        self.constraint = constraint
        self.remedy = remedy


def in_words(error: yaml.YAMLError, text: str) -> NotPlain:
    """PyYAML's error as one of ours.

    Args:
        error: error that PyYAML raised.
        text: text that it read.
    """
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return NotPlain(
            f"has the character U+{ord(text[error.position]):04X} in line {line}", "delete it, and save as UTF-8"
        )
    if not isinstance(error, yaml.MarkedYAMLError):
        return NotPlain(f"is not YAML ({' '.join(str(error).split())})", "fix it")
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
    if _TAB in str(error.problem):
        return NotPlain(f"has a tab where only spaces may stand ({place})", "replace it by spaces")
    said = ", ".join(filter(None, [error.context, error.problem]))
    if "another document" in said:
        return NotPlain(f"holds a second document ({place})", "delete the line --- and what is not meant")
    return NotPlain(f"is not YAML ({place}: {' '.join(said.split())})", "fix it there")


def shown_key(key: object) -> str:
    """A key as a message shows it: what looks like another or like nothing is written as an escape."""
    text = str(key)
    return repr(text) if text.isascii() else ascii(text)


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        NotPlain: it is larger than a configuration ever is, or not UTF-8.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise NotPlain(f"has more than {LARGEST:,} bytes", "name a file of settings, not of data")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NotPlain("is UTF-16", "save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotPlain(f"is not UTF-8 (byte 0x{data[error.start]:02X} in line {line})", "save it as UTF-8") from error
    if _MARK in text:
        line = text.count("\n", 0, text.index(_MARK)) + 1
        raise NotPlain(f"has a byte-order mark (U+FEFF) in line {line}", "delete it: one may stand at the start alone")
    return text
