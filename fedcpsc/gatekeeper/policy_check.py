# SPDX-License-Identifier: Apache-2.0
"""What a silo's policy comes to, in plain words for its owner: the most a server can learn, and what to reconsider."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fedcpsc.gatekeeper.composition import Account, CompositionFacts, composed_epsilon, released_epsilon
from fedcpsc.gatekeeper.evaluation_promise import cost_to_come
from fedcpsc.gatekeeper.evaluation_words import evaluation_meaning, evaluation_warnings
from fedcpsc.gatekeeper.folder_rights import loose_rights
from fedcpsc.gatekeeper.guarantee import Guarantee, guarantee_of, initial_budget
from fedcpsc.gatekeeper.mechanisms.dp_sgd import DpSgdPolicy
from fedcpsc.gatekeeper.mechanisms.mechanism import MECHANISM_KINDS
from fedcpsc.gatekeeper.mechanisms.sections import DpPolicy
from fedcpsc.gatekeeper.past_ledgers import check_past
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, mark_path
from fedcpsc.gatekeeper.promise import counts_to_share, parts_with, trainings_that_fit
from fedcpsc.gatekeeper.sharing_words import sharing_meaning, sharing_warnings
from fedcpsc.gatekeeper.silo_trial import try_in_folder
from fedcpsc.ledger.budget import MU2_UNIT
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.privacy.votes import GnMax
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.teachers.manifest import Manifest, load_manifest
from fedcpsc.teachers.proof import DpSgdProof, histories_of, proof_of
from fedcpsc.teachers.trial import TrialResult

__all__ = ["PolicyReport", "check_policy"]

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class PolicyReport:
    """A policy's meaning.

    Attributes:
        population: name of the population that the budget is kept for.
        dp: whether answers are differentially private.
        epsilon: the promise, which all that is ever released stays within; None where there is no guarantee.
        delta: delta of the same guarantee.
        unit: what it protects.
        relation: the neighbouring relation.
        mechanism: name of the mechanism.
        answers: images that can still be answered until the budget is exhausted.
        released: epsilon of all that was released so far, by each accountant; None where some had no guarantee.
        next_training: what one more DP-SGD training like the present one would bring the population to; None elsewhere.
        trainings_left: how many more such trainings the policy holds; None where the mechanism is another.
        shown: sentence: what a server is shown of the silo before it asks anything.
        learns: sentences: what a server can learn at most.
        warnings: sentences: what to think twice about.
        trial: what came of trying the teacher; None where it was not tried.
    """

    population: str
    dp: bool
    epsilon: float | None
    delta: float | None
    unit: str | None
    relation: str | None
    mechanism: str
    answers: int
    released: CompositionFacts | None
    next_training: CompositionFacts | None
    trainings_left: int | None
    shown: str
    learns: tuple[str, ...]
    warnings: tuple[str, ...]
    trial: TrialResult | None = None

    def as_json(self) -> Mapping[str, object]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Silo:
    folder: Path
    manifest: Manifest
    policy: Policy
    ledger: Account
    guarantee: Guarantee


def check_policy(silo_dir: str | Path, *, tried: bool = False) -> PolicyReport:
    """Reads the folder's policy, manifest and, where there is one, ledger; charges nothing and changes no file.

    Args:
        silo_dir: the silo's folder.
        tried: whether the teacher is tried, too, on invented images.

    Raises:
        SiloError: where the policy cannot be honoured as written, or a file cannot be read.
        TeacherError: where the teacher fails its trial.
    """
    folder = Path(silo_dir)
    manifest, policy = load_manifest(folder), load_policy(folder / POLICY_FILE)
    with _ledger(folder, manifest, policy) as ledger:
        check_past(folder, manifest.population, ledger)
        silo = _Silo(folder, manifest, policy, ledger, guarantee_of(policy, manifest, ledger))
        claim, answers, forecast = silo.guarantee.claim, _answers(silo), _forecast(silo)
        released = released_epsilon(ledger, claim.delta)
        trial = try_in_folder(folder) if tried else None
        training = [] if forecast is None else [forecast.sentence(manifest.population)]
        judged = evaluation_meaning(policy.evaluation, ledger, claim.delta)
        sentences = [*_learns(silo, answers), *judged, sharing_meaning(silo.policy, dp=claim.dp), *training]
        return PolicyReport(
            population=manifest.population,
            dp=claim.dp,
            epsilon=claim.epsilon,
            delta=claim.delta,
            unit=claim.unit,
            relation=claim.relation,
            mechanism=claim.mechanism,
            answers=answers,
            released=None if released is None else released.as_json(),
            next_training=None if forecast is None else forecast.after,
            trainings_left=None if forecast is None else forecast.left,
            shown=_shown(silo),
            learns=tuple(sentences),
            warnings=(*_warnings(silo), *(trial.warnings if trial else ())),
            trial=trial,
        )


@contextlib.contextmanager
def _ledger(folder: Path, manifest: Manifest, policy: Policy) -> Iterator[Account]:
    """The silo's ledger for reading, or one as if it were begun now, elsewhere."""
    with tempfile.TemporaryDirectory() as empty, contextlib.ExitStack() as stack:
        if (folder / LEDGER_FILE).exists():
            yield stack.enter_context(
                contextlib.closing(Ledger.read(folder / LEDGER_FILE, population=manifest.population))
            )
            return
        budget = initial_budget(policy, manifest.unit)
        made = Ledger.create(
            Path(empty) / LEDGER_FILE, manifest.population, budget.answers, mu2=budget.mu2, unit=manifest.unit
        )
        yield stack.enter_context(contextlib.closing(made))


def _answers(silo: _Silo) -> int:
    """Images that both budgets still hold, after what was spent and the class counts that will be shared."""
    status, limit = silo.ledger.status(), silo.guarantee.limit
    left = max(0, min(limit.answers, status.budget.answers) - status.spent.answers)
    each = silo.guarantee.mechanism.cost() * MU2_UNIT
    if not each:
        return left
    counts = counts_to_share(silo.policy, silo.ledger)
    aside = counts + cost_to_come(silo.policy.evaluation, silo.ledger)
    mu2 = min(limit.mu2, status.budget.mu2) - status.spent.mu2 - aside
    return max(0, min(left, int(mu2 / each)))


@dataclass(frozen=True)
class _Forecast:
    after: CompositionFacts
    budget: float
    left: int

    def sentence(self, population: str) -> str:
        numerical = "" if self.after["pld"] is None else f" / {self.after['pld']:.4g} (numerical)"
        verdict = "it would be refused" if not self.left else f"{self.left} more fit"
        return (
            f"One more teacher trained like this one would bring the population {population!r} to epsilon"
            f" {self.after['renyi']:.4g} (Rényi){numerical} of {self.budget:g}: {verdict}."
        )


def _forecast(silo: _Silo) -> _Forecast | None:
    """What further DP-SGD trainings with the present one's noise, rate and steps would come to."""
    section, proof = silo.policy.mechanism, proof_of(silo.manifest) if silo.guarantee.claim.dp else None
    if not isinstance(section, DpSgdPolicy) or not isinstance(proof, DpSgdProof):
        return None
    recorded = silo.manifest.weights_sha256 in histories_of(silo.ledger.releases())
    parts = parts_with(silo.policy, silo.ledger, [] if recorded else [proof.history])
    after = composed_epsilon(parts.mu2 / MU2_UNIT, section.delta, [*parts.histories, proof.history])
    return _Forecast(after.as_json(), section.epsilon, trainings_that_fit(section, parts, proof.history))


def _shown(silo: _Silo) -> str:
    """The public facts that `Gatekeeper.describe` sends."""
    manifest, policy = silo.manifest, silo.policy
    named = f"{len(manifest.class_names)} classes by name" if manifest.class_names else f"{manifest.classes} classes"
    if manifest.class_names:
        first = ", ".join(manifest.class_names[:_NAMES_SHOWN])
        named += f" ({first}{', ...' if len(manifest.class_names) > _NAMES_SHOWN else ''})"
    counts = ", how many records each class has" if policy.share_class_counts else ""
    if policy.evaluation is not None:
        counts += ", how many evaluations of students are left, and their noise"
        counts += ", and how many held-out images there are" if policy.evaluation.public_size else ""
    shape = "x".join(map(str, manifest.image_shape))
    return (
        f"Whoever connects is shown, before any answer: the silo's name {manifest.silo!r}, {named}, images of {shape},"
        f" the answer forms, at most {policy.images_per_query:,} images a query, what is left of the budget, the"
        f" claim {silo.guarantee.claim.mechanism!r}, and whether answers may be handed on{counts}."
    )


def _learns(silo: _Silo, answers: int) -> list[str]:
    claim, population = silo.guarantee.claim, silo.manifest.population
    forms = ", ".join(form.value for form in silo.policy.forms)
    sentences = [
        f"A server gets at most {answers} more answers ({forms}), over all runs together, of the population"
        f" {population!r}."
    ]
    if not claim.dp:
        sentences.append(
            "Nothing bounds what those answers give away: whether an image was in the training data, the mix of"
            " classes, look-alikes of training images, and in the end a copy of the teacher. epsilon is infinite."
        )
        return sentences
    sentences.append(
        f"After all of them, epsilon is {claim.epsilon:.4g} at delta {claim.delta:g}, for each {claim.unit}, under"
        f" {claim.relation} ({claim.mechanism}): with and without one {claim.unit}, whatever the server sees is as"
        f" likely up to a factor of e^{claim.epsilon:.3g}, but for a chance of {claim.delta:g}."
    )
    proof = proof_of(silo.manifest)
    if isinstance(proof, DpSgdProof) and proof.public_weights is not None:
        sentences.append(
            f"The training started from weights (SHA-256 {proof.public_weights[:12]}...) that you called public: none"
            " of this covers the images that they were made with."
        )
    released = released_epsilon(silo.ledger, claim.delta)
    if released is not None:
        sentences.append(f"What was released of this population so far comes to {released}.")
    if claim.unit == "record":
        sentences.append(
            "A person with several records, or in several silos, is protected less: their epsilons add up."
        )
    else:
        sentences.append("A person in several silos is protected less: the silos' epsilons add up.")
    return sentences


def _warnings(silo: _Silo) -> list[str]:
    claim, policy = silo.guarantee.claim, silo.policy
    section, found = policy.mechanism, []
    if not claim.dp:
        found.append("no differential privacy: access is controlled, privacy is not")
        if set(policy.forms) == {AnswerForm.LABEL}:
            found.append("labels alone are no differential privacy: attacks on labels match those on probabilities")
    elif claim.epsilon is not None and claim.epsilon > 10:
        found.append(f"epsilon {claim.epsilon:.4g} is so large that it promises next to nothing")
    caution = MECHANISM_KINDS.get(section.kind).caution
    found += [caution] if caution else []
    records = silo.manifest.train_size
    if isinstance(section, DpPolicy) and (records is None or section.delta * records >= 1):
        shown = "a number of records that is not known" if records is None else f"{records} records"
        found.append(f"delta {section.delta:g} is not below 1 / {shown}")
    if silo.manifest.none_class:
        found.append("the teacher can say none of its classes: every answer tells how much an image is like yours")
        if set(policy.forms) == {AnswerForm.LABEL} or isinstance(silo.guarantee.mechanism, GnMax):
            found.append("labels alone: of invented images most answers will say none, and nothing of the classes")
    if policy.public_size:
        found.append("public_size: whoever sees the claim may find out how many records there are")
    if policy.share_class_counts and policy.class_count_sigma is None:
        found.append(
            "exact class counts are shared: they show the mix of classes, and each record's absence or presence"
        )
    elif policy.share_class_counts:
        found.append(f"class counts are shared with noise of {policy.class_count_sigma:g} each, and charged")
    found += evaluation_warnings(policy.evaluation, dp=claim.dp)
    found += sharing_warnings(policy, dp=claim.dp)
    if policy.high_water_mark is None:
        found.append(
            "no high_water_mark on another volume: where the whole folder is put back from an old"
            " copy, charges are lost"
        )
    mark = mark_path(silo.folder, policy)
    if (silo.folder / LEDGER_FILE).exists() and not mark.exists():
        found.append(f"the high-water mark {mark} is missing: the gatekeeper will not start without it")
    return found + loose_rights(silo.folder)
