# SPDX-License-Identifier: Apache-2.0
"""The white-box mode with and without what its paper claims, and with the departures of its authors' code."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.tables.markdown import read, spread, table

__all__ = ["claims", "quirks"]

Row = dict[str, Any]
_PUBLISHED = "as published"
_CLAIMS = {
    _PUBLISHED: "best of these",
    "no label": "worse: images of wanted classes make the distillation supervised",
    "label beside z": "worse: CFE keeps the classes apart, others' images are ambiguous to the teacher",
    "no contrast": "worse: the contrast makes the images of a class diverse",
}


def claims() -> list[str]:
    """Student and images without each part of the method, beside what the paper says of that part."""
    rows = _rows()
    return table(
        "data | setting | the paper says | student, % | against as published | called by their label (worst class), % "
        "| evenness of classes | distance within a class",
        (
            (
                data,
                name,
                claim,
                _student(ours),
                _difference(ours, rows[data, _PUBLISHED]) if name != _PUBLISHED else "",
                _by_label(ours),
                f"{_mean(row['entropy'] for row in ours):.2f}",
                f"{_mean(row['distance'] / row['real_distance'] for row in ours):.2f}",
            )
            for data in _data_sets(rows)
            for name, claim in _CLAIMS.items()
            if (ours := rows.get((data, name)))
        ),
    )


def quirks() -> list[str]:
    """Each departure of the authors' code alone, all of them, and none."""
    rows, data_sets = _rows(), _data_sets(_rows())
    settings = dict.fromkeys(name for (_, name), ours in rows.items() if name == _PUBLISHED or ours[0]["quirks"])

    def cell(data: str, name: str, figure: Callable[[str, str], str]) -> str:
        return figure(data, name) if (data, name) in rows else "-"

    def student(data: str, name: str) -> str:
        ours = rows[data, name]
        by = f" ({_difference(ours, rows[data, _PUBLISHED])})" if name != _PUBLISHED else ""
        return f"{_student(ours)}{by}"

    def best(data: str, name: str) -> str:
        return f"+{_mean(row['best_epoch'] - row['student'] for row in rows[data, name]):.1f}"

    header = ["departure", *data_sets, "best epoch on test, points above the last"]
    return table(
        " | ".join(header),
        (
            (
                "none" if name == _PUBLISHED else name.replace("_", " "),
                *(cell(data, name, student) for data in data_sets),
                ", ".join(cell(data, name, best) for data in data_sets),
            )
            for name in settings
        ),
    )


def _rows() -> dict[tuple[str, str], list[Row]]:
    """The result file's rows by data set and setting, those of a setting by seed."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(read("white_box_claims.json") or [], key=lambda row: int(row["seed"])):
        found.setdefault((row["data"], row["setting"]), []).append(row)
    return found


def _data_sets(rows: dict[tuple[str, str], list[Row]]) -> list[str]:
    return list(dict.fromkeys(data for data, name in rows if name == _PUBLISHED))


def _student(rows: list[Row]) -> str:
    each = [row["student"] for row in rows]
    return spread(_mean(each), _deviation(each))


def _difference(rows: list[Row], from_rows: list[Row]) -> str:
    """Mean and standard deviation over the seeds that both have, a seed's teacher being the same."""
    before = {row["seed"]: row["student"] for row in from_rows}
    each = [row["student"] - before[row["seed"]] for row in rows if row["seed"] in before]
    return f"{_mean(each):+.1f} +- {_deviation(each):.1f}" if each else "-"


def _by_label(rows: list[Row]) -> str:
    if rows[0]["recall"] is None:
        return "-"
    return f"{100 * _mean(row['recall'] for row in rows):.0f} ({100 * _mean(row['least_recall'] for row in rows):.0f})"


def _mean(values: Iterable[float]) -> float:
    return statistics.mean(values)


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
