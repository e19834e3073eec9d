# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run from a call's arguments and further settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

from torch import nn

from fedcpsc.config import RunConfig
from fedcpsc.errors import ConfigError, explain
from fedcpsc.typed_yaml import Strict, Tree, read_yaml, set_key, validate

__all__ = ["Settings", "StudentLike", "merged", "read_settings", "run_config", "student_fields"]

Settings: TypeAlias = "Mapping[str, object] | str | os.PathLike[str]"
"""Keys of a configuration, `{"student": {"width": 16}}` or `{"student.width": 16}`; or the path of its YAML file."""

StudentLike: TypeAlias = "str | Mapping[str, object] | nn.Module"
"""Name of an architecture, fields of the section `student`, or a module to be fitted."""

Model = TypeVar("Model", bound=Strict)
_OF_SILOS = ("data", "silos", "teachers")  # sections that say how a simulation makes its silos


def read_settings(given: Settings | None) -> Tree:
    """The settings as nested sections, not checked yet.

    Args:
        given: settings; None for none.

    Raises:
        ConfigError: where the file cannot be read, or a key stands inside what is no section.
    """
    if given is None:
        return {}
    if isinstance(given, str | os.PathLike):
        return read_yaml(Path(given))
    tree: Tree = {}
    for key, value in sorted(given.items(), key=lambda item: "." in item[0]):  # a section first, then keys in it
        set_key(tree, key.split("."), _plain(value))
    return tree


def merged(model: type[Model], given: Settings | None, where: str, **more: object) -> Model:
    """The settings as a checked configuration.

    Args:
        model: class of the configuration.
        given: settings; None for none.
        where: name of the settings in messages.
        more: values by dotted key, with `__` for the point, that replace those of the settings; None replaces nothing.

    Raises:
        ConfigError: with one line for each fault.
    """
    tree = read_settings(given)
    for key, value in more.items():
        if value is not None:
            set_key(tree, key.replace("__", ".").split("."), value)
    return validate(model, tree, where)


def run_config(
    given: Settings | None,
    *,
    silos: int,
    silos_folder: Path | str | None,
    folder: Path,
    held_out: bool,
    answers: int | None,
    rounds: int | None,
    student: StudentLike | None,
    seed: int | None,
) -> RunConfig:
    """The configuration of a run over a federation of this process.

    What it says of the silos is what they are: from a file the sections data, silos and teachers are left out, in a
    mapping they are refused.

    Args:
        given: further settings.
        silos: number of silos.
        silos_folder: folder of the silos' folders, or a word for one that will be gone; None where they lie apart.
        folder: folder of the run.
        held_out: whether the run measures on held-out images.
        answers, rounds, student, seed: arguments of `fedcpsc.distill`; None leaves the settings' own, or the default.

    Raises:
        ConfigError: with one line for each fault.
    """
    tree = read_settings(given)
    for section in _OF_SILOS:
        if section in tree and isinstance(given, Mapping):
            shown = "says how silos are made, and these are there already"
            raise ConfigError(explain("config", section, shown, "leave that section out"))
        tree.pop(section, None)
    chosen: Tree = {"queries.answers_per_silo": answers, "queries.rounds": rounds, "seed": seed}
    chosen |= {f"student.{key}": value for key, value in student_fields(student).items()}
    facts: Tree = {
        "data.source": "arrays",
        "silos.count": silos,
        "silos.root": None if silos_folder is None else str(silos_folder),
        "evaluation.held_out": held_out,
        "output.root": str(folder.parent),
        "output.name": folder.name,
    }
    for key, value in {**chosen, **facts}.items():
        if value is not None:
            set_key(tree, key.split("."), value)
    return validate(RunConfig, tree, "config" if isinstance(given, Mapping | None) else str(given))


def student_fields(student: StudentLike | None) -> Mapping[str, object]:
    """What is said of the section `student`; nothing by a module.

    Args:
        student: what is fitted; None for what the settings say.
    """
    if student is None or isinstance(student, nn.Module):
        return {}
    return {"architecture": student} if isinstance(student, str) else student


def _plain(value: object) -> object:
    """The same with mappings as dictionaries of their own."""
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value
