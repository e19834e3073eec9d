# SPDX-License-Identifier: Apache-2.0
"""What a finished run reached and cost, as an object with attributes: `run.result.student.accuracy`."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedcpsc.api.tables import Table, percent
from fedcpsc.runs.read import Silo
from fedcpsc.runs.result import RunResult

__all__ = ["EnsembleFigures", "Result", "StudentFigures"]


@dataclass(frozen=True)
class StudentFigures:
    """The student.

    Attributes:
        accuracy: share of the held-out images classified rightly, in [0, 1]; None where there were none.
        architecture: name of its architecture; None where not recorded.
        parameters: number of its weights; None where not recorded.
    """

    accuracy: float | None
    architecture: str | None
    parameters: int | None


@dataclass(frozen=True)
class EnsembleFigures:
    """The teachers together, under the run's aggregation rule.

    Attributes:
        accuracy: share of the held-out images classified rightly, in [0, 1]; None where it could not be measured.
        rule: name of the rule.
    """

    accuracy: float | None
    rule: str


@dataclass(frozen=True)
class Result:
    """The figures of a finished run.

    Attributes:
        name: name of the run.
        student, ensemble: how well the student and the teachers together do.
        silos: what each silo gave, and what it claims.
        answers_per_silo: largest number of images that a silo has answered.
        seconds: seconds that the run took in all.
        waiting_seconds: seconds of them that were spent waiting for answers.
        classes: number of classes K; None where not recorded.
        class_names: names of the K classes in the order of the student's outputs; None where they go by number.
        image_shape: shape (C, H, W) of an image; None where not recorded.
        evaluation_images: number of held-out images; None without any.
        seed: seed of the run.
        commit: commit of the code; None where it is not known.
        versions: versions of the packages, by name.
        file: content of result.json, all of it.
    """

    name: str
    student: StudentFigures
    ensemble: EnsembleFigures
    silos: tuple[Silo, ...]
    answers_per_silo: int
    seconds: float
    waiting_seconds: float
    classes: int | None
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int] | None
    evaluation_images: int | None
    seed: int
    commit: str | None
    versions: dict[str, str] = field(repr=False)
    file: RunResult = field(repr=False)

    @classmethod
    def of(cls, file: RunResult, silos: tuple[Silo, ...]) -> Result:
        """The object of a result file.

        Args:
            file: content of result.json, checked.
            silos: the same silos, read.
        """
        student, names = file["student"], file.get("class_names")
        shape = file.get("image_shape")
        return cls(
            name=file["name"],
            student=StudentFigures(student["accuracy"], student.get("architecture"), student.get("parameters")),
            ensemble=EnsembleFigures(file["ensemble"]["accuracy"], file["ensemble"]["rule"]),
            silos=silos,
            answers_per_silo=file["answers_per_silo"],
            seconds=file["seconds"]["total"],
            waiting_seconds=file["seconds"]["waiting"],
            classes=file.get("classes"),
            class_names=None if names is None else tuple(names),
            image_shape=None if shape is None else (shape[0], shape[1], shape[2]),
            evaluation_images=file.get("evaluation_images"),
            seed=file["seed"],
            commit=file["commit"],
            versions=dict(file["versions"]),
            file=file,
        )

    @property
    def best_teacher(self) -> float | None:
        """Accuracy of the best single teacher, in [0, 1]; None where none was measured."""
        return max((silo.teacher_accuracy for silo in self.silos if silo.teacher_accuracy is not None), default=None)

    def table(self) -> Table:
        """Each silo, the ensemble and the student."""
        rows = [
            (
                silo.id,
                f"{silo.answers:,}",
                f"epsilon {silo.epsilon:g}" if silo.dp and silo.epsilon is not None else "no dp",
                percent(silo.teacher_accuracy),
            )
            for silo in self.silos
        ]
        rows.append((f"ensemble ({self.ensemble.rule})", "", "", percent(self.ensemble.accuracy)))
        rows.append(("student", "", "", percent(self.student.accuracy)))
        return Table(f"run {self.name}", ("", "answers", "privacy", "accuracy"), rows)

    def __str__(self) -> str:
        return self.table().as_text()

    def _repr_html_(self) -> str:
        return self.table().as_html()
