# SPDX-License-Identifier: Apache-2.0
"""Who paid for a run's answers where: the same figures on page, card and terminal."""

from __future__ import annotations

from dataclasses import dataclass

from fedcpsc.runs.origin import Origin
from fedcpsc.runs.read import RunFacts

__all__ = ["Payment", "origin_in_words", "payments"]


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
    if run.origin is None:
        return ()
    runs = run.origin.runs
    return tuple(
        Payment(
            silo.id,
            tuple(origin.answers.get(silo.id, 0) for origin in runs),
            silo.answers - run.origin.answers_of(silo.id),
        )
        for silo in run.silos
    )


def origin_in_words(origin: Origin) -> str:
    """An earlier run, as far as it may be told to anyone: name, commit and state, not where it lay."""
    state = "finished" if origin.finished else "not finished then"
    return f"{origin.run} ({state}{f', commit {origin.commit}' if origin.commit else ''})"
