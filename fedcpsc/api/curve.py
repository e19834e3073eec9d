# SPDX-License-Identifier: Apache-2.0
"""How a run went, as a table: a row for each round and for each part of the final fit."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from fedcpsc.api.tables import Table, percent
from fedcpsc.errors import ConfigError, RunError, explain
from fedcpsc.runs.metrics import MetricsLine

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Curve", "CurvePoint"]


@dataclass(frozen=True)
class CurvePoint:
    """A row.

    Attributes:
        phase: "round" or "final".
        round: number of the last round that is done, from 1.
        answers: most images that a silo has answered so far.
        bank: number of images in the answer bank.
        student_accuracy: share of the held-out images classified rightly, in [0, 1]; None where not measured.
        entropy: entropy of the classes that the silos see in the images, in [0, 1].
        seconds: seconds since the run began, earlier attempts counted in.
    """

    phase: Literal["round", "final"]
    round: int
    answers: int
    bank: int
    student_accuracy: float | None
    entropy: float
    seconds: float


class Curve(Sequence[CurvePoint]):
    """The rows, oldest first.

    Args:
        lines: lines of the run's metrics.jsonl.
    """

    columns = tuple(field.name for field in fields(CurvePoint))

    def __init__(self, lines: Iterable[MetricsLine]) -> None:
        self._points = tuple(map(_point, lines))

    @overload
    def __getitem__(self, index: int) -> CurvePoint: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[CurvePoint]: ...

    def __getitem__(self, index: int | slice) -> CurvePoint | Sequence[CurvePoint]:
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    @property
    def measured(self) -> tuple[CurvePoint, ...]:
        """The rows with an accuracy."""
        return tuple(point for point in self._points if point.student_accuracy is not None)

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Writes the table with a line of heads; what was not measured is empty.

        Args:
            path: path of the file; one that is there is replaced.

        Raises:
            RunError: where it cannot be written.
        """
        out = Path(path)
        try:
            with out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(self.columns)
                writer.writerows(astuple(point) for point in self._points)
        except OSError as error:
            shown = f"cannot be written ({error.strerror})"
            raise RunError(explain("path", str(out), shown, "choose another")) from error
        return out

    def to_pandas(self) -> DataFrame:
        """The table as a `pandas.DataFrame`, a column for each attribute of `CurvePoint`.

        Raises:
            ConfigError: where pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - not needed for anything else
        except ImportError as error:
            remedy = "pip install pandas, or take the rows as they are"
            raise ConfigError(explain("to_pandas", "pandas", "is not installed", remedy)) from error
        return pd.DataFrame([astuple(point) for point in self._points], columns=list(self.columns))

    def table(self) -> Table:
        """The table for people: the rows with an accuracy, or without any, the rounds."""
        shown = self.measured or tuple(point for point in self._points if point.phase == "round")
        rows = [
            (
                f"round {point.round}" if point.phase == "round" else "final fit",
                f"{point.answers:,}",
                percent(point.student_accuracy),
                f"{point.entropy:.2f}",
                f"{point.seconds:.0f}",
            )
            for point in shown
        ]
        return Table("curve", ("", "answers", "student", "entropy", "seconds"), rows)

    def __repr__(self) -> str:
        return self.table().as_text()

    def _repr_html_(self) -> str:
        return self.table().as_html()


def _point(line: MetricsLine) -> CurvePoint:
    return CurvePoint(
        phase=line["phase"],
        round=line["round"],
        answers=line["answers_used"],
        bank=line["bank"],
        student_accuracy=line.get("student_accuracy"),
        entropy=line["entropy"],
        seconds=line["seconds"],
    )
