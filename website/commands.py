# SPDX-License-Identifier: Apache-2.0
"""The reference of the command line, generated from its typer commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import click
import typer

from website.fields import cell

__all__ = ["Command", "commands", "reference"]

_EXAMPLE = re.compile(r"Example: \[bold\](?P<command>.*?)\[/\]", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command that does something; groups of commands are none.

    Attributes:
        words: words of the command, e.g. "fedcpsc ledger show".
        click: the click command that typer made of it.
    """

    words: str
    click: click.Command


def commands(app: typer.Typer, name: str) -> Iterator[Command]:
    """All commands below `app`, in the order of its help."""
    yield from _below(typer.main.get_command(app), name)


def _below(command: click.Command, words: str) -> Iterator[Command]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _below(child, f"{words} {name}")
    else:
        yield Command(words, command)


def reference(app: typer.Typer, name: str, about: str) -> str:
    """A page in Markdown."""
    return "\n\n".join(["# Command line", about, *(_section(command) for command in commands(app, name))]) + "\n"


def _section(command: Command) -> str:
    context = click.Context(command.click, info_name=command.words)
    usage = " ".join([command.words, *command.click.collect_usage_pieces(context)])
    lines = [f"## {command.words}", "", f"```text\n{usage}\n```", "", _help(command.click.help or ""), ""]
    lines += ["| given | meaning |", "|---|---|"]
    for parameter in command.click.params:
        shown = parameter.human_readable_name if isinstance(parameter, click.Argument) else ", ".join(parameter.opts)
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        metavar = "" if flag or isinstance(parameter, click.Argument) else f" {parameter.make_metavar(context)}"
        meaning = getattr(parameter, "help", None) or ""
        lines.append(f"| `{cell(shown + metavar)}` | {cell(meaning)}{_need(parameter)} |")
    return "\n".join(lines)


def _help(text: str) -> str:
    """A docstring, its example as a block of code."""
    return _EXAMPLE.sub(lambda found: f"```bash\n{' '.join(found['command'].split())}\n```", text.strip())


def _need(parameter: click.Parameter) -> str:
    if parameter.required:
        return "<br><small>must be given</small>"
    nothing = parameter.default is None or parameter.default == "" or parameter.default is False
    return "" if nothing or callable(parameter.default) else f"<br><small>default `{parameter.default}`</small>"
