"""The same run with several seeds: a figure comes with its spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from fedcpsc.runs.result import RunResult

__all__ = ["summarise"]

_FIGURES: dict[str, Callable[[RunResult], float | None]] = {
    "student": lambda result: result["student"]["accuracy"],
    "ensemble": lambda result: result["ensemble"]["accuracy"],
    "best_teacher": lambda result: max((s["teacher_accuracy"] for s in result["silos"]), key=_known),
    "seconds": lambda result: result["seconds"]["total"],
}


def summarise(name: str, results: Sequence[RunResult]) -> dict[str, Any]:
    """Mean, sample standard deviation and values of each figure, as `<name>-seeds.json` holds them.

    Args:
        results: results of the runs, one a seed, at least one. A figure that any of them lacks is None throughout; the
            deviation of a single value is None.
    """
    summary: dict[str, Any] = {"name": name, "seeds": [result["seed"] for result in results]}
    for figure, read in _FIGURES.items():
        values = [read(result) for result in results]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        summary[figure] = {
            "mean": statistics.fmean(known) if whole else None,
            "std": statistics.stdev(known) if whole and len(known) > 1 else None,
            "values": values,
        }
    summary["versions"] = results[0]["versions"]
    summary["commit"] = results[0]["commit"]
    return summary


def _known(value: float | None) -> float:
    return -1.0 if value is None else value
