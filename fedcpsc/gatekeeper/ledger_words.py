# SPDX-License-Identifier: Apache-2.0
"""A ledger in words that its owner can read: what was given so far, and each row with time, images and epsilon."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from fedcpsc.gatekeeper.evaluation_promise import EVALUATION
from fedcpsc.ledger.budget import MU2_UNIT
from fedcpsc.ledger.chain import Row
from fedcpsc.ledger.clock import iso_time
from fedcpsc.ledger.mark import MarkState
from fedcpsc.ledger.reading import LedgerReader
from fedcpsc.teachers.proof import histories_of

if TYPE_CHECKING:
    from fedcpsc.gatekeeper.composition import CompositionFacts

__all__ = [
    "LedgerFacts",
    "as_csv",
    "as_jsonl",
    "clock_words",
    "epsilon_so_far",
    "ledger_facts",
    "mark_words",
    "readable",
]

_KINDS = {
    "created": "ledger begun",
    "charged": "query charged",
    "answered": "reply stored",
    "refused": "query refused, no budget",
    "raised": "budget raised",
    "released": "released beside answers",
    "carried": "carried over from another ledger",
    "population": "population or its persons named",
    "restored": "backup restored or mark begun",
    "clock": "clock went wrong",
}


class LedgerFacts(TypedDict):
    """What the command `ledger show` prints; its JSON holds these names.

    Attributes:
        answers, mu2: budget, what was spent and what is left; mu2 in units of mu^2.
        delta: delta of every epsilon here.
        epsilon_spent: epsilon of all that was released; None where some had no guarantee.
        epsilon_by: the same by each accountant.
        answers_without_guarantee: number of answers that no guarantee covers.
        evaluations: number of students judged on held-out images; their noise is part of mu2.
        newest_row, head: time and hash of the newest row.
        epsilon_realised_private: epsilon that the votes really cost, where it was asked for; None where unknown.
        backup: advice how to copy the ledger, for people.
    """

    population: str
    unit: str
    relation: str
    delta: float
    answers: dict[str, int]
    mu2: dict[str, float]
    epsilon_spent: float | None
    epsilon_by: CompositionFacts | None
    answers_without_guarantee: int
    evaluations: int
    queries: int
    refused: int
    events: int
    newest_row: str
    head: str
    clock_events: list[str]
    mark: str
    epsilon_realised_private: NotRequired[float | None]
    backup: NotRequired[str]


def ledger_facts(ledger: LedgerReader) -> LedgerFacts:
    """What the command `ledger show` prints, as plain values.

    Raises:
        LedgerError: where the file cannot be read.
    """
    from fedcpsc.gatekeeper.composition import released_epsilon  # noqa: PLC0415 - brings scipy

    status, released = ledger.status(), released_epsilon(ledger)
    return {
        "population": status.population,
        "unit": status.unit,
        "relation": status.relation,
        "delta": status.delta,
        "answers": {"budget": status.budget.answers, "spent": status.spent.answers, "left": status.left.answers},
        "mu2": {name: getattr(status, name).mu2 / MU2_UNIT for name in ("budget", "spent", "left")},
        "epsilon_spent": None if released is None else released.epsilon,
        "epsilon_by": None if released is None else released.as_json(),
        "answers_without_guarantee": status.unprotected,
        "evaluations": ledger.charges_of(EVALUATION),
        "queries": status.queries,
        "refused": status.refused,
        "events": status.events,
        "newest_row": iso_time(status.time_ns),
        "head": status.head,
        "clock_events": [clock_words(row) for row in ledger.clock_events()],
        "mark": mark_words(ledger.mark_state()),
    }


def epsilon_so_far(mu2: int, delta: float, releases: Iterable[Row]) -> float:
    """epsilon of everything that left: exact where all of it was Gaussian.

    Args:
        mu2: sum of mu^2 over the Gaussian releases, in units of 1e-12.
        delta: delta of the same guarantee, in (0, 1).
        releases: rows of what left beside answers; their DP-SGD trainings are composed too.
    """
    from fedcpsc.gatekeeper.composition import composed_epsilon  # noqa: PLC0415 - brings scipy

    return composed_epsilon(mu2 / MU2_UNIT, delta, list(histories_of(releases).values())).epsilon


def clock_words(row: Row) -> str:
    """One row of kind `clock` as a sentence."""
    note = json.loads(row["note"])
    what = {"ahead": "jumped ahead", "back": "went back", "unset": "was before this software was made"}[note["how"]]
    seen = f"expected {iso_time(note['from_ns'])}, showed {iso_time(note['to_ns'])}"
    return f"row {row['seq']}: the clock {what} ({note['seconds']:+d} s: {seen})"


def mark_words(state: MarkState) -> str:
    """How the ledger stands to its high-water mark, as a sentence."""
    return {
        "matches": f"matches, row {state.row} ({state.path})",
        "missing": f"missing ({state.path}): this file opens for reading alone",
        "ahead": f"ahead, row {state.row} ({state.path}): this ledger is an old copy, or another one",
        "unreadable": f"unreadable ({state.path})",
    }[state.kind]


def readable(rows: Iterable[Row]) -> Iterator[Mapping[str, object]]:
    """Each row as an owner reads it: ISO time, kind in words, its cost, and the totals and epsilon so far.

    Args:
        rows: every row of a ledger, oldest first.

    Yields:
        Plain values by name; `epsilon_so_far` is None from the first release without a guarantee on.
    """
    exposed, trainings, known = False, [], dict[tuple[int, int], float]()
    for row in rows:
        if row["kind"] in ("released", "carried"):
            exposed |= not row["private"]
            trainings += [row] if histories_of([row]) else []
        exposed |= row["unprotected"] > 0
        spent = (row["mu2_spent"], len(trainings))
        if not exposed and spent not in known:
            known = {spent: epsilon_so_far(row["mu2_spent"], row["delta"], trainings)}
        yield {
            "row": row["seq"],
            "time": iso_time(row["time_ns"]),
            "what": _KINDS[row["kind"]],
            "name": row["query_id"],
            "images": row["answers"],
            "mechanism": row["mechanism"],
            "sigma": row["sigma"],
            "guarantee": bool(row["private"]) if row["kind"] in ("charged", "released", "carried") else None,
            "run": row["run"],
            "principal": row["principal"],
            "population": row["dataset_id"],
            "unit": row["unit"],
            "images_so_far": row["answers_spent"],
            "images_left": max(0, row["answers_cap"] - row["answers_spent"]),
            "images_without_guarantee": row["unprotected"],
            "epsilon_so_far": None if exposed else known[spent],
            "delta": row["delta"],
            "refused_so_far": row["refused"],
            "note": row["note"],
        }


def as_jsonl(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """One line of JSON for each row."""
    return (json.dumps(row) for row in rows)


def as_csv(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """A line of names, then one line for each row; None is empty."""
    for number, row in enumerate(rows):
        if number == 0:
            yield _line(row)
        yield _line(row.values())


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if value is None else _plain(value) for value in values])
    return text.getvalue()


def _plain(value: object) -> object:
    """Text that a spreadsheet would take for a formula is quoted: a run chooses its own name."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
