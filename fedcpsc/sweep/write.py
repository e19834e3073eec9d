# SPDX-License-Identifier: Apache-2.0
"""Writes what a sweep leaves: the table as CSV and parquet, the summary, all of it as JSON, picture and page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import TypedDict

from fedcpsc.files import durable, explained_writes, write_whole
from fedcpsc.provenance import commit, versions
from fedcpsc.runs.seeds import FigureOfSeeds
from fedcpsc.strict_json import format_json
from fedcpsc.sweep.expand import Sweep
from fedcpsc.sweep.layout import (
    PAGE_FILE,
    PICTURE_FILE,
    SUMMARY_FILE,
    SWEEP_FILE,
    TABLE_FILE,
    TYPED_TABLE_FILE,
)
from fedcpsc.sweep.page import render
from fedcpsc.sweep.picture import save_picture
from fedcpsc.sweep.table import Row, Summary
from fedcpsc.sweep.words import shown_value

__all__ = ["SWEEP_SCHEMA", "Attempt", "SettingFigures", "SweepFile", "write_results"]

SWEEP_SCHEMA: Final = 1


@dataclass(frozen=True)
class Attempt:
    """Facts of one attempt at a sweep.

    Attributes:
        jobs: number of processes at a time.
        seconds: seconds that it took.
        silos_made: number of times that silos were made.
        notes: what a reader of the table should know, as sentences.
    """

    jobs: int
    seconds: float
    silos_made: int
    notes: Sequence[str]


class SettingFigures(TypedDict):
    """One setting in sweep.json; figures as in `Summary`, `changes` as in the plan."""

    setting: str
    changes: dict[str, object]
    values: dict[str, object]
    runs: int
    missing: int
    student: FigureOfSeeds
    difference: FigureOfSeeds
    ensemble: FigureOfSeeds
    best_teacher: FigureOfSeeds
    seconds: FigureOfSeeds
    answers: int | None
    epsilon: float | None


class SweepFile(TypedDict):
    """Content of sweep.json.

    Attributes:
        schema: number of this layout of the file.
        plan: the plan.
        overrides: overrides of every run that were given beside the plan.
        varied: dotted keys that settings vary.
        settings: figures of each setting, in the plan's order.
        runs: rows of the table.
        notes: what a reader of the table should know, as sentences.
        jobs, seconds, silos_made: processes at a time, seconds and sets of silos made, of the last attempt.
        versions, commit: of what wrote this file; each run has its own.
    """

    schema: int
    name: str
    plan: dict[str, object]
    overrides: list[str]
    varied: list[str]
    settings: list[SettingFigures]
    runs: list[dict[str, object]]
    notes: list[str]
    jobs: int
    seconds: float
    silos_made: int
    versions: dict[str, str]
    commit: str | None


def write_results(sweep: Sweep, rows: Sequence[Row], summaries: Sequence[Summary], attempt: Attempt) -> None:
    """Leaves all files of the results in the sweep's folder, each whole.

    Args:
        sweep: the sweep.
        rows: one row for each run.
        summaries: one summary for each setting.
        attempt: facts of this attempt.

    Raises:
        RunError: one cannot be written, or a figure is not finite.
    """
    folder = sweep.folder
    with explained_writes(folder):
        table = [_columns(sweep, row) for row in rows]
        write_whole(folder / TABLE_FILE, _csv(table))
        _write_parquet(folder / TYPED_TABLE_FILE, sweep, table)
        write_whole(folder / SUMMARY_FILE, _csv([_summary_columns(sweep, summary) for summary in summaries]))
        file = _file(sweep, table, summaries, attempt)
        write_whole(folder / SWEEP_FILE, format_json(file, folder / SWEEP_FILE, indent=2) + "\n")
        save_picture(folder / PICTURE_FILE, sweep, summaries)
        write_whole(folder / PAGE_FILE, render(sweep, rows, summaries, attempt.notes))


def _columns(sweep: Sweep, row: Row) -> dict[str, object]:
    """A row of the table, by column."""
    return {
        "setting": row.setting,
        **{key: row.values.get(key) for key in sweep.varied},
        "seed": row.seed,
        "state": row.state,
        "student": row.student,
        "ensemble": row.ensemble,
        "best_teacher": row.best_teacher,
        "answers": row.answers,
        "answers_of": row.bank or row.run,
        "epsilon": row.epsilon,
        "entropy": row.entropy,
        "seconds": row.seconds,
        "run": row.run,
        "commit": row.commit,
        "versions": ", ".join(f"{name} {version}" for name, version in (row.versions or {}).items()) or None,
        "failure": row.failure or None,
    }


def _summary_columns(sweep: Sweep, summary: Summary) -> dict[str, object]:
    figures = {
        "student": summary.student,
        "difference": summary.difference,
        "ensemble": summary.ensemble,
        "best_teacher": summary.best_teacher,
    }
    spread = {f"{name}_{part}": figure[part] for name, figure in figures.items() for part in ("mean", "std")}
    return {
        "setting": summary.setting.name,
        **{key: summary.setting.values.get(key) for key in sweep.varied},
        "runs": summary.count,
        "missing": summary.missing,
        **spread,
        "answers": summary.answers,
        "epsilon": summary.epsilon,
        "seconds_mean": summary.seconds["mean"],
    }


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: shown_value(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _write_parquet(path: Path, sweep: Sweep, rows: Sequence[Mapping[str, object]]) -> None:
    import pyarrow as pa  # noqa: PLC0415 - slow to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    numbers = {"student", "ensemble", "best_teacher", "epsilon", "entropy", "seconds"}
    types: dict[str, Any] = dict.fromkeys(rows[0], pa.string())
    types |= dict.fromkeys(numbers, pa.float64()) | {"seed": pa.int64(), "answers": pa.int64()}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for key in sweep.varied:
        types[key], columns[key] = _typed(columns[key])
    fields = [pa.field(name, types[name]) for name in columns]
    table = pa.table({name: pa.array(columns[name], types[name]) for name in columns}, schema=pa.schema(fields))
    with durable(path) as file:
        pq.write_table(table, file)


def _typed(values: Sequence[object]) -> tuple[Any, list[object]]:
    """The narrowest type that holds all values of a varied key, and the values in it; text where they are unlike."""
    import pyarrow as pa  # noqa: PLC0415

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_(), list(values)
    if kinds == {int}:
        return pa.int64(), list(values)
    if kinds and kinds <= {int, float}:
        return pa.float64(), list(values)
    return pa.string(), [None if value is None else shown_value(value) for value in values]


def _file(
    sweep: Sweep, table: Sequence[dict[str, object]], summaries: Sequence[Summary], attempt: Attempt
) -> SweepFile:
    return {
        "schema": SWEEP_SCHEMA,
        "name": sweep.name,
        "plan": sweep.plan.model_dump(mode="json"),
        "overrides": list(sweep.overrides),
        "varied": list(sweep.varied),
        "settings": [
            {
                "setting": summary.setting.name,
                "changes": dict(summary.setting.changes),
                "values": dict(summary.setting.values),
                "runs": summary.count,
                "missing": summary.missing,
                "student": summary.student,
                "difference": summary.difference,
                "ensemble": summary.ensemble,
                "best_teacher": summary.best_teacher,
                "seconds": summary.seconds,
                "answers": summary.answers,
                "epsilon": summary.epsilon,
            }
            for summary in summaries
        ],
        "runs": list(table),
        "notes": list(attempt.notes),
        "jobs": attempt.jobs,
        "seconds": attempt.seconds,
        "silos_made": attempt.silos_made,
        "versions": versions(),
        "commit": commit(),
    }
