# SPDX-License-Identifier: Apache-2.0
"""Rows of the comparison: a method, a federation, a number of calls; its seeds come one after the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.dishonest.rows import Row, Rows
from benchmarks.record import provenance

__all__ = ["PeerRows", "measure_seeds"]


class PeerRows(Rows):
    """The rows of the result file."""

    @staticmethod
    def key(row: Row) -> str:
        """What tells rows apart."""
        return " | ".join(str(row[part]) for part in ("setting", "method", "budget"))


def measure_seeds(rows: PeerRows, about: Row, seeds: list[int], measure: Callable[[int], dict[str, float]]) -> Row:
    """The row of `about` with all seeds; those that the file holds are not measured again, each is written once done.

    Args:
        rows: file of the rows.
        about: what the row is of: `setting`, `method` and `budget`, and what else it is to tell.
        seeds: seeds to measure.
        measure: function from a seed to figures: `own`, and where there are such, `fitted` and `calls`.
    """
    row = rows.get(rows.key(about)) or {**about, "runs": {}}
    for seed in seeds:
        if str(seed) in row["runs"]:
            continue
        row["runs"][str(seed)] = {name: round(value, 2) for name, value in measure(seed).items()}
        made = provenance()
        row |= {**about, **_summary(row["runs"]), "commit": made["commit"], "versions": made["versions"]}
        rows.put(row)
    return row


def _summary(runs: dict[str, dict[str, float]]) -> Row:
    """Means and standard deviations over the seeds."""
    found: Row = {"seeds": sorted(int(seed) for seed in runs)}
    for name, short in (("own", ""), ("fitted", "fitted_")):
        values = [run[name] for run in runs.values() if name in run]
        if values:
            found[f"{short}mean"] = round(statistics.mean(values), 2)
            found[f"{short}std"] = round(statistics.stdev(values), 2) if len(values) > 1 else 0.0
    asked = [run["calls"] for run in runs.values() if "calls" in run]
    return found | ({"calls": int(max(asked))} if asked else {})
