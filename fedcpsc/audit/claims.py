# SPDX-License-Identifier: Apache-2.0
"""One bound compared with one claim: refuted, not contradicted, or not tested, because no guess could have refuted it.

A guarantee for persons is one for each of their records too, never the other way round. So a bound that is about
records (a canary is one record) refutes a claim for persons where it lies above it, and says less than it seems where
it lies below: a person with several records may show more. A bound about persons says nothing of a claim for records.
"""

from __future__ import annotations

import math

from fedcpsc.audit.figures import Held, HeldReach, Reach, Unit
from fedcpsc.audit.reach import guesses_needed

__all__ = ["NOT_CONTRADICTED", "NOT_TESTED", "REFUTED", "held_against", "outcome_in_words"]

REFUTED = "refuted"
NOT_CONTRADICTED = "not contradicted"
NOT_TESTED = "could not be tested"

_ALONE = 0.95  # confidence of a bound that shares it with no other


def held_against(found: Reach, claim: float | None, claimed_unit: Unit | None, share: float) -> Held:
    """What a bound says of a claim.

    Args:
        found: bound as of `measure.bound`.
        claim: claimed epsilon; None for no claim.
        claimed_unit: unit that the claim protects; None for no claim.
        share: share of the canaries that was guessed at, in (0, 1].

    Returns:
        `violated`; `outcome`, `testable` and `guesses_needed` (None where no number would do, with all canaries guessed
        at and all guesses right), all three None where nothing is claimed; `guessed_share`.
    """
    held: Held = {
        "claimed_epsilon": claim,
        "claimed_unit": claimed_unit,
        "guessed_share": share,
        "outcome": None,
        "testable": None,
        "guesses_needed": None,
        "violated": False,
    }
    if claim is None:
        return held
    same = not (found["unit"] == "person" and claimed_unit == "record")
    testable = same and found["reachable_epsilon"] > claim
    violated = testable and found["epsilon"] > claim
    return {
        **held,
        "outcome": REFUTED if violated else NOT_CONTRADICTED if testable else NOT_TESTED,
        "testable": testable,
        "guesses_needed": guesses_needed(claim, found["delta"], found["confidence"]),
        "violated": violated,
    }


def outcome_in_words(bound: HeldReach) -> str:
    """The outcome of a bound with a claim as words that complete "policy surface: ...".

    Args:
        bound: row of `audit.json`, with the fields of `held_against`.
    """
    claimed, unit = bound["claimed_epsilon"], bound["unit"]
    if claimed is None:
        return f"nothing is claimed; it shows at least {bound['epsilon']:.2f} per {unit}"
    claim = f"epsilon {claimed:g} per {bound['claimed_unit']}"
    shown = f"at least {bound['epsilon']:.2f} per {unit}"
    if bound["outcome"] == REFUTED:
        return f"claims {claim}, but shows {shown} (confidence {bound['confidence']:.1%})"
    if bound["outcome"] == NOT_CONTRADICTED:
        less = " (a bound over records says less of persons, who may have several)"
        other = less if unit != bound["claimed_unit"] else ""
        return f"{shown} of {claim} (could have shown up to {bound['reachable_epsilon']:.2f}){other}"
    return f"the claim of {claim} could not be tested: {_why_not(bound, claimed)}"


def _why_not(bound: HeldReach, claim: float) -> str:
    if bound["unit"] == "person" and bound["claimed_unit"] == "record":
        return "its canaries are whole persons, and a bound over persons says nothing of single records"
    if not bound["guesses"]:
        few = "no canary was" if not bound["canaries"] else "a single canary is too few; it was"
        return f"{few} planted in its training; a test {_needs(bound, claim)}"
    return (
        f"with {bound['guesses']:,} guesses this audit could have shown at most {bound['reachable_epsilon']:.2f} < "
        f"{claim:g}; a test {_needs(bound, claim)}"
    )


def _needs(bound: HeldReach, claim: float) -> str:
    """How many guesses would do, or that none would, with what can be done then."""
    delta, confidence, share = bound["delta"], bound["confidence"], bound["guessed_share"]
    guesses = guesses_needed(claim, delta, confidence, share)
    if guesses is not None:
        return f"needs about {_rounded(guesses)} guesses, of {_rounded(math.ceil(guesses / share))} canaries"
    if bound["guesses_needed"] is not None:
        return (
            f"needs about {_rounded(bound['guesses_needed'])} guesses with every canary guessed at (canaries.guesses: "
            f"1), and is out of reach of any number with {share:.0%} of them"
        )
    alone = guesses_needed(claim, delta, _ALONE)
    single = f" (held alone against its bound, at {_ALONE:.0%}, it needs about {_rounded(alone)})" if alone else ""
    return (
        f"is out of reach of any number of guesses at delta {delta:g} and confidence {confidence:.2%}{single}: hold "
        "fewer claims against bounds at once, or compare many trainings with and without one unit"
    )


def _rounded(number: int) -> str:
    """About so many, rounded up to three digits."""
    step = 10 ** max(0, len(str(number)) - 3)
    return f"{math.ceil(number / step) * step:,}"
