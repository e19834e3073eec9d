# SPDX-License-Identifier: Apache-2.0
"""Audits written before bounds said what they could have been at most: completed, and judged anew, when read."""

from __future__ import annotations

from fedcpsc.audit.claims import held_against
from fedcpsc.audit.figures import AuditFile, Bound, Findings
from fedcpsc.audit.reach import reachable_epsilon, reachable_mu
from fedcpsc.audit.verdict import judge

__all__ = ["completed"]


def completed(audit: AuditFile) -> AuditFile:
    """The audit with what today's would say of the same guesses; as it is where it says so already.

    All audits of then were over single records.

    Args:
        audit: content of `audit.json`.
    """
    if "testable" in audit["verdict"]:
        return audit
    share = audit["config"]["canaries"]["guesses"]
    findings: Findings = {"rows": audit["rows"], "bounds": [_reach(bound, share) for bound in audit["bounds"]]}
    return {**audit, **findings, "verdict": judge(findings)}


def _reach(bound: Bound, share: float) -> Bound:
    canaries, guesses, delta, confidence = bound["canaries"], bound["guesses"], bound["delta"], bound["confidence"]
    found: Bound = {
        **bound,
        "unit": "record",
        "reachable_epsilon": reachable_epsilon(canaries, guesses, delta, confidence),
        "reachable_mu": reachable_mu(canaries, guesses, confidence),
    }
    claim = bound["claimed_epsilon"]
    return {**found, **held_against(found, claim, None if claim is None else "record", share)}
