# SPDX-License-Identifier: Apache-2.0
"""What stands in the documentation's code blocks, for tests that hold the pages to it."""

from __future__ import annotations

import functools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import typer

from fedcpsc.cli import app

ROOT = Path(__file__).resolve().parents[2]
_AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = sorted([*(ROOT / name for name in _AT_THE_TOP), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r'^(?P<indent> *)```(?P<language>\w+)(?: +title="(?P<title>[^"]*)")?$')


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: where it stands.
        line: of its opening fence, from 1.
        language: as after the fence.
        title: of the fence, empty without one.
        text: without the fences and their indent.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks in these languages, in order."""
    found, opened, body = [], None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is None:
            match = _FENCE.match(line)
            opened, body = (number, match) if match else None, []
            if opened is None and line.strip() == "```":
                opened = (number, None)
        elif line.strip() == "```":
            start, match = opened
            if match and match["language"] in languages:
                text = "\n".join(part.removeprefix(match["indent"]) for part in body) + "\n"
                found.append(Block(page, start, match["language"], match["title"] or "", text))
            opened = None
        else:
            body.append(line)
    assert opened is None, f"{page}: a code block that does not end"
    return found


@dataclass(frozen=True)
class Call:
    """A `fedcpsc ...` command on a page.

    Attributes:
        page: where it stands.
        line: its block's, 0 in prose.
        words: after `fedcpsc`, as the shell would split them.
        inline: whether it stands in prose.
    """

    page: Path
    line: int
    words: tuple[str, ...]
    inline: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line or 'prose'}:{'_'.join(self.words[:2])}"


def fedcpsc_calls(page: Path) -> list[Call]:
    """Every one on the page, those in prose (`` `fedcpsc ledger show DIR` ``) included."""
    found = []
    for block in blocks(page, "console", "bash", "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("fedcpsc "):
                found.append(Call(page, block.line, _words(line), False))
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for text in re.findall(r"`fedcpsc (.*?)`", prose, re.DOTALL):
        words = _words("fedcpsc " + text)
        if words and words[0].isalpha() and "..." not in words:
            found.append(Call(page, 0, words, True))
    return found


def _words(line: str) -> tuple[str, ...]:
    """Without the program, comments, and what the shell keeps to itself."""
    words = shlex.split(line.replace("$SILO", "0"), comments=True)[1:]
    end = next((i for i, word in enumerate(words) if word in {">", "|", "&&", "||", "&"}), len(words))
    return tuple(words[:end])


@functools.cache
def _whole() -> click.Command:
    return typer.main.get_command(app)


def leaf_command(words: tuple[str, ...]) -> tuple[click.Command, list[str]]:
    """The command that `words` name, and its arguments.

    Raises:
        KeyError: there is no such command.
    """
    command, rest = _whole(), list(words)
    while isinstance(command, click.Group) and rest:
        command = command.commands[rest.pop(0)]
    return command, rest
