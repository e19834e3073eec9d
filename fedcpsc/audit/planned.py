# SPDX-License-Identifier: Apache-2.0
"""What an audit's plan cannot refute, reported before anything is trained; and the confidence that its bounds share."""

from __future__ import annotations

from fedcpsc.audit.claims import held_against, outcome_in_words
from fedcpsc.audit.figures import HeldReach, Reach, Unit
from fedcpsc.audit.plan import AuditConfig, DpSgdAudit
from fedcpsc.audit.reach import planned_guesses, reachable_epsilon
from fedcpsc.audit.silo_under_audit import SiloUnderAudit

__all__ = ["confidence_from_scratch", "confidence_over_run", "in_vain_from_scratch", "in_vain_over_run"]


def confidence_from_scratch(config: AuditConfig) -> float:
    """Confidence of one bound, so that all those compared with a claim hold together (Bonferroni)."""
    return _shared(config, sum(policy.claimed is not None for policy in config.policies))


def confidence_over_run(config: AuditConfig, silos: list[SiloUnderAudit]) -> float:
    """Confidence of one bound, so that all those compared with a claim hold together (Bonferroni)."""
    return _shared(config, sum(silo.claim is not None and len(silo.coins) > 1 for silo in silos))


def in_vain_from_scratch(config: AuditConfig) -> list[str]:
    """Claims that no outcome of an audit from scratch could refute, in words; empty where it could refute each.

    Args:
        config: audit's plan.
    """
    canaries, confidence = config.canaries.audited * config.canaries.count, confidence_from_scratch(config)
    return [
        f"{policy.name}, {surface}: {words}"
        for policy in config.policies
        if isinstance(policy, DpSgdAudit)
        and (words := _in_vain(config, policy.epsilon, "record", canaries, policy.delta, confidence))
        for surface in config.surfaces
    ]


def in_vain_over_run(config: AuditConfig, silos: list[SiloUnderAudit]) -> list[str]:
    """Claims that the canaries planted in a run's silos cannot refute, in words; empty where they can refute each.

    Args:
        config: audit's plan.
        silos: silos of the run.
    """
    confidence = confidence_over_run(config, silos)
    return [
        f"{silo.name}, {surface}: {words}"
        for silo in silos
        if silo.claim is not None
        and (words := _in_vain(config, silo.claim, silo.unit, len(silo.coins), silo.delta, confidence))
        for surface in config.surfaces
    ]


def _shared(config: AuditConfig, claims: int) -> float:
    return 1 - (1 - config.canaries.confidence) / max(1, claims * len(config.surfaces))


def _in_vain(
    config: AuditConfig, claim: float, unit: Unit, canaries: int, delta: float, confidence: float
) -> str | None:
    share = config.canaries.guesses
    guesses = sum(planned_guesses(canaries, share))
    best: Reach = {  # a bound as it will be at most
        "unit": unit,
        "canaries": canaries,
        "guesses": guesses,
        "delta": delta,
        "confidence": confidence,
        "epsilon": 0.0,
        "reachable_epsilon": reachable_epsilon(canaries, guesses, delta, confidence),
    }
    held: HeldReach = {**best, **held_against(best, claim, unit, share)}
    return None if held["testable"] else outcome_in_words(held)
