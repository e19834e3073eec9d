# SPDX-License-Identifier: Apache-2.0
"""Decides from policy, manifest and ledger what may be claimed: mechanism, budget and epsilon. Fails closed.

Everything is decided before the first query. Where the teacher, or what the ledger already released, makes the policy's
promise impossible, the owner gets an error, never a weaker promise.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcpsc.errors import PolicyError, explain
from fedcpsc.gatekeeper.composition import Account, largest_mu2
from fedcpsc.gatekeeper.evaluation_promise import check_rows_known, cost_of_one, cost_to_come
from fedcpsc.gatekeeper.mechanisms.dp_sgd import DpSgdPolicy
from fedcpsc.gatekeeper.mechanisms.mechanism import MECHANISM_KINDS
from fedcpsc.gatekeeper.mechanisms.sections import DpPolicy, NoisyPolicy
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.promise import (
    Parts,
    check_counts,
    check_exposures,
    check_noise,
    check_promise,
    count_cost,
    counts_to_share,
    parts_with,
)
from fedcpsc.ledger.budget import Budget
from fedcpsc.privacy.accounting import History, dp_sgd_epsilon
from fedcpsc.privacy.mechanisms import Mechanism
from fedcpsc.protocol.messages import DpClaim
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.proof import DpSgdProof, ShardsProof, histories_of, proof_of

__all__ = ["Guarantee", "build_mechanism", "check_training", "count_cost", "guarantee_of", "initial_budget"]


@dataclass(frozen=True)
class Guarantee:
    """What a gatekeeper promises and how it keeps it.

    Attributes:
        mechanism: mechanism that privatises answers.
        limit: caps on all that is ever spent, also before this policy; where the ledger's own are lower, they hold.
        claim: claim with the policy's epsilon; all that is ever released stays within it.
    """

    mechanism: Mechanism
    limit: Budget
    claim: DpClaim


def build_mechanism(policy: Policy, manifest: Manifest) -> Mechanism:
    """The policy's mechanism, where the teacher fits it.

    Raises:
        PolicyError: the manifest does not prove what the mechanism rests on, or its noise is too large to draw.
        ConfigError: an unknown kind of mechanism.
    """
    section = policy.mechanism
    mechanism = MECHANISM_KINDS.get(section.kind).build(section, manifest)
    for name, scale in mechanism.scales.items():  # known before anything is charged
        check_noise(f"mechanism.{name}", scale)
    return mechanism


def initial_budget(policy: Policy, unit: str = "record") -> Budget:
    """The caps a new ledger begins with under this policy.

    Args:
        policy: policy of the silo.
        unit: what one guarantee protects, `record` or `person`.
    """
    if isinstance(policy.mechanism, NoisyPolicy):
        return Budget(policy.answers, largest_mu2(policy.mechanism.epsilon, policy.mechanism.delta, []))
    evaluations = 0 if policy.evaluation is None else policy.evaluation.evaluations
    return Budget(policy.answers, count_cost(policy) + evaluations * cost_of_one(policy.evaluation, unit))


def guarantee_of(policy: Policy, manifest: Manifest, ledger: Account) -> Guarantee:
    """What may be promised under this policy, for this teacher, after all that already left.

    The promise is the policy's epsilon. It is kept by holding it against everything the population ever released and
    everything that may still be: the noisy answers up to their cap, class counts not shown yet, the evaluations of
    students that the policy allows, this teacher.

    Raises:
        PolicyError: naming what stands against the promise, its parts, and the remedy.
    """
    mechanism, section, status = build_mechanism(policy, manifest), policy.mechanism, ledger.status()
    check_counts(policy, status.unit)
    check_rows_known(policy.evaluation, ledger)
    if policy.share_class_counts and manifest.private_class_counts is None:
        remedy = "set share_class_counts: false; or adopt the model with its counts: fedcpsc adopt --class-counts"
        raise PolicyError(explain("share_class_counts", True, "the class counts of this teacher are not known", remedy))
    if not isinstance(section, DpPolicy):
        return Guarantee(mechanism, Budget(policy.answers, status.budget.mu2), DpClaim(mechanism=mechanism.name))
    proof = proof_of(manifest)
    if isinstance(proof, DpSgdProof):
        _check_proof(proof)
    if isinstance(proof, DpSgdProof | ShardsProof) and proof.unit != status.unit:
        why = f"the ledger counts what each {status.unit} loses"
        raise PolicyError(explain("manifest.privacy.unit", proof.unit, why, "train the teacher for that unit"))
    # where a public number stands in the proof, the private one decides nothing
    _check_delta(section, proof.records if isinstance(proof, DpSgdProof) else manifest.train_size)
    check_exposures(mechanism.name, ledger)
    counts, evaluations = counts_to_share(policy, ledger), cost_to_come(policy.evaluation, ledger)
    if policy.evaluation is not None and policy.evaluation.sigma is not None:
        check_noise("evaluation.sigma", policy.evaluation.sigma)
    own = {manifest.weights_sha256: proof.history} if isinstance(proof, DpSgdProof) else {}
    histories = list({**histories_of(ledger.releases()), **own}.values())
    parts = Parts(status.spent.mu2, counts, histories, evaluations)
    cap = parts.mu2  # what is certain to be spent, or set aside
    check_promise(section, parts, "accept that epsilon, share no class counts, or allow fewer evaluations")
    if isinstance(section, NoisyPolicy):
        cap = min(status.budget.mu2, largest_mu2(section.epsilon, section.delta, histories))
        if cap == 0:
            raise PolicyError(
                explain("ledger mu2", 0, "has no budget for noise", "raise it: fedcpsc ledger raise --epsilon")
            )
    if evaluations and parts.mu2 > min(cap, status.budget.mu2):
        why = "the ledger's budget does not hold the noise of the evaluations that are left"
        remedy = "raise it: fedcpsc ledger raise --epsilon; or allow fewer evaluations, or give them more noise"
        raise PolicyError(
            explain("evaluation.evaluations", policy.evaluation and policy.evaluation.evaluations, why, remedy)
        )
    name = mechanism.name
    if isinstance(proof, DpSgdProof) and proof.public_weights is not None:  # which the guarantee does not cover
        name += f" from public weights {proof.public_weights[:12]}"
    claim = DpClaim(True, section.epsilon, section.delta, status.unit, status.relation, name)
    return Guarantee(mechanism, Budget(policy.answers, cap), claim)


def check_training(policy: Policy, ledger: Account, history: History) -> None:
    """Checks, before a DP-SGD training, that with it the population stays within the policy's epsilon.

    Nothing is checked where the policy's mechanism is not `dp_sgd`: then no epsilon of the training is promised.

    Args:
        policy: policy of the silo.
        ledger: ledger of its population.
        history: accountant's state that the planned training will have.

    Raises:
        PolicyError: naming the composed epsilon by each accountant, the budget, what was released so far and what can
            be done.
    """
    section = policy.mechanism
    if not isinstance(section, DpSgdPolicy):
        return
    check_counts(policy, ledger.status().unit)
    check_exposures("dp_sgd", ledger)
    parts = parts_with(policy, ledger, [history])
    check_promise(
        section, parts, "keep the present teacher, train with a smaller epsilon, or accept a larger mechanism.epsilon"
    )


def _check_proof(proof: DpSgdProof) -> None:
    """The claimed epsilon must be what the accountant's state gives, up to the accountant's own error of 0.01."""
    proven = dp_sgd_epsilon(proof.history, proof.delta)
    if proof.epsilon < proven - 0.01:
        raise PolicyError(
            explain(
                "manifest.privacy.epsilon",
                proof.epsilon,
                f"the accountant's state proves only {proven:.4g} at delta {proof.delta:g}",
                "train the teacher again",
            )
        )


def _check_delta(section: DpPolicy, records: int | None) -> None:
    if records is None:
        if not section.accept_large_delta:
            remedy = "say them: fedcpsc adopt --class-counts, or class_counts in Python; or accept_large_delta: true"
            why = "must be below 1 / records, and the number of this teacher's records is not known"
            raise PolicyError(explain("mechanism.delta", section.delta, why, remedy))
        return
    if section.delta * records >= 1 and not section.accept_large_delta:
        raise PolicyError(
            explain(
                "mechanism.delta",
                section.delta,
                f"must be below 1 / {records} records: otherwise publishing one record whole would comply",
                "lower it, or consent with accept_large_delta: true",
            )
        )
