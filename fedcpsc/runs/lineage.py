# SPDX-License-Identifier: Apache-2.0
"""bank/lineage.json: which earlier runs a bank's answers came from, and what each silo paid there.

A run that asked for all of its answers itself has no such file. It lies in the bank's folder, and comes into being with
it: a bank whose answers came from elsewhere is never without.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.runs.layout import BANK_FOLDER, LINEAGE_FILE
from fedcpsc.runs.real_pictures import RealPictures
from fedcpsc.runs.result import EarlierRunResult, check_schema
from fedcpsc.strict_json import parse_mapping
from fedcpsc.typed_yaml import Strict, validate

__all__ = ["EarlierColumn", "Lineage", "SourceRun", "read_lineage", "write_lineage"]

_SCHEMA: Final = 1


class SourceRun(Strict):
    """One earlier run.

    Attributes:
        run: name of the run.
        folder: absolute folder that it lay in.
        commit: commit of the source that it ran by; None where it had none, or had not finished.
        finished: whether it had finished.
        images: number of images that it made, >= 0.
        answers: number of images that each silo answered, and was charged for, in that run itself, by the silo's name
            in this bank.
    """

    run: str
    folder: str
    commit: str | None
    finished: bool
    images: int = Field(ge=0)
    answers: dict[str, int]

    def as_result(self) -> EarlierRunResult:
        """The same as a result.json has it."""
        return {
            "run": self.run,
            "folder": self.folder,
            "commit": self.commit,
            "finished": self.finished,
            "images": self.images,
            "answers": dict(self.answers),
        }


class EarlierColumn(Strict):
    """Answers that a silo gave under other terms, or by another teacher, than the silo of that name does now.

    Attributes:
        column: name under which the bank keeps them.
        silo: name of the silo.
        rounds: number of the bank's rounds, counted from the first, in which the silo may have been asked for them.
        replaced: whether another teacher gave them; else the same one did, in another form or under other noise.
    """

    column: str
    silo: str
    rounds: int = Field(ge=0)
    replaced: bool


class Lineage(Strict):
    """The whole file.

    Attributes:
        kind: `refit`: nobody was asked, and nobody will be; `continued`: the run went on with more answers.
        runs: runs that the answers came from, the earliest first.
        ends: number of the round after each inherited round group's last, ascending. A refit has those that its source
            inherited: the others it works through as that run did.
        images: number of images of these rounds.
        left: reasons why inherited silos are not asked, by the name of their answers.
        earlier: inherited answers that are kept apart from the silo's own.
        real_pictures: real pictures that inherited images come from.
    """

    kind: Literal["refit", "continued"]
    runs: tuple[SourceRun, ...]
    ends: tuple[int, ...] = ()
    images: int = Field(0, ge=0)
    left: dict[str, str] = Field(default_factory=dict)
    earlier: tuple[EarlierColumn, ...] = ()
    real_pictures: tuple[RealPictures, ...] = ()

    @property
    def rounds(self) -> int:
        """Number of inherited rounds."""
        return self.ends[-1] if self.ends else 0

    def answers_of(self, silo: str) -> int:
        """Number of images that the silo answered in earlier runs.

        Args:
            silo: name of the silo in this bank.
        """
        return sum(run.answers.get(silo, 0) for run in self.runs)


def write_lineage(bank: Path, lineage: Lineage) -> None:
    """Writes the file, for its owner alone.

    Args:
        bank: folder of the bank.
        lineage: content of the file.

    Raises:
        OSError: it cannot be written.
    """
    tree = {"schema": _SCHEMA, **lineage.model_dump(mode="json")}
    write_whole(bank / LINEAGE_FILE, json.dumps(tree, indent=1, ensure_ascii=False) + "\n", private=True)


def read_lineage(run_dir: Path) -> Lineage | None:
    """Where the answers of a run's bank came from; None where the run asked for all of them itself.

    Raises:
        RunError: the file is damaged, cannot be read, or was written by a newer version.
    """
    path = run_dir / BANK_FOLDER / LINEAGE_FILE
    try:
        tree = parse_mapping(path.read_bytes())
        check_schema(tree, path, _SCHEMA)
        tree.pop("schema", None)
        return validate(Lineage, tree, str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, ConfigError) as error:
        remedy = "restore it from a backup: without it nobody knows who was charged where"
        raise RunError(explain("run", str(path), f"is damaged or cannot be read ({error})", remedy)) from error
