# SPDX-License-Identifier: Apache-2.0
"""A policy's epsilon compared with its parts: what was released, what may still be, and what a training would add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from fedcpsc.errors import PolicyError, explain
from fedcpsc.gatekeeper.composition import Account, Composition, composed_epsilon, exposures
from fedcpsc.gatekeeper.evaluation_promise import cost_to_come
from fedcpsc.gatekeeper.mechanisms.sections import DpPolicy
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.ledger.budget import MU2_UNIT
from fedcpsc.privacy.accounting import History
from fedcpsc.privacy.noise import LARGEST_SIGMA
from fedcpsc.teachers.proof import histories_of

__all__ = [
    "COUNTS",
    "Parts",
    "check_counts",
    "check_exposures",
    "check_noise",
    "check_promise",
    "count_cost",
    "count_name",
    "counts_to_share",
    "parts_with",
    "trainings_that_fit",
]

COUNTS = "class-counts"
_ROUNDING = 1e-9
_MOST_TRAININGS = 1024


@dataclass(frozen=True)
class Parts:
    """What a population has lost, and is certain to lose.

    Attributes:
        spent: sum of mu^2 released so far, in units of 1e-12.
        counts: mu^2 of class counts that the policy shares and that were not shared yet, in the same units.
        histories: accountant's states of every DP-SGD training, this teacher's and a planned one's with them.
        evaluations: mu^2 of the evaluations that the policy still allows, in the same units.
    """

    spent: int
    counts: int
    histories: Sequence[History]
    evaluations: int = 0

    @property
    def mu2(self) -> int:
        """mu^2 of all noisy releases, made and still to come, in units of 1e-12."""
        return self.spent + self.counts + self.evaluations

    def composed(self, delta: float) -> Composition:
        """All of it together."""
        return composed_epsilon(self.mu2 / MU2_UNIT, delta, self.histories)

    def listed(self, delta: float) -> str:
        """Each part with its own epsilon; they do not simply add up."""
        noisy = composed_epsilon(self.spent / MU2_UNIT, delta, [])
        counts = composed_epsilon(self.counts / MU2_UNIT, delta, [])
        judged = composed_epsilon(self.evaluations / MU2_UNIT, delta, [])
        trained = composed_epsilon(0.0, delta, self.histories)
        number = len(self.histories)
        parts = [
            f"noisy answers and counts so far {noisy.epsilon:.4g}" if self.spent else "",
            f"class counts still to be shared {counts.epsilon:.4g}" if self.counts else "",
            f"evaluations of students still to come {judged.epsilon:.4g}" if self.evaluations else "",
            f"{number} DP-SGD teacher{'s' * (number > 1)} {trained.epsilon:.4g}" if number else "",
        ]
        return ", ".join(part for part in parts if part) or "nothing yet"


def count_cost(policy: Policy) -> int:
    """mu^2 of noised class counts in units of 1e-12, rounded up; 0 where none are shared, or exactly.

    A record is one count: under add/remove the sensitivity of the counts is 1. Persons: see `check_counts`.
    """
    if not policy.share_class_counts or policy.class_count_sigma is None:
        return 0
    return math.ceil(MU2_UNIT / policy.class_count_sigma**2)


def count_name(policy: Policy) -> str:
    """The release's name in the ledger: counts of one sigma are noised and charged once."""
    return f"{COUNTS} sigma={Fraction(repr(policy.class_count_sigma))}"


def counts_to_share(policy: Policy, ledger: Account) -> int:
    """`count_cost`, or 0 where these counts were charged before."""
    cost = count_cost(policy)
    if not cost:
        return 0
    name = count_name(policy)
    charged = any(row["kind"] == "charged" and row["query_id"] == name for row in ledger.export())
    return 0 if charged else cost


def parts_with(policy: Policy, ledger: Account, more: Sequence[History] = ()) -> Parts:
    """What the population has lost, and would lose with these trainings."""
    histories = [*histories_of(ledger.releases()).values(), *more]
    evaluations = cost_to_come(policy.evaluation, ledger)
    return Parts(ledger.status().spent.mu2, counts_to_share(policy, ledger), histories, evaluations)


def check_exposures(mechanism: str, ledger: Account) -> None:
    """Refuses a promise after releases without any.

    Raises:
        PolicyError: where some were.
    """
    exposed = exposures(ledger)
    if exposed:
        why = f"{exposed} releases of this population had no guarantee"
        raise PolicyError(explain("mechanism.kind", mechanism, why, "use kind: none"))


def check_promise(section: DpPolicy, parts: Parts, remedy: str) -> None:
    """Holds the policy's epsilon against all parts together.

    Raises:
        PolicyError: where they come to more; it lists them.
    """
    found = parts.composed(section.delta)
    if found.epsilon > section.epsilon * (1 + _ROUNDING):
        total = f"all that leaves this population comes to {found} at delta {section.delta:g}"
        why = f"{total}: {parts.listed(section.delta)}"
        raise PolicyError(explain("mechanism.epsilon", section.epsilon, why, remedy))


def check_counts(policy: Policy, unit: str) -> None:
    """Refuses noised class counts where persons are protected.

    The counts are of records, and their noise is calculated for one record: a person changes them by all of theirs.

    Raises:
        PolicyError: the policy shares noised counts, and persons are protected.
    """
    if unit == "person" and count_cost(policy):
        why = "class counts count records, and the noise does not cover all records of a person"
        raise PolicyError(explain("share_class_counts", True, why, "set share_class_counts: false"))


def check_noise(name: str, scale: float) -> None:
    """Refuses noise beyond the sampler's table.

    Raises:
        PolicyError: where `scale`, in levels or votes, is not in (0, LARGEST_SIGMA].
    """
    if not 0 < scale <= LARGEST_SIGMA:
        why = f"is noise of {scale:g} on integers, which must be in (0, {LARGEST_SIGMA}]"
        raise PolicyError(explain(name, scale, why, "use less noise, or fewer quantisation levels"))


def trainings_that_fit(section: DpPolicy, parts: Parts, history: History) -> int:
    """How many more trainings like one fit into the policy's epsilon, at most 1024.

    Args:
        section: the policy's promise.
        parts: what the population has lost so far.
        history: accountant's state of each further training.
    """

    def fits(count: int) -> bool:
        more = [(noise, rate, steps * count) for noise, rate, steps in history]
        all_of_it = replace(parts, histories=[*parts.histories, more] if count else parts.histories)
        return all_of_it.composed(section.delta).epsilon <= section.epsilon * (1 + _ROUNDING)

    if not fits(1):
        return 0
    low, high = 1, 2
    while high < _MOST_TRAININGS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
