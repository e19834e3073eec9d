"""What leaves a silo beside answers, each a row of the ledger: a DP-SGD teacher's training, and class counts."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction

import numpy as np

from fedcpsc.errors import LedgerError, explain
from fedcpsc.gatekeeper.budget import MU2_UNIT, Charge, Denied, Stored
from fedcpsc.gatekeeper.guarantee import count_cost
from fedcpsc.gatekeeper.ledger import Ledger
from fedcpsc.gatekeeper.manifest import Manifest
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.proof import DpSgdProof, proof_of
from fedcpsc.privacy.accounting import gaussian_epsilon
from fedcpsc.privacy.noise import rounded_gaussian
from fedcpsc.protocol.messages import ClassReport, DpClaim

__all__ = ["record_training", "report_class_counts"]


def record_training(manifest: Manifest, ledger: Ledger) -> None:
    """Writes a DP-SGD teacher into the ledger, once: a second teacher of the same data composes with it.

    Raises:
        LedgerError: where the ledger cannot be written.
    """
    proof = proof_of(manifest)
    if isinstance(proof, DpSgdProof):
        facts = {"epsilon": proof.epsilon, "delta": proof.delta, "history": proof.history}
        charge = Charge(0, private=True, mechanism="dp_sgd", model=manifest.weights_sha256)
        ledger.release(f"teacher:{manifest.weights_sha256}", charge, json.dumps(facts))


def report_class_counts(policy: Policy, manifest: Manifest, ledger: Ledger) -> ClassReport | None:
    """The class counts the policy tells, noised at most once: the same counts ever after.

    Raises:
        LedgerError: where the budget does not hold them, or the ledger cannot be written.
    """
    if not policy.share_class_counts:
        return None
    exact = manifest.private_class_counts
    if policy.class_count_sigma is None:
        ledger.release("class-counts", Charge(0, private=False, mechanism="exact counts"))
        return ClassReport(tuple(float(count) for count in exact))
    sigma = Fraction(repr(policy.class_count_sigma))
    name, payload = f"class-counts sigma={sigma}", hashlib.sha256(b"class-counts").hexdigest()
    mu2 = count_cost(policy)
    charge = Charge(0, mu2, True, "class-counts", "", 1.0, float(sigma))
    found = ledger.reserve(name, payload, charge)
    if isinstance(found, Denied):
        raise LedgerError(
            explain(
                "class counts", f"mu2 {mu2 / MU2_UNIT:.3g}", "do not fit into the budget", "raise it, or share none"
            )
        )
    if isinstance(found, Stored):
        reply = found.reply
    else:
        noisy = np.array(exact) + rounded_gaussian(sigma, (len(exact),))
        reply = ledger.store(name, json.dumps(np.maximum(noisy, 0).tolist()).encode())
    status = ledger.status()
    epsilon = gaussian_epsilon(math.sqrt(mu2 / MU2_UNIT), status.delta)
    claim = DpClaim(True, max(epsilon, 1e-12), status.delta, status.unit, status.relation, "class-counts")
    return ClassReport(tuple(float(count) for count in json.loads(reply)), claim)
