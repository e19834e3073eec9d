# SPDX-License-Identifier: Apache-2.0
"""student.json: what the student began as, where config.yaml does not say it all.

A configuration names no code, so that it cannot say that the student is a module of the caller's own; and of a file of
weights it has the path alone, not what lies there. Only runs to which this applies have the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.runs.layout import CONFIG_FILE, STUDENT_START_FILE
from fedcpsc.runs.result import check_schema
from fedcpsc.strict_json import format_json, parse_mapping

__all__ = ["StudentStart", "check_same_start", "read_student_start", "write_student_start"]

_SCHEMA: Final = 1


class StudentStart(TypedDict):
    """What the student began as.

    Attributes:
        module: name of the class of a module of the caller's own; None where the configuration names the architecture.
        weights: SHA-256 of the file of weights that it began with; None where it began without.
    """

    module: str | None
    weights: str | None


_NOTHING: Final[StudentStart] = {"module": None, "weights": None}


def write_student_start(run_dir: Path, start: StudentStart) -> None:
    """Writes the file, where there is something to say; else no such file is left.

    Raises:
        OSError: it cannot be written.
    """
    path = run_dir / STUDENT_START_FILE
    if start == _NOTHING:
        path.unlink(missing_ok=True)  # of a run that was stopped before it had begun
    else:
        write_whole(path, format_json({"schema": _SCHEMA, **start}, path, indent=2) + "\n")


def read_student_start(run_dir: Path) -> StudentStart:
    """What the run's student began as; where the run left no such file, what the configuration says.

    Raises:
        RunError: the file is damaged, cannot be read, or was written by a newer version.
    """
    path = run_dir / STUDENT_START_FILE
    try:
        tree = parse_mapping(path.read_bytes())
        check_schema(tree, path, _SCHEMA)
        del tree["schema"]
        return TypeAdapter(StudentStart).validate_python(_NOTHING | tree, strict=True)
    except FileNotFoundError:
        return _NOTHING
    except (OSError, ValueError, KeyError, ValidationError) as error:
        constraint = f"is damaged or cannot be read ({error!r})"
        raise RunError(explain("run", str(path), constraint, "restore it from a backup")) from error


def check_same_start(run_dir: Path, start: StudentStart) -> None:
    """Does nothing where no run lies there, or the student of the one that does began as this one does.

    Raises:
        RunError: it began as another.
    """
    if not (run_dir / CONFIG_FILE).exists():
        return
    before = read_student_start(run_dir)
    if before["module"] != start["module"]:
        what = before["module"] or "the configured architecture"
        constraint = f"began with another student: {what} -> {start['module'] or 'the configured architecture'}"
        remedy = "resume it with the one that it began with"
        if before["module"]:
            remedy = f"resume it from Python, where fedcpsc.distillation.run.distill(student=...) takes {what}"
        raise RunError(explain("run", str(run_dir), constraint, remedy))
    if before["weights"] != start["weights"]:
        constraint = f"began with other weights, SHA-256 {before['weights']} -> {start['weights']}"
        remedy = "resume it with the file of student.weights that it began with"
        raise RunError(explain("run", str(run_dir), constraint, remedy))
