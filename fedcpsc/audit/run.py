# SPDX-License-Identifier: Apache-2.0
"""The audit from scratch: shadows of every policy side by side, attacked on every surface.

Nothing is chosen by looking. Each stage (the teachers of one training, the students of one policy and number of
answers) is stored when it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.audit.claims import held_against
from fedcpsc.audit.figures import AccountedBound, Accuracy, AuditFile, AuditRow, Bound, ModelFacts, Place, RowFacts
from fedcpsc.audit.measure import (
    attack_each_in_turn,
    attacks_on,
    bound,
    canary_scores,
    check_coins,
    check_enough,
    row,
)
from fedcpsc.audit.observations import Observations
from fedcpsc.audit.observe import AnswerChannel, seen_by_labels, seen_by_probabilities, through_form
from fedcpsc.audit.plan import BOUND_ATTACK, AuditConfig, DpSgdAudit, FormAudit, ShadowsPlan, StudentsPlan, Surface
from fedcpsc.audit.planned import confidence_from_scratch, in_vain_from_scratch
from fedcpsc.audit.shadow_nets import Parameters, ShadowNet
from fedcpsc.audit.shadows import (
    distil_students,
    draw_membership,
    predict_shadows,
    proven_epsilon,
    train_private_shadows,
    train_shadows,
)
from fedcpsc.audit.stages import Arrays, AuditFolder, Progress, Warn, no_warning
from fedcpsc.audit.stealing import likeness
from fedcpsc.audit.write import write_audit
from fedcpsc.data.images import ImageSet, to_uint8
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import AuditError, explain
from fedcpsc.models.device import torch_threads
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.seeding import derive_seed, numpy_generator

__all__ = ["audit_from_scratch", "net_of", "public_queries"]

Images = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

_NO_CLAIM_DELTA = 1e-5  # of bounds where nothing is claimed


def audit_from_scratch(
    config: AuditConfig, out: Path, *, resume: bool, tell: Progress, warn: Warn = no_warning
) -> AuditFile:
    """Runs the audit, or what is left of it, and returns `audit.json`.

    Args:
        config: plan of the audit.
        out: folder of the audit.
        resume: whether to go on with the audit that lies there.
        tell: called before each stage with what comes.
        warn: called, before anything is trained, with each claim that the plan cannot refute.

    Raises:
        AuditError: the folder does not fit, or there are too few images for what is asked.
        ConfigError, DataError: the data cannot be read as configured.
    """
    bench = _Bench.of(config)
    folder = AuditFolder(out, config, resume=resume)
    done = folder.finished()
    if done:
        return done
    for text in in_vain_from_scratch(config):
        warn(text)
    with torch_threads(config.threads):
        return _Suite(config, bench, folder, tell).run()


@dataclass(frozen=True, eq=False)
class _Bench:
    """Who is a member of what.

    Attributes:
        pool: N records, canaries with their false labels.
        canary: whether each record is a canary [N].
        member: coins of all shadows [S, N].
        population: images that no shadow ever sees.
    """

    pool: ImageSet
    canary: Bools
    member: Bools
    population: ImageSet

    @classmethod
    def of(cls, config: AuditConfig) -> _Bench:
        train, population = load_train(config.data, config.seed), load_evaluation(config.data, config.seed)
        if population is None:
            remedy = "use a source with a test split, or data.validation"
            raise AuditError(explain("data.source", config.data.source, "has no held-out images", remedy))
        size = config.pool or len(train)
        if not 0 < size <= len(train) or config.canaries.count >= size:
            constraint = f"must be at most {len(train)} training images and more than {config.canaries.count} canaries"
            raise AuditError(explain("pool", size, constraint, "choose another"))
        rng = numpy_generator(config.seed, "audit", "pool")
        chosen = np.sort(rng.permutation(len(train))[:size])
        canary = np.zeros(size, bool)
        canary[rng.permutation(size)[: config.canaries.count]] = True
        labels = train.labels[chosen].copy()
        labels[canary] += rng.integers(1, train.classes, int(canary.sum()))  # any class but the true one
        pool = ImageSet(train.images[chosen], labels % train.classes, train.classes)
        member = draw_membership(derive_seed(config.seed, "audit"), config.shadows.count, size)
        non_members = int((~member[:, ~canary]).sum())
        check_enough(non_members, non_members // len(member), config.fprs, "raise pool or shadows.count")
        check_coins(member, "raise shadows.count")
        if canary.any():
            check_coins(member[config.canaries.audited :, canary], "lower canaries.audited or raise shadows.count")
        return cls(pool, canary, member, population)


def net_of(plan: ShadowsPlan | StudentsPlan, images: ImageSet) -> ShadowNet:
    """The plan's architecture for these images."""
    return ShadowNet(plan.architecture, plan.width, images.classes, images.image_shape)


def public_queries(plan: StudentsPlan, image_shape: tuple[int, int, int], seed: int) -> Images:
    """As many images of the public priors as are ever asked about, uint8 [Q, C, H, W]."""
    stream = torch.Generator().manual_seed(derive_seed(seed, "audit", "queries"))
    tones = None if plan.mean is None else Tones(plan.mean)
    return to_uint8(sample_prior(plan.prior, plan.answers[-1], image_shape, stream, tones)).numpy()


@dataclass
class _Suite:
    config: AuditConfig
    bench: _Bench
    folder: AuditFolder
    tell: Progress
    done: int = 0

    def run(self) -> AuditFile:
        config = self.config
        rows: list[AuditRow] = []
        bounds: list[Bound] = []
        models: list[ModelFacts] = []
        for policy in config.policies:
            teacher = self._teacher_stage(policy)
            accuracy = self._accuracy(teacher["population"])
            models.append({"policy": policy.name, "surface": "teacher", "answers": None, "accuracy": accuracy})
            if "teacher" in config.surfaces:
                self._judge(policy, "teacher", None, *self._seen_teachers(policy, teacher), rows, bounds)
            for answers in config.students.answers if "student" in config.surfaces else ():
                student = self._student_stage(policy, answers, teacher)
                models.append(self._student_facts(policy, answers, teacher, student))
                self._judge(policy, "student", answers, *self._seen_students(student), rows, bounds)
        self._say("pictures and verdict")
        facts = {
            "pool": len(self.bench.pool),
            "population": len(self.bench.population),
            "canaries": int(self.bench.canary.sum()),
            "shadows": config.shadows.count,
            "queries": f"images of the priors {', '.join(sorted(config.students.prior))}",
        }
        return write_audit(self.folder, config, rows=rows, bounds=bounds, models=models, facts=facts)

    # Stages ----------------------------------------------------------------------------------------------------------

    def _teacher_stage(self, policy: FormAudit | DpSgdAudit) -> Arrays:
        training = policy.name if isinstance(policy, DpSgdAudit) else "plain"
        self._say(f"{self.config.shadows.count} shadow teachers, {training}")
        return self.folder.stage(f"teachers {training}", lambda: self._make_teachers(policy))

    def _make_teachers(self, policy: FormAudit | DpSgdAudit) -> Arrays:
        bench, plan = self.bench, self.config.shadows
        net, seeds = net_of(plan, bench.pool), self._seeds()
        if isinstance(policy, DpSgdAudit):
            net = replace(net, width=policy.width or net.width)
            networks = train_private_shadows(net, bench.pool, bench.member, policy, seeds)
        else:
            networks = train_shadows(net, bench.pool, bench.member, plan, seeds)
        queries = public_queries(self.config.students, bench.pool.image_shape, self.config.seed)
        made = self._outputs(net, networks) | {"queries": predict_shadows(net, networks, queries)}
        if any(other.kind == "label" for other in self.config.policies) and not isinstance(policy, DpSgdAudit):
            for name, images in (("pool", bench.pool), ("population", bench.population)):
                seen = seen_by_labels(lambda view: predict_shadows(net, networks, view), images.images, images.labels)
                made |= {f"{name}_share": seen.statistic, f"{name}_share_likelihood": seen.likelihood}
        return made

    def _student_stage(self, policy: FormAudit | DpSgdAudit, answers: int, teacher: Arrays) -> Arrays:
        self._say(f"{self.config.shadows.count} shadow students, {policy.name}, {answers:,} answers")
        return self.folder.stage(
            f"students {policy.name} {answers}", lambda: self._make_students(policy, answers, teacher)
        )

    def _make_students(self, policy: FormAudit | DpSgdAudit, answers: int, teacher: Arrays) -> Arrays:
        plan, shape = self.config.students, self.bench.pool.image_shape
        net = net_of(plan, self.bench.pool)
        queries = public_queries(plan, shape, self.config.seed)[:answers]
        targets = through_form(teacher["queries"][:, :answers], _channel(policy))
        return self._outputs(net, distil_students(net, queries, targets, plan, self._seeds()))

    def _outputs(self, net: ShadowNet, networks: Parameters) -> dict[str, npt.NDArray[Any]]:
        return {
            "pool": predict_shadows(net, networks, self.bench.pool.images),
            "population": predict_shadows(net, networks, self.bench.population.images),
        }

    # Judging ---------------------------------------------------------------------------------------------------------

    def _seen_teachers(self, policy: FormAudit | DpSgdAudit, teacher: Arrays) -> tuple[Observations, Observations]:
        if policy.kind == "label":
            return tuple(  # type: ignore[return-value]  # two of them
                Observations(teacher[f"{name}_share"], teacher[f"{name}_share_likelihood"], None)
                for name in ("pool", "population")
            )
        return self._seen(teacher, _channel(policy))

    def _seen_students(self, student: Arrays) -> tuple[Observations, Observations]:
        return self._seen(student, AnswerChannel())  # a student is handed over whole

    def _seen(self, outputs: Arrays, channel: AnswerChannel) -> tuple[Observations, Observations]:
        pool = seen_by_probabilities(outputs["pool"], self.bench.pool.labels, channel)
        return pool, seen_by_probabilities(outputs["population"], self.bench.population.labels, channel)

    def _judge(
        self,
        policy: FormAudit | DpSgdAudit,
        surface: Surface,
        answers: int | None,
        seen: Observations,
        population: Observations,
        rows: list[AuditRow],
        bounds: list[Bound],
    ) -> None:
        bench, config, plan = self.bench, self.config, self.config.canaries
        last = answers in (None, config.students.answers[-1])
        wanted = config.attacks if last else (BOUND_ATTACK,)  # fewer answers: one point of a curve
        place: Place = {"policy": policy.name, "surface": surface, "answers": answers}
        ordinary = ~bench.canary
        for attack in attacks_on(seen, wanted):
            scores = attack_each_in_turn(attack, seen, bench.member, population)[:, ordinary]
            facts: RowFacts = {**place, "claimed_epsilon": policy.claimed, "attack": attack.name}
            rows.append(row(scores, bench.member[:, ordinary], config.fprs, facts))
        if last and (bench.canary.any() or policy.claimed is not None):
            delta = policy.delta if isinstance(policy, DpSgdAudit) else _NO_CLAIM_DELTA
            coins = bench.member[: config.canaries.audited, bench.canary]
            scores = self._canary_scores(seen, population)
            found = bound(scores, coins, plan.guesses, delta, confidence_from_scratch(config))
            proven = proven_epsilon(policy, len(bench.pool)) if isinstance(policy, DpSgdAudit) else None
            accounted = proven if proven is None or np.isfinite(proven) else None
            held = held_against(found, policy.claimed, None if policy.claimed is None else "record", plan.guesses)
            made: AccountedBound = {
                **place,
                "accounted_epsilon": accounted,
                "attack": BOUND_ATTACK,
                **found,
                **held,
            }
            bounds.append(made)

    def _canary_scores(self, seen: Observations, population: Observations) -> npt.NDArray[np.float64]:
        canary, audited = self.bench.canary, self.config.canaries.audited
        if not canary.any():
            return np.zeros((audited, 0))
        return canary_scores(seen.of_images(canary), self.bench.member[:, canary], population, audited)

    def _student_facts(
        self, policy: FormAudit | DpSgdAudit, answers: int, teacher: Arrays, student: Arrays
    ) -> ModelFacts:
        pairs = zip(teacher["population"], student["population"], strict=True)
        alike = [likeness(original, copy) for original, copy in pairs]
        return {
            "policy": policy.name,
            "surface": "student",
            "answers": answers,
            "accuracy": self._accuracy(student["population"]),
            "agreement": float(np.mean([each.agreement for each in alike])),
            "kl": float(np.mean([each.kl for each in alike])),
        }

    def _accuracy(self, outputs: npt.NDArray[Any]) -> Accuracy:
        right = (outputs.argmax(2) == self.bench.population.labels).mean(1)
        return {"mean": float(right.mean()), "std": float(right.std(ddof=1))}

    def _seeds(self) -> list[int]:
        return [derive_seed(self.config.seed, "shadow", shadow) for shadow in range(self.config.shadows.count)]

    def _say(self, text: str) -> None:
        students = len(self.config.students.answers) if "student" in self.config.surfaces else 0
        self.tell(self.done, len(self.config.policies) * (1 + students) + 1, text)
        self.done += 1


def _channel(policy: FormAudit | DpSgdAudit) -> AnswerChannel:
    if isinstance(policy, DpSgdAudit):
        return AnswerChannel(AnswerForm.PROBABILITIES, policy.bits)
    return AnswerChannel(AnswerForm(policy.kind), policy.bits, policy.top_k)
