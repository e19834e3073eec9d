# SPDX-License-Identifier: Apache-2.0
"""Published methods on the silos that fedcpsc asks."""

from __future__ import annotations

from typing import Any

from benchmarks.tables.markdown import read, spread, table

__all__ = ["comparison", "published", "references", "sanity"]

Row = dict[str, Any]

_METHODS = ("fedcpsc", "IDEAL", "DFME", "DENSE", "FedDF, MNIST pictures", "FedDF, CIFAR-10 pictures")
_REFERENCES = ("best teacher", "ensemble, mean logits", "ensemble, class counts", "FedAvg, one shot")
_NOT_MEASURED = "-"


def comparison() -> list[str]:
    """Each federation and number of calls: every method's student."""
    rows = _rows("peers.json")
    asked = sorted({row["budget"] for row in rows if row["method"] == "fedcpsc"})
    return table(
        f"federation | calls | {' | '.join(_METHODS)} | seeds",
        (
            (name, f"{calls:,}", *(_cell(rows, name, method, calls) for method in _METHODS), _seeds(rows, name, calls))
            for name in _federations(rows)
            for calls in asked
            if any((row["setting"], row["budget"]) == (name, calls) for row in rows)
        ),
    )


def references() -> list[str]:
    """Each federation: what its teachers reach without a student, and the average of their weights."""
    rows = _rows("peers.json")
    return table(
        f"federation | {' | '.join(_REFERENCES)}",
        ((name, *(_cell(rows, name, method, 0) for method in _REFERENCES)) for name in _federations(rows)),
    )


def published() -> list[str]:
    """Methods at numbers of calls that are their own papers'."""
    compared = _rows("peers.json")
    asked = {0, *(row["budget"] for row in compared if row["method"] == "fedcpsc")}
    rows = [row for row in compared if row["budget"] not in asked]
    return table(
        "federation | method | calls | student | seeds",
        (
            (
                row["setting"],
                row["method"],
                f"{row['calls']:,}",
                _cell(rows, row["setting"], row["method"], row["budget"]),
                f"{len(row['seeds'])}",
            )
            for row in rows
        ),
    )


def sanity() -> list[str]:
    """Each peer on its own ground, beside what its paper shows."""
    return table(
        "federation | method | calls | student or ensemble | seeds",
        (
            (
                row["setting"],
                row["method"],
                f"{row.get('calls', 0):,}",
                spread(row["mean"], row["std"]),
                f"{len(row['seeds'])}",
            )
            for row in _rows("peers_sanity.json")
        ),
    )


def _rows(name: str) -> list[Row]:
    return read(name) or []


def _federations(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["setting"] for row in rows))


def _cell(rows: list[Row], name: str, method: str, calls: int) -> str:
    """The method's own student, and of peers that have one, that of fedcpsc's fit to what they asked."""
    wanted = (name, method, calls)
    row = next((row for row in rows if (row["setting"], row["method"], row["budget"]) == wanted), None)
    if row is None:
        return _NOT_MEASURED
    own = spread(row["mean"], row["std"])
    if method == "fedcpsc":
        return f"**{own}**"
    return own + (f" / {spread(row['fitted_mean'], row['fitted_std'])}" if "fitted_mean" in row else "")


def _seeds(rows: list[Row], name: str, calls: int) -> str:
    """Numbers of seeds of the row's methods, fewest and most."""
    counts = [len(row["seeds"]) for row in rows if (row["setting"], row["budget"]) == (name, calls)]
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
