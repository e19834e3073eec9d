# SPDX-License-Identifier: Apache-2.0
"""What the evaluations that a policy allows cost, and how many of them are left, as the ledger tells.

Each is a row of kind `charged`: no images answered, mu^2 of its noise, and a mechanism whose name begins with
"evaluation". The noise of those still to come is set aside: answers cannot use it up, and the policy's epsilon is held
against it before the first query.
"""

from __future__ import annotations

import math

from fedcpsc.errors import PolicyError, explain
from fedcpsc.gatekeeper.composition import Account
from fedcpsc.gatekeeper.evaluation_policy import EvaluationPolicy
from fedcpsc.ledger.budget import MU2_UNIT, Charge

__all__ = [
    "EVALUATION",
    "EXACT_EVALUATIONS",
    "check_rows_known",
    "cost_of_one",
    "cost_to_come",
    "evaluation_charge",
    "evaluations_left",
]

EVALUATION = "evaluation "
"""How the mechanism of a row of the ledger begins that charges an evaluation."""
EXACT_EVALUATIONS = "evaluations without noise"
"""Name of the release that stands in the ledger from the first evaluation without a guarantee on."""
_LOST = "unknown: rows lost"


def cost_of_one(section: EvaluationPolicy | None, unit: str) -> int:
    """mu^2 of one evaluation in units of 1e-12, rounded up; 0 where there are none, or they have no noise.

    Args:
        section: section `evaluation` of the policy; None where there is none.
        unit: what is protected, `record` or `person`.
    """
    return 0 if section is None else math.ceil(section.mechanism(unit).cost() * MU2_UNIT)


def evaluations_left(section: EvaluationPolicy | None, ledger: Account) -> int:
    """Number of evaluations that the policy still allows, >= 0.

    Args:
        section: section `evaluation` of the policy; None where there is none.
        ledger: ledger of the population.

    Raises:
        LedgerError: where it cannot be read.
    """
    return 0 if section is None else max(0, section.evaluations - ledger.charges_of(EVALUATION))


def cost_to_come(section: EvaluationPolicy | None, ledger: Account) -> int:
    """mu^2 of all evaluations that are left, in units of 1e-12; 0 where they have no noise.

    Args:
        section: section `evaluation` of the policy; None where there is none.
        ledger: ledger of the population.
    """
    cost = cost_of_one(section, ledger.status().unit)
    return cost * evaluations_left(section, ledger) if cost else 0


def evaluation_charge(section: EvaluationPolicy, unit: str) -> Charge:
    """What one evaluation is charged; no teacher takes part in it, and none is named.

    Args:
        section: section `evaluation` of the policy.
        unit: what is protected, `record` or `person`.
    """
    mechanism = section.mechanism(unit)
    noise = f"sigma={section.sigma!r} images_per_unit={section.images_per_unit(unit)}"
    named = (noise if mechanism.dp else "exact") + (" per class" if section.per_class else "")
    return Charge(
        answers=0,
        mu2=cost_of_one(section, unit),
        private=mechanism.dp,
        mechanism=f"{EVALUATION}{named}",
        sensitivity=mechanism.sensitivity,
        sigma=mechanism.sigma,
    )


def check_rows_known(section: EvaluationPolicy | None, ledger: Account) -> None:
    """Refuses where a backup was put back that lacked rows: nobody knows how many evaluations those were.

    Raises:
        PolicyError: where that was so.
    """
    if section is not None and any(row["mechanism"] == _LOST for row in ledger.releases()):
        why = "rows of this ledger were lost, and nobody knows how many evaluations they charged"
        raise PolicyError(explain("evaluation.evaluations", section.evaluations, why, "remove the section evaluation"))
