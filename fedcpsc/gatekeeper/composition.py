# SPDX-License-Identifier: Apache-2.0
"""Computes one epsilon for all that a population ever released: noisy answers, class counts, DP-SGD teachers.

Formal guarantee: let M be the sum of mu^2 over all Gaussian releases, and let the trainings be Poisson-subsampled
Gaussian mechanisms with the histories given. All of it together is (epsilon, delta)-DP under add/remove for the
epsilon found here, however the asker chooses its queries and however answers and trainings take turns: each training
and the whole of the noisy answers is one mechanism (a cap on M is a filter, see `privacy.accounting`), and
interactive mechanisms compose concurrently as if they were not interactive (Vadhan & Zhang 2023, arXiv 2207.08335, who
also prove Lyu's theorem of 2022 for Rényi's bound).

| edge | |
|---|---|
| Gaussian releases alone | exact |
| trainings, or a mixture | the smaller of Rényi's bound and a numerical one, both shown |
| a training chosen by what was released before | Rényi's bound alone holds (Feldman & Zrnic 2021, arXiv 2008.11193) |
| answers or counts without noise | no epsilon: `exposures` counts them |
| one teacher in two ledgers of the population | one release: teachers are distinguished by their weights' hash |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypedDict

from fedcpsc.ledger.budget import MU2_UNIT, Status
from fedcpsc.ledger.chain import Row
from fedcpsc.teachers.proof import histories_of

if TYPE_CHECKING:
    from fedcpsc.privacy.accounting import History

__all__ = [
    "Account",
    "Composition",
    "CompositionFacts",
    "composed_epsilon",
    "exposures",
    "largest_mu2",
    "released_epsilon",
]

_BISECTIONS = 12


class Account(Protocol):
    """What composition reads from a ledger, whether that is open for writing or only for reading."""

    def status(self) -> Status:
        """The totals now."""
        ...

    def releases(self) -> list[Row]:
        """What left the silo beside answers, also what was carried over from another ledger."""
        ...

    def charges_of(self, mechanism: str) -> int:
        """Number of charges, carried ones too, whose mechanism's name begins so."""
        ...

    def export(self) -> Iterator[Row]:
        """Every row, oldest first."""
        ...


class CompositionFacts(TypedDict):
    """A composition as `--json` shows it; the names are those of `Composition`."""

    epsilon: float
    renyi: float
    pld: float | None
    exact: bool


@dataclass(frozen=True)
class Composition:
    """The epsilon of several releases together, by each accountant that can compute it.

    Attributes:
        renyi: epsilon by Rényi DP, >= 0; the exact epsilon where every release is Gaussian.
        pld: epsilon by numerical composition of privacy losses, >= 0; None where not needed or not possible.
        exact: whether every release is Gaussian, so that `renyi` is the exact epsilon.
    """

    renyi: float
    pld: float | None
    exact: bool

    @property
    def epsilon(self) -> float:
        """The smallest bound there is."""
        return self.renyi if self.pld is None else min(self.renyi, self.pld)

    def __str__(self) -> str:
        if self.exact:
            return f"epsilon {self.renyi:.4g}"
        numerical = "" if self.pld is None else f", {self.pld:.4g} numerically"
        return f"epsilon {self.epsilon:.4g} ({self.renyi:.4g} by Rényi DP{numerical})"

    def as_json(self) -> CompositionFacts:
        """Plain values, for `--json`."""
        return {"epsilon": self.epsilon, "renyi": self.renyi, "pld": self.pld, "exact": self.exact}


def composed_epsilon(mu2: float, delta: float, histories: Sequence[History]) -> Composition:
    """epsilon of Gaussian releases and DP-SGD trainings on the same population, together.

    Args:
        mu2: sum of mu^2 over the Gaussian releases, >= 0.
        delta: delta of the guarantee, in (0, 1).
        histories: accountant's states of the trainings.

    Raises:
        PolicyError: where a value is out of range.
    """
    steps = tuple(sorted((float(nm), float(rate), int(n)) for history in histories for nm, rate, n in history))
    return _composed(float(mu2), float(delta), steps)


@lru_cache(maxsize=4096)
def _composed(mu2: float, delta: float, steps: tuple[tuple[float, float, int], ...]) -> Composition:
    if not steps and mu2 == 0:
        return Composition(0.0, None, exact=True)
    from fedcpsc.privacy.accounting import compose, numerical_epsilon, rdp_epsilon  # noqa: PLC0415 - brings scipy

    if not steps:
        return Composition(compose(mu2, delta, []), None, exact=True)
    return Composition(rdp_epsilon(mu2, delta, [steps]), numerical_epsilon(mu2, delta, [steps]), exact=False)


def largest_mu2(epsilon: float, delta: float, histories: Sequence[History]) -> int:
    """The largest sum of mu^2, in units of 1e-12, that stays within (epsilon, delta) beside trainings; rounded down.

    Args:
        epsilon: epsilon of the promise, > 0.
        delta: delta of the promise, in (0, 1).
        histories: accountant's states of the trainings; they count before any noisy release does.
    """
    from fedcpsc.privacy.accounting import gaussian_mu  # noqa: PLC0415 - brings scipy

    low, high = 0, int(gaussian_mu(epsilon, delta) ** 2 * MU2_UNIT)
    if not histories:
        return high
    if composed_epsilon(0.0, delta, histories).epsilon > epsilon:
        return 0
    for _ in range(_BISECTIONS):
        middle = (low + high) // 2
        if composed_epsilon(middle / MU2_UNIT, delta, histories).epsilon <= epsilon:
            low = middle
        else:
            high = middle
    return low


def exposures(ledger: Account) -> int:
    """Releases without any guarantee: images answered so, and class counts shared exactly."""
    bare = sum(not row["private"] and row["answers"] == 0 for row in ledger.releases())
    return int(ledger.status().unprotected + bare)


def released_epsilon(ledger: Account, delta: float | None = None) -> Composition | None:
    """epsilon of all that has left so far; None where some of it had no guarantee.

    Args:
        ledger: the population's ledger.
        delta: delta of the guarantee, in (0, 1); None takes the ledger's own.
    """
    if exposures(ledger):
        return None
    status = ledger.status()
    histories = list(histories_of(ledger.releases()).values())
    return composed_epsilon(status.spent.mu2 / MU2_UNIT, delta or status.delta, histories)
