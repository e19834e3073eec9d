# SPDX-License-Identifier: Apache-2.0
"""Who paid for a run's answers where: the same figures on page, card and terminal."""

from __future__ import annotations

from dataclasses import dataclass

from fedcpsc.runs.lineage import SourceRun
from fedcpsc.runs.read import RunFacts

__all__ = ["Payment", "payments", "run_in_words"]


@dataclass(frozen=True)
class Payment:
    """What one silo was charged for, in images.

    Attributes:
        silo: name of the silo in this run's bank.
        before: number of images in each of the earlier runs, the earliest first.
        here: number of images in this run itself.
    """

    silo: str
    before: tuple[int, ...]
    here: int


def payments(run: RunFacts) -> tuple[Payment, ...]:
    """What each silo of a run was charged for, here and before; empty where the run asked for all answers itself.

    Args:
        run: facts of the run.
    """
    if run.lineage is None:
        return ()
    runs = run.lineage.runs
    return tuple(
        Payment(
            silo.id,
            tuple(one.answers.get(silo.id, 0) for one in runs),
            silo.answers - run.lineage.answers_of(silo.id),
        )
        for silo in run.silos
    )


def run_in_words(run: SourceRun) -> str:
    """An earlier run, as far as it may be told to anyone: name, commit and state, not where it lay."""
    state = "finished" if run.finished else "not finished then"
    return f"{run.run} ({state}{f', commit {run.commit}' if run.commit else ''})"
