"""Audits written before bounds said what they could have been at most: completed, and judged anew, when read."""

from __future__ import annotations

from typing import Any

from fedcpsc.audit.claims import held_against
from fedcpsc.audit.reach import reachable_epsilon, reachable_mu
from fedcpsc.audit.verdict import judge

__all__ = ["completed"]


def completed(audit: dict[str, Any]) -> dict[str, Any]:
    """The audit with what today's would say of the same guesses; as it is where it says so already.

    All audits of then were over single records.

    Args:
        audit: content of `audit.json`.
    """
    if "testable" in audit["verdict"]:
        return audit
    share = audit["config"]["canaries"]["guesses"]
    bounds = [bound | _reach(bound, share) for bound in audit["bounds"]]
    return audit | {"bounds": bounds, "verdict": judge(audit | {"bounds": bounds})}


def _reach(bound: dict[str, Any], share: float) -> dict[str, Any]:
    canaries, guesses, delta, confidence = (bound[key] for key in ("canaries", "guesses", "delta", "confidence"))
    found = bound | {
        "unit": "record",
        "reachable_epsilon": reachable_epsilon(canaries, guesses, delta, confidence),
        "reachable_mu": reachable_mu(canaries, guesses, confidence),
    }
    claim = bound["claimed_epsilon"]
    return found | held_against(found, claim, None if claim is None else "record", share)
