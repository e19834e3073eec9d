# SPDX-License-Identifier: Apache-2.0
"""The student of a finished run, as a network again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.models.classifier import Classifier
from fedcpsc.models.libraries import named_network
from fedcpsc.models.own_module import GivenStudent, own_module
from fedcpsc.models.students import Start, build_student
from fedcpsc.runs.layout import RESULT_FILE, STUDENT_FILE
from fedcpsc.runs.read import RunFacts
from fedcpsc.runs.result import Network
from fedcpsc.student_config import StudentConfig

__all__ = ["Student", "check_student", "load_student"]


@dataclass(frozen=True, eq=False)
class Student:
    """A network in evaluation mode on the CPU, what rebuilds it, and the names of its classes, where they have some.

    Attributes:
        network: the network.
        architecture: name of the network; of a module of the caller's own the name of its class.
        plan: section `student` of the run's configuration.
        start: what the student began as.
        classes: number of classes K.
        image_shape: (C, H, W) of its images.
        class_names: names of the K classes; None where they go by number.
    """

    network: Classifier
    architecture: str
    plan: StudentConfig
    start: Start
    classes: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None = None

    @property
    def width(self) -> int | None:
        """Width of a network of `models.registry`; None of other networks."""
        return None if self.start.own is not None or "/" in self.architecture else self.plan.width

    @property
    def shown_names(self) -> tuple[str, ...]:
        """A name for each of the K classes: its number where it has no other."""
        return self.class_names or tuple(map(str, range(self.classes)))

    def rebuilt(self, weights: Path) -> Classifier:
        """The same network from a file of weights.

        Raises:
            RunError: the file is missing, damaged, or of another network.
        """
        return _load(weights, self.plan, self.start, self.classes, self.image_shape)


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


def load_student(run: RunFacts, module: GivenStudent | None = None) -> Student:
    """Reads it from the run's folder.

    Args:
        run: facts of a finished run.
        module: module of the caller's own that the run was given, or one like it, whose weights do not matter; None
            where the run had none.

    Raises:
        RunError: the run has not finished, its weights are missing or damaged, or its student is a module of the
            caller's own and `module` is none of that class.
        ConfigError: `module` is no module; or the network is of timm, which is not installed.
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
    start, plan, shape = _start(run, run.result["student"], module), run.config.student, (channels, height, width)
    if start.own is None:
        named_network(plan.architecture, "student.architecture")
    network = _load(run.folder / STUDENT_FILE, plan, start, classes, shape)
    name = plan.architecture if start.own is None else start.own.name
    return Student(network, name, plan, start, classes, shape, None if names is None else tuple(names))


def _start(run: RunFacts, student: Network, module: GivenStudent | None) -> Start:
    """What the run's student began as, but for its weights.

    Raises:
        RunError: it was a module of the caller's own, and that is not given; or another is given.
    """
    wanted = student.get("architecture") if student.get("own_module") else None
    own = None if module is None else own_module(module)
    given = None if own is None else own.name
    if given == wanted:
        return Start(own)
    if wanted is None:
        constraint = f"is {run.config.student.architecture}, not {given}"
        raise RunError(explain("student", str(run.folder), constraint, "leave the module out"))
    constraint = f"is {wanted}, a module of the caller's own" + (f", not {given}" if given else "")
    remedy = "from Python, give such a module as well: fedcpsc.open_run(folder, student=module), export_run(module=...)"
    raise RunError(explain("student", str(run.folder), constraint, remedy))


def _load(path: Path, plan: StudentConfig, start: Start, classes: int, shape: tuple[int, int, int]) -> Classifier:
    try:
        network = build_student(plan, classes, shape, 0, start)
        network.stored.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, ValueError, ConfigError) as error:
        raise _unusable(path, error) from error
    return network.eval()


def _unusable(path: Path, error: Exception) -> RunError:
    remedy = f"restore the file, or delete {RESULT_FILE} and let the run end again with --resume"
    return RunError(explain("student", str(path), f"cannot be loaded ({error})", remedy))
