# SPDX-License-Identifier: Apache-2.0
"""The student of a finished run, as a network again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.models.registry import Classifier, build_classifier
from fedcpsc.runs.layout import RESULT_FILE, STUDENT_FILE
from fedcpsc.runs.read import RunFacts

__all__ = ["Student", "check_student", "load_student"]


@dataclass(frozen=True, eq=False)
class Student:
    """A network in evaluation mode on the CPU, what rebuilds it, and the names of its classes, where they have some."""

    network: Classifier
    architecture: str
    width: int
    classes: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None = None

    def rebuilt(self, weights: Path) -> Classifier:
        """The same network from a file of weights.

        Raises:
            RunError: the file is missing, damaged, or of another network.
        """
        return _load(weights, self.architecture, self.classes, self.image_shape, self.width)


def check_student(run_dir: Path) -> None:
    """Looks whether the weights of a finished run are there and whole, without loading them.

    Raises:
        RunError: they are missing or damaged.
    """
    path = run_dir / STUDENT_FILE
    try:
        with safe_open(path, "numpy"):
            pass
    except (OSError, SafetensorError, ValueError) as error:
        raise _unusable(path, error) from error


def load_student(run: RunFacts) -> Student:
    """Reads it from the run's folder.

    Raises:
        RunError: the run has not finished, or its weights are missing or damaged.
    """
    if run.result is None:
        remedy = "let it end with fedcpsc run --resume, then export"
        raise RunError(explain("run", str(run.folder), "has not finished: there is no student yet", remedy))
    try:
        channels, height, width = run.result["image_shape"]
        classes, names = run.result["classes"], run.result.get("class_names")
        if names is not None and len(names) != classes:
            raise ValueError(f"{len(names)} class_names of {classes} classes")
    except (KeyError, TypeError, ValueError) as error:
        problem = f"lacks something ({error!r})"
        raise RunError(explain(RESULT_FILE, str(run.folder), problem, "restore the folder")) from error
    plan, shape = run.config.student, (channels, height, width)
    network = _load(run.folder / STUDENT_FILE, plan.architecture, classes, shape, plan.width)
    return Student(network, plan.architecture, plan.width, classes, shape, None if names is None else tuple(names))


def _load(path: Path, architecture: str, classes: int, shape: tuple[int, int, int], width: int) -> Classifier:
    try:
        network = build_classifier(architecture, classes, shape, width)
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, ValueError, ConfigError) as error:
        raise _unusable(path, error) from error
    return network.eval()


def _unusable(path: Path, error: Exception) -> RunError:
    remedy = f"restore the file, or delete {RESULT_FILE} and let the run end again with --resume"
    return RunError(explain("student", str(path), f"cannot be loaded ({error})", remedy))
