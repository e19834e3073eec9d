# SPDX-License-Identifier: Apache-2.0
"""What a policy's evaluations come to, in plain words for the owner."""

from __future__ import annotations

from fedcpsc.gatekeeper.composition import Account, composed_epsilon
from fedcpsc.gatekeeper.evaluation_policy import EvaluationPolicy
from fedcpsc.gatekeeper.evaluation_promise import cost_to_come, evaluations_left
from fedcpsc.ledger.budget import MU2_UNIT

__all__ = ["evaluation_meaning", "evaluation_warnings"]


def evaluation_meaning(section: EvaluationPolicy | None, ledger: Account, delta: float | None) -> list[str]:
    """What servers learn by having students judged; nothing where the policy has no section for it.

    Args:
        section: section `evaluation` of the policy.
        ledger: ledger of the population.
        delta: delta of the policy's promise, in (0, 1); None where it promises nothing.
    """
    if section is None:
        return []
    left, unit = evaluations_left(section, ledger), ledger.status().unit
    size = "is told how many there are" if section.public_size else "is not told how many there are"
    if section.per_class and not section.public_size:
        size = "is told only with noise how many there are"
    found = [
        f"Servers may have {left} more students evaluated on your held-out images (of {section.evaluations} over all"
        f" time): of each it learns how many are classified rightly, and {size}."
    ]
    if section.per_class:
        found.append(
            "It also learns, class by class, how many there are, how many are classified rightly, and how often the"
            " student says the class: servers improve students by that (each try is one evaluation)."
        )
    if section.sigma is None or delta is None:
        tells = "of several images at once whether each" if section.per_class else "whether one image"
        return [
            *found,
            "That is told exactly, and nothing bounds what it gives away: a student made for it can tell"
            f" {tells}, with its label, is among yours.",
        ]
    alone = composed_epsilon(cost_to_come(section, ledger) / MU2_UNIT, delta, []).epsilon
    return [
        *found,
        f"Each number has noise of standard deviation {section.sigma:g}, for at most {section.images_per_unit(unit)}"
        f" image(s) of one {unit}{_four_times(section)}. All that are left come to epsilon {alone:.4g} by"
        " themselves; they are part of the promise, and their noise is set aside.",
    ]


def evaluation_warnings(section: EvaluationPolicy | None, *, dp: bool) -> list[str]:
    """What to think twice about.

    Args:
        section: section `evaluation` of the policy; None where there is none.
        dp: whether the policy promises differential privacy.
    """
    if section is None:
        return []
    found = []
    if not dp:
        found.append(
            "students are evaluated with exact numbers: from the first on, no later policy can promise an epsilon"
        )
    if section.public_size and dp:
        found.append(
            "evaluation.public_size: the number of held-out images is told, and no noise covers it: whoever knows all"
            " the others can see whether one more is there"
        )
    return found


def _four_times(section: EvaluationPolicy) -> str:
    return ", and an evaluation costs four times as much as without classes" if section.per_class else ""
