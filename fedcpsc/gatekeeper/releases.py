# SPDX-License-Identifier: Apache-2.0
"""What leaves a silo beside answers, each a row of the ledger: a DP-SGD teacher's training, and class counts."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction

import numpy as np

from fedcpsc.errors import LedgerError, PolicyError, explain
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.promise import COUNTS, check_noise, count_cost, count_name
from fedcpsc.ledger.budget import MU2_UNIT, Budget, Charge, Denied, Stored
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.privacy.accounting import gaussian_epsilon
from fedcpsc.privacy.noise import rounded_gaussian
from fedcpsc.protocol.messages import ClassReport, DpClaim
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.proof import history_in

__all__ = ["record_training", "report_class_counts"]


def record_training(manifest: Manifest, ledger: Ledger) -> None:
    """Writes a DP-SGD teacher into the ledger, once: a second teacher of the same population composes with it.

    One whose claim is lost, because its noise can be replayed, is written all the same.

    Raises:
        LedgerError: where the ledger cannot be written.
    """
    history = history_in(manifest)
    if history is not None and manifest.privacy is not None:
        facts = {name: manifest.privacy.get(name) for name in ("epsilon", "delta")} | {"history": history}
        charge = Charge(0, private=True, mechanism="dp_sgd", model=manifest.weights_sha256)
        ledger.release(f"teacher:{manifest.weights_sha256}", charge, json.dumps(facts))


def report_class_counts(
    policy: Policy, manifest: Manifest, ledger: Ledger, limit: Budget | None = None
) -> ClassReport | None:
    """The class counts that the policy shares, noised at most once: the same counts ever after.

    Args:
        policy: policy of the silo.
        manifest: manifest of its teacher.
        ledger: ledger of its population.
        limit: `Guarantee.limit`; None leaves the ledger's own caps.

    Raises:
        LedgerError: where the budget does not hold them, or the ledger cannot be written.
        PolicyError: where their noise is too large to draw, or they are not known.
    """
    if not policy.share_class_counts:
        return None
    exact = manifest.private_class_counts
    if exact is None:
        raise PolicyError(explain("share_class_counts", True, "they are not known", "set share_class_counts: false"))
    if policy.class_count_sigma is None:
        ledger.release("class-counts", Charge(0, private=False, mechanism="exact counts"))
        return ClassReport(tuple(float(count) for count in exact))
    sigma = Fraction(repr(policy.class_count_sigma))
    check_noise("class_count_sigma", float(sigma))
    name, payload = count_name(policy), hashlib.sha256(COUNTS.encode()).hexdigest()
    mu2 = count_cost(policy)
    charge = Charge(0, mu2, True, COUNTS, "", 1.0, float(sigma))
    found = ledger.reserve(name, payload, charge, limit=limit)
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
    claim = DpClaim(True, max(epsilon, 1e-12), status.delta, status.unit, status.relation, COUNTS)
    return ClassReport(tuple(float(count) for count in json.loads(reply)), claim)
