"""From policy, manifest and ledger to what may be claimed: the mechanism, its budget, its epsilon. Fails closed.

Everything is decided before the first query: a policy whose promise the teacher or the ledger's past cannot keep is an
error for the owner, not a weaker promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedcpsc.errors import PolicyError, explain
from fedcpsc.gatekeeper.budget import MU2_UNIT, Budget
from fedcpsc.gatekeeper.ledger import Ledger
from fedcpsc.gatekeeper.manifest import Manifest
from fedcpsc.gatekeeper.policy import (
    ConfidentGnMaxPolicy,
    DpPolicy,
    DpSgdPolicy,
    GnMaxPolicy,
    HardeningPolicy,
    NoiseOnlyPolicy,
    NoisyPolicy,
    Policy,
    ShardVotesPolicy,
)
from fedcpsc.gatekeeper.proof import DpSgdProof, ShardsProof, histories_of, proof_of
from fedcpsc.privacy.accounting import History, compose, dp_sgd_epsilon, gaussian_mu
from fedcpsc.privacy.mechanisms import DpSgdTeacher, Hardening, Mechanism, Plain
from fedcpsc.privacy.votes import ConfidentGnMax, GnMax, NoiseOnly, ShardVotes
from fedcpsc.protocol.messages import DpClaim

__all__ = ["Guarantee", "build_mechanism", "check_training", "count_cost", "guarantee_of", "initial_budget"]


@dataclass(frozen=True)
class Guarantee:
    """What a gatekeeper promises and how it keeps it.

    Attributes:
        mechanism: how answers are privatised.
        limit: the policy's caps; the ledger's own, where lower, go first.
        claim: of epsilon when the budget is exhausted.
    """

    mechanism: Mechanism
    limit: Budget
    claim: DpClaim


def build_mechanism(policy: Policy, manifest: Manifest) -> Mechanism:
    """The policy's mechanism, where the teacher fits it.

    Raises:
        PolicyError: where the manifest does not prove what the mechanism rests on.
    """
    section, proof = policy.mechanism, proof_of(manifest)
    if isinstance(section, HardeningPolicy):
        return Hardening(section.temperature, section.decimals)
    if isinstance(section, DpSgdPolicy):
        if not isinstance(proof, DpSgdProof):
            raise PolicyError(
                explain("mechanism.kind", "dp_sgd", "the manifest has no proof of it", "train with kind: dp_sgd")
            )
        return DpSgdTeacher()
    if isinstance(section, NoiseOnlyPolicy):
        return NoiseOnly(mean_sigma=section.exact_sigma, levels=section.levels)
    if isinstance(section, NoisyPolicy):
        if not isinstance(proof, ShardsProof):
            raise PolicyError(
                explain("mechanism", section, "needs a teacher of disjoint shards", "train with kind: shards")
            )
        return _of_shards(section, proof.shards)
    return Plain()


def _of_shards(section: NoisyPolicy, shards: int) -> Mechanism:
    if isinstance(section, ShardVotesPolicy):
        return ShardVotes(shards, section.exact_sigma, section.levels)
    if isinstance(section, ConfidentGnMaxPolicy):
        exact = NoisyPolicy(epsilon=section.epsilon, sigma=section.threshold_sigma).exact_sigma
        return ConfidentGnMax(shards, section.exact_sigma, section.threshold, exact)
    if isinstance(section, GnMaxPolicy):
        return GnMax(shards, section.exact_sigma)
    raise PolicyError(explain("mechanism", section, "is unknown here", "install the version that wrote the policy"))


def count_cost(policy: Policy) -> int:
    """mu^2 of noised class counts in units of 1e-12, rounded up; 0 where none are told, or exactly.

    A record is one count: under add/remove the sensitivity of the counts is 1.
    """
    if not policy.share_class_counts or policy.class_count_sigma is None:
        return 0
    return math.ceil(MU2_UNIT / policy.class_count_sigma**2)


def initial_budget(policy: Policy) -> Budget:
    """The caps a new ledger begins with under this policy."""
    if isinstance(policy.mechanism, NoisyPolicy):
        return Budget(policy.answers, _mu2_of(policy.mechanism))
    return Budget(policy.answers, count_cost(policy))


def guarantee_of(policy: Policy, manifest: Manifest, ledger: Ledger) -> Guarantee:
    """What may be promised under this policy, for this teacher, after all that already left.

    Raises:
        PolicyError: naming what stands against the promise, and the remedy.
    """
    mechanism, section, status = build_mechanism(policy, manifest), policy.mechanism, ledger.status()
    if not isinstance(section, DpPolicy):
        return Guarantee(mechanism, Budget(policy.answers, status.budget.mu2), DpClaim(mechanism=mechanism.name))
    _check_delta(section, manifest.train_size)
    releases = ledger.releases()
    exposed = status.unprotected + sum(not row["private"] for row in releases)
    if exposed:
        raise PolicyError(
            explain(
                "mechanism.kind", mechanism.name, f"{exposed} releases of this data had no guarantee", "use kind: none"
            )
        )
    mu2 = min(status.budget.mu2, _mu2_of(section) if isinstance(section, NoisyPolicy) else count_cost(policy))
    if isinstance(section, NoisyPolicy) and mu2 == 0:
        raise PolicyError(
            explain("ledger mu2", 0, "has no budget for noise", "raise it: fedcpsc ledger raise --epsilon")
        )
    histories = histories_of(releases)
    epsilon = _epsilon(section, proof_of(manifest), max(mu2, status.spent.mu2), {**histories, **_own(manifest)})
    if epsilon > section.epsilon * (1 + 1e-9):
        raise PolicyError(
            explain(
                "mechanism.epsilon",
                section.epsilon,
                f"all that leaves this data set comes to {epsilon:.4g} at delta {section.delta:g}",
                "accept that epsilon, or train with a smaller one",
            )
        )
    claim = DpClaim(True, epsilon, section.delta, status.unit, status.relation, mechanism.name)
    return Guarantee(mechanism, Budget(policy.answers, mu2), claim)


def check_training(policy: Policy, ledger: Ledger, history: History) -> None:
    """Does nothing where a DP-SGD training would leave the policy's epsilon with all that already left; or without one.

    Args:
        policy: of the silo.
        ledger: of its population.
        history: of the training that is planned.

    Raises:
        PolicyError: where the policy promises less than all of it comes to.
    """
    section = policy.mechanism
    if not isinstance(section, DpSgdPolicy):
        return
    histories = [*histories_of(ledger.releases()).values(), history]
    alone = len(histories) == 1
    epsilon = dp_sgd_epsilon(history, section.delta) if alone else compose(0.0, section.delta, histories)
    if epsilon > section.epsilon:
        raise PolicyError(
            explain(
                "mechanism.epsilon",
                section.epsilon,
                f"with this training, all that leaves the population comes to {epsilon:.4g} at delta {section.delta:g}",
                "train with a smaller epsilon, or accept a larger one",
            )
        )


def _own(manifest: Manifest) -> dict[str, History]:
    proof = proof_of(manifest)
    return {manifest.weights_sha256: proof.history} if isinstance(proof, DpSgdProof) else {}


def _epsilon(
    section: DpPolicy, proof: DpSgdProof | ShardsProof | None, mu2: int, histories: Mapping[str, History]
) -> float:
    if isinstance(proof, DpSgdProof):
        _check_proof(proof)
        if len(histories) == 1 and mu2 == 0 and proof.delta <= section.delta:
            return proof.epsilon  # the training alone: Opacus' PRV accountant is tighter than Renyi's
    return compose(mu2 / MU2_UNIT, section.delta, list(histories.values()))


def _mu2_of(section: DpPolicy) -> int:
    return int(gaussian_mu(section.epsilon, section.delta) ** 2 * MU2_UNIT)


def _check_proof(proof: DpSgdProof) -> None:
    """The claimed epsilon must be what the accountant's state gives, up to the accountant's own error of 0.01."""
    proven = dp_sgd_epsilon(proof.history, proof.delta)
    if proof.epsilon < proven - 0.02:
        raise PolicyError(
            explain(
                "manifest.privacy.epsilon",
                proof.epsilon,
                f"the accountant's state proves only {proven:.4g} at delta {proof.delta:g}",
                "train the teacher again",
            )
        )


def _check_delta(section: DpPolicy, records: int) -> None:
    if section.delta * records >= 1 and not section.accept_large_delta:
        raise PolicyError(
            explain(
                "mechanism.delta",
                section.delta,
                f"must be below 1 / {records} records: otherwise publishing one record whole would comply",
                "lower it, or consent with accept_large_delta: true",
            )
        )
