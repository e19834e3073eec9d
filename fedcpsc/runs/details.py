# SPDX-License-Identifier: Apache-2.0
"""details.json: who mistakes what for what, and which silo had how much to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NotRequired, TypeAlias, cast

from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.late_numpy import np, npt
from fedcpsc.runs.layout import DETAILS_FILE, RESULT_FILE
from fedcpsc.runs.result import check_schema
from fedcpsc.strict_json import parse_mapping

__all__ = ["DETAILS_SCHEMA", "Counts", "Details", "DetailsFile", "check_details", "read_details"]

Counts: TypeAlias = "npt.NDArray[np.int64]"
Rows: TypeAlias = list[list[int]]

DETAILS_SCHEMA: Final = 1
_RESTORE = f"restore the file, or delete {RESULT_FILE} and let the run end again with --resume"


class ConfusionPart(TypedDict):
    """Confusion counts [K][K] on the held-out images, rows the true class; the ensemble's only in a simulation."""

    student: Rows
    ensemble: Rows | None
    teachers: dict[str, Rows]


class ContributionPart(TypedDict):
    """Images by the class the silos agreed on, [K], and each silo's mean share in that class's target, [K]."""

    images: list[int]
    weights: dict[str, list[float]]


class DetailsFile(TypedDict):
    """The whole file; the confusion is None without held-out images.

    The names are those of the confusion's classes, None where they have none: after the federation's, those that only
    held-out images have. `contradicted`: numbers of the classes on which the others contradict a silo, by its name;
    missing where silos were not judged.
    """

    schema: NotRequired[int]
    class_names: NotRequired[list[str] | None]
    confusion: ConfusionPart | None
    contribution: ContributionPart
    contradicted: NotRequired[dict[str, list[int]]]


@dataclass(frozen=True, eq=False)
class Details:
    """Content of details.json.

    Attributes:
        student, ensemble: confusion counts int64 [K, K], rows the true class; None without held-out images, and the
            ensemble's also outside a simulation.
        teachers: confusion counts of each silo's teacher; empty outside a simulation.
        images: number of images by the class the silos agreed on, int64 [K].
        weights: mean share of each silo in that class's target, [K], in [0, 1].
        class_names: names of the confusion's classes; None where they have none.
        contradicted: numbers of the classes on which the others contradict a silo; None where silos were not judged.
    """

    student: Counts | None
    ensemble: Counts | None
    teachers: Mapping[str, Counts]
    images: Counts
    weights: Mapping[str, npt.NDArray[np.float64]]
    class_names: tuple[str, ...] | None = None
    contradicted: Mapping[str, tuple[int, ...]] | None = None


def read_details(folder: Path) -> Details | None:
    """The content of details.json; None where the run left none.

    Raises:
        RunError: the file is damaged, lacks something, or was written by a newer version.
    """
    path = folder / DETAILS_FILE
    tree = _read(path)
    try:
        return None if tree is None else _details(tree)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(explain("run", str(path), f"its files lack something ({error!r})", _RESTORE)) from error


def check_details(folder: Path) -> None:
    """Looks whether details.json, where there is one, can be read; its matrices are not made, which takes numpy.

    Raises:
        RunError: the file is damaged, or was written by a newer version.
    """
    _read(folder / DETAILS_FILE)


def _read(path: Path) -> DetailsFile | None:
    try:
        tree = parse_mapping(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        remedy = "give yourself the right to read it"
        raise RunError(explain("run", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except ValueError as error:
        raise RunError(explain("run", str(path), f"is damaged ({error})", _RESTORE)) from error
    check_schema(tree, path, DETAILS_SCHEMA)
    return cast(DetailsFile, tree)


def _details(read: DetailsFile) -> Details:
    confusion, contribution = read["confusion"] or None, read["contribution"]
    return Details(
        student=_matrix(None if confusion is None else confusion.get("student")),
        ensemble=_matrix(None if confusion is None else confusion.get("ensemble")),
        teachers={
            silo: np.asarray(matrix, np.int64).reshape(len(matrix), -1)
            for silo, matrix in ({} if confusion is None else confusion.get("teachers", {})).items()
        },
        images=np.asarray(contribution["images"], np.int64),
        weights={silo: np.asarray(shares, np.float64) for silo, shares in contribution["weights"].items()},
        class_names=None if (names := read.get("class_names")) is None else tuple(map(str, names)),
        contradicted=None
        if (found := read.get("contradicted")) is None
        else {silo: tuple(map(int, classes)) for silo, classes in found.items()},
    )


def _matrix(rows: list[list[int]] | None) -> Counts | None:
    return None if rows is None else np.asarray(rows, np.int64).reshape(len(rows), -1)
