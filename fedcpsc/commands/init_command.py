# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc init`: a commented configuration to begin with, from a look at the data; and what to do next."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcpsc.commands.exit_codes import exit_codes
from fedcpsc.errors import ConfigError, explain

if TYPE_CHECKING:
    from fedcpsc.data.first_look import FirstLook
    from fedcpsc.typed_yaml import Tree

__all__ = ["init"]

_DIGITS = "digits"
_SUFFIXES = (".yaml", ".yml")
_FEW = 600  # pictures: skewed shares of so few leave silos with hardly any
_DEALT: dict[bool, Tree] = {True: {"kind": "dirichlet", "alpha": 0.5}, False: {"kind": "iid"}}
_HEAD = """\
# A run of fedcpsc: which silos there are, what they are asked, and what becomes of the answers.
# A setting that begins with "#" alone stands at its default: take the sign away, and change it.
# --set KEY=VALUE changes a value for one run, as in --set queries.answers_per_silo=1000

"""


@dataclass
class _Start:
    """What a new configuration says other than the defaults.

    Attributes:
        name: name of the run, and of the silos' folder.
        tree: values by key, sections as mappings of their own.
        reasons: why a value was chosen, by its dotted key.
    """

    name: str
    tree: Tree
    reasons: dict[str, str] = field(default_factory=dict)


def init(
    where: Annotated[
        Path, typer.Argument(help="The file to write, ending in .yaml, or a folder for it.", show_default="this folder")
    ] = Path(),
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|digits",
            help="Folder of pictures to look at: train/CLASS/*.png and the like, train*.parquet, or either in a folder"
            " 0, 1, ... of each silo; or digits, which come with scikit-learn.",
        ),
    ] = _DIGITS,
) -> None:
    """Write a commented configuration, from a look at the data, and say what to do next. Never overwrites a file.

    Example: [bold]fedcpsc init lesions.yaml --data /data/lesions[/]
    """
    with exit_codes():
        path = _target(where, data)
        lines, start = [], _of_digits(path.stem)
        if data != _DIGITS:
            from fedcpsc.data.first_look import look_at

            look = look_at(Path(data))
            lines, start = list(look.lines()), _of_look(look, path.stem)
        _write(path, start)
        for line in [*lines, f"wrote {path}", *_next(path, start)]:
            typer.echo(line)


def _target(where: Path, data: str) -> Path:
    """The file to write: `where` itself, or one in the folder `where`, named after the data."""
    if where.suffix in _SUFFIXES:
        path = where
    elif where.is_file():
        constraint = "is a file, and not of a configuration"
        raise ConfigError(explain("WHERE", str(where), constraint, "name a folder, or a new file ending in .yaml"))
    else:
        path = where / f"{_name(Path(data).expanduser().absolute().name)}.yaml"
    if path.exists():
        raise ConfigError(explain("WHERE", str(path), "is there already, and is not overwritten", "name another file"))
    return path


def _name(text: str) -> str:
    """A name for files and folders that is as `text`, as far as that goes."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60]
    return kept or "run"


def _of_digits(stem: str) -> _Start:
    """The demo: what `configs/digits.yaml` has, which an installed package does not carry."""
    name = _name(stem)
    tree: Tree = {
        "data": {"source": _DIGITS},
        "silos": {
            "count": 3,
            "root": f"silos/{name}",
            "partition": {"kind": "dirichlet", "alpha": 0.3},
            "policy": {"answers": 100_000, "share_class_counts": True},
        },
        "queries": {"answers_per_silo": 5000, "rounds": 20},
        "synthesis": {"moments": [-0.40, 0.75]},
        "student": {"shift": 0},
        "aggregation": {"rule": "class_prior_log"},
        "output": {"name": name},
        "runtime": {"threads": 1},
    }
    reasons = {
        "silos.policy.answers": "the ledger counts over all runs",
        "silos.policy.share_class_counts": "the owners agreed to tell their class counts: see aggregation",
        "synthesis.moments": "of 8-bit digits in general",
        "student.shift": "a pixel is an eighth of the image: moved, the silos would have answered otherwise",
        "aggregation.rule": "a plain mean misleads where silos hold other shares of the classes",
        "runtime.threads": "networks this small only lose by sharing a batch among cores",
    }
    return _Start(name, tree, reasons)


def _of_look(look: FirstLook, stem: str) -> _Start:
    start = _of_digits(stem)
    data: dict[str, object] = {"source": look.source, "path": look.place}
    if look.image_size is not None:
        data["image_size"] = look.image_size
        start.reasons["data.image_size"] = "larger pictures take longer; they are squashed to it: see resize"
    if len(look.channels) > 1:
        data["channels"] = 3
        start.reasons["data.channels"] = "some are grey, some in colour"
    skewed = look.pictures >= _FEW
    own = look.own_files is not None
    if not (skewed or own):
        start.reasons["silos.count"] = "so few pictures; from three silos on their answers are compared with each other"
    silos: dict[str, object] = {
        "count": look.own_files or (3 if skewed else 2),
        "root": f"silos/{start.name}",
        "partition": {"kind": "own_files"} if own else _DEALT[skewed],
        "policy": {"answers": 100_000, "share_class_counts": True},
    }
    if look.unlike:
        silos["label_sets"] = "own"
        start.reasons["silos.label_sets"] = "the silos do not name the same classes in the same order"
    start.tree |= {"data": data, "silos": silos, "synthesis": {"moments": None}}
    for section, key in (("student", "student.shift"), ("runtime", "runtime.threads")):  # right for 8x8 alone
        del start.tree[section], start.reasons[key]
    start.reasons["synthesis.moments"] = (
        "found in the silos' answers; or two published figures of such pictures, as [-0.05, 0.5]; never your data's"
    )
    if own and not look.held_out:
        start.tree["evaluation"] = {"held_out": False}
        start.reasons["evaluation.held_out"] = "there is no common test/ beside the silos' folders"
    return start


def _write(path: Path, start: _Start) -> None:
    """Checks the configuration as any that is read, and writes it where no file is."""
    from fedcpsc.commented_yaml import commented
    from fedcpsc.config import RunConfig
    from fedcpsc.gatekeeper.policy import Policy
    from fedcpsc.typed_yaml import validate

    validate(RunConfig, start.tree, str(path))
    text = _HEAD + commented(RunConfig, start.tree, start.reasons, {"silos.policy": Policy})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            explain("WHERE", str(path), f"cannot be written ({error.strerror})", "name another file")
        ) from error


def _next(path: Path, start: _Start) -> list[str]:
    """The next three commands, from this folder."""
    file = shlex.quote(str(path))
    commands = {
        f"fedcpsc teachers {file}": "makes the silos, and says how good each one's teacher is",
        f"fedcpsc run {file}": "asks them, and fits one student to their answers",
        f"fedcpsc status runs/{start.name}": "in another terminal: how far is it?",
    }
    width = max(map(len, commands))
    return ["next:", *(f"  {command:<{width}}  # {what}" for command, what in commands.items())]
