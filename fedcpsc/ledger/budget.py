# SPDX-License-Identifier: Apache-2.0
"""What is charged and what is left: the plain values that the ledger, the policy and the mechanisms exchange."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MU2_UNIT", "Allowance", "Budget", "Charge", "Denied", "Reserved", "Status", "Stored"]

MU2_UNIT = 10**12
"""Sums of mu^2 are kept as whole multiples of 1e-12, each charge rounded up: no float ever accumulates."""


@dataclass(frozen=True)
class Budget:
    """What may be spent over all time.

    Attributes:
        answers: images answered.
        mu2: sum of mu^2 over the Gaussian releases, in units of 1e-12; 0 where no mechanism spends it.
    """

    answers: int
    mu2: int = 0


@dataclass(frozen=True)
class Charge:
    """What one release costs, and for the record why.

    Attributes:
        answers: images answered, >= 0.
        mu2: mu^2 in units of 1e-12, >= 0 (rounded up by whoever computed it).
        private: whether a differential-privacy guarantee covers this release.
        mechanism: name, version and parameters of the mechanism.
        model: version of the teacher.
        sensitivity: L2, in the units of sigma; 0 where there is none.
        sigma: noise scale; 0 where there is none.
    """

    answers: int
    mu2: int = 0
    private: bool = False
    mechanism: str = "none"
    model: str = ""
    sensitivity: float = 0.0
    sigma: float = 0.0


@dataclass(frozen=True)
class Allowance:
    """How many charges of one sort there may ever be.

    Attributes:
        mechanism: text that the mechanisms' names of that sort begin with.
        times: number of such charges over all time, >= 0.
    """

    mechanism: str
    times: int


@dataclass(frozen=True)
class Reserved:
    """Charged and committed: compute the reply, then `store` it. `left` is what this charge left over."""

    left: Budget


@dataclass(frozen=True)
class Stored:
    """Answered before: send these bytes again, nothing is charged."""

    reply: bytes


@dataclass(frozen=True)
class Denied:
    """Refused, uncharged. `conflict`: the query id was used before for another question; otherwise the budget."""

    conflict: bool


@dataclass(frozen=True)
class Status:
    """The ledger's totals now.

    Attributes:
        population: name of the population whose loss is counted.
        unit: what one guarantee protects, `record` or `person`.
        relation: neighbouring relation of every epsilon computed from the ledger.
        delta: delta of every epsilon computed from the ledger, in (0, 1).
        budget: caps over all time.
        spent: sums over all time.
        unprotected: images answered without a differential-privacy guarantee.
        queries: queries charged.
        refused: queries refused for lack of budget, up to the number that is recorded.
        events: rows, the number of the newest.
        head: hash of the newest row.
        time_ns: time of the newest row, in nanoseconds since 1970, as the clock then showed.
    """

    population: str
    unit: str
    relation: str
    delta: float
    budget: Budget
    spent: Budget
    unprotected: int
    queries: int
    refused: int
    events: int
    head: str
    time_ns: int

    @property
    def left(self) -> Budget:
        """What is left of both budgets, never below 0."""
        return Budget(max(0, self.budget.answers - self.spent.answers), max(0, self.budget.mu2 - self.spent.mu2))
