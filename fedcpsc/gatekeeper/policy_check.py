"""What a silo's policy comes to, in plain words for its owner: the most a server can learn, and what to reconsider."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcpsc.gatekeeper.budget import MU2_UNIT
from fedcpsc.gatekeeper.guarantee import Guarantee, guarantee_of, initial_budget
from fedcpsc.gatekeeper.ledger import LEDGER_FILE, Ledger
from fedcpsc.gatekeeper.manifest import Manifest, load_manifest
from fedcpsc.gatekeeper.policy import POLICY_FILE, DpPolicy, HardeningPolicy, Policy, load_policy
from fedcpsc.protocol.messages import AnswerForm

__all__ = ["PolicyReport", "check_policy"]


@dataclass(frozen=True)
class PolicyReport:
    """A policy's meaning.

    Attributes:
        dp: whether answers are differentially private.
        epsilon: at exhaustion, None where there is no guarantee.
        delta: of the same guarantee.
        unit: what it protects.
        relation: the neighbouring relation.
        mechanism: by name.
        answers: images answered until the budget is exhausted.
        learns: sentences: what a server can learn at most.
        warnings: sentences: what to think twice about.
    """

    dp: bool
    epsilon: float | None
    delta: float | None
    unit: str | None
    relation: str | None
    mechanism: str
    answers: int
    learns: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check_policy(silo_dir: str | Path) -> PolicyReport:
    """Reads the folder's policy, manifest and, where there is one, ledger; charges nothing.

    Raises:
        SiloError: where the policy cannot be honoured as written, or a file cannot be read.
    """
    folder = Path(silo_dir)
    manifest, policy = load_manifest(folder), load_policy(folder / POLICY_FILE)
    path = folder / LEDGER_FILE
    with tempfile.TemporaryDirectory() as empty:
        if path.exists():
            ledger = Ledger.open(path, manifest.population, high_water_mark=policy.high_water_mark)
        else:  # as if it were begun now
            budget = initial_budget(policy)
            ledger = Ledger.create(Path(empty) / LEDGER_FILE, manifest.population, budget.answers, mu2=budget.mu2)
        try:
            guarantee = guarantee_of(policy, manifest, ledger)
            answers = _answers(guarantee, ledger)
        finally:
            ledger.close()
    claim = guarantee.claim
    return PolicyReport(
        dp=claim.dp,
        epsilon=claim.epsilon,
        delta=claim.delta,
        unit=claim.unit,
        relation=claim.relation,
        mechanism=claim.mechanism,
        answers=answers,
        learns=tuple(_learns(policy, guarantee, answers)),
        warnings=tuple(_warnings(policy, manifest, guarantee)),
    )


def _answers(guarantee: Guarantee, ledger: Ledger) -> int:
    status = ledger.status()
    most = min(guarantee.limit.answers, status.budget.answers)
    each = guarantee.mechanism.cost() * MU2_UNIT
    return min(most, int(min(guarantee.limit.mu2, status.budget.mu2) / each)) if each else most


def _learns(policy: Policy, guarantee: Guarantee, answers: int) -> list[str]:
    claim = guarantee.claim
    forms = ", ".join(form.value for form in policy.forms)
    told = [f"A server gets at most {answers} answers ({forms}), over all runs together."]
    if not claim.dp:
        told.append(
            "Nothing bounds what those answers give away: whether an image was in the training data, the mix of"
            " classes, look-alikes of training images, and in the end a copy of the teacher. epsilon is infinite."
        )
        return told
    told.append(
        f"After all of them, epsilon is {claim.epsilon:.4g} at delta {claim.delta:g}, for each {claim.unit}, under"
        f" {claim.relation} ({claim.mechanism}): with and without one {claim.unit}, whatever the server sees is as"
        f" likely up to a factor of e^{claim.epsilon:.3g}, but for a chance of {claim.delta:g}."
    )
    told.append("A person with several records, or in several silos, is protected less: their epsilons add up.")
    return told


def _warnings(policy: Policy, manifest: Manifest, guarantee: Guarantee) -> list[str]:
    claim, section, found = guarantee.claim, policy.mechanism, []
    if not claim.dp:
        found.append("no differential privacy: access is controlled, privacy is not")
        if set(policy.forms) == {AnswerForm.LABEL}:
            found.append("labels alone are no differential privacy: attacks on labels match those on probabilities")
        if isinstance(section, HardeningPolicy):
            found.append("temperature and rounding cost an attacker queries, not the possibility")
    elif claim.epsilon is not None and claim.epsilon > 10:
        found.append(f"epsilon {claim.epsilon:.4g} is so large that it promises next to nothing")
    if isinstance(section, DpPolicy) and section.delta * manifest.train_size >= 1:
        found.append(f"delta {section.delta:g} is not below 1 / {manifest.train_size} records")
    if policy.share_class_counts and policy.class_count_sigma is None:
        found.append(
            "exact class counts are shared: they tell the mix of classes, and each record's absence or presence"
        )
    elif policy.share_class_counts:
        found.append(f"class counts are shared with noise of {policy.class_count_sigma:g} each")
    if policy.high_water_mark is None:
        found.append("no high_water_mark: a ledger restored from an old copy would not be noticed")
    return found
