# SPDX-License-Identifier: Apache-2.0
"""The audit of a finished run: its student, its silos' teachers, its query images, its answers.

For the owners' side of a simulation: it reads the silos' folders and their private images, as the run's configuration
deals them. Members are the images a teacher was trained on, the others are held-out images; who is which was decided by
the split, not by coins, so that only canaries that the silos planted themselves make a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.attacks.attack import ATTACKS
from fedcpsc.audit.claims import held_against
from fedcpsc.audit.figures import AuditFile, AuditRow, Bound, ModelFacts, Place, RowFacts, RunExtras
from fedcpsc.audit.finished_run import FinishedRun
from fedcpsc.audit.measure import attacks_on, bound, check_coins, check_enough, per_unit, row
from fedcpsc.audit.observations import Evidence, Observations
from fedcpsc.audit.observe import AnswerChannel, seen_by_labels, seen_by_probabilities, through_form
from fedcpsc.audit.plan import BOUND_ATTACK, AuditConfig, Surface
from fedcpsc.audit.planned import confidence_over_run, in_vain_over_run
from fedcpsc.audit.run import net_of
from fedcpsc.audit.run_extras import copying, label_mixes, stealing
from fedcpsc.audit.shadows import distil_students, draw_membership, predict_shadows, train_shadows
from fedcpsc.audit.silo_under_audit import SiloUnderAudit
from fedcpsc.audit.stages import Arrays, AuditFolder, Progress, Warn, no_warning
from fedcpsc.audit.write import write_audit
from fedcpsc.data.images import ImageSet
from fedcpsc.models.device import torch_threads
from fedcpsc.seeding import derive_seed, numpy_generator

__all__ = ["audit_run"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_POPULATION_SHARE = 0.2  # of the held-out images: RMIA's population; the others are the non-members


def audit_run(
    config: AuditConfig,
    run: FinishedRun,
    out: Path,
    *,
    resume: bool,
    tell: Progress,
    warn: Warn = no_warning,
) -> AuditFile:
    """Audits a finished run and returns `audit.json`. The plan's `data`, `pool` and `policies` are the run's own.

    Args:
        config: shadows, students, attacks, false positive rates.
        run: the run, opened with its silos.
        out: folder of the audit.
        resume: whether to go on with the audit that lies there.
        tell: called before each stage with what comes.
        warn: called, before anything is trained, with each claim that the planted canaries cannot refute.

    Raises:
        AuditError: the folder does not fit, or there are too few images for what is asked.
    """
    suite = _Suite(config, run, AuditFolder(out, config, resume=resume, run=str(run.folder.resolve())), tell)
    if done := suite.folder.finished():
        return done
    for text in in_vain_over_run(config, run.silos):
        warn(text)
    with torch_threads(config.threads):
        return suite.run_all()


@dataclass(frozen=True, eq=False)
class _Sides:
    """Images with labels as trained on, who was a member, and which may be scored.

    Attributes:
        pool: N images.
        truth: whether the target was trained on each image [N].
        scored: whether each image is scored [N]: as many members as non-members of each class, without canaries:
            a mix of classes is another leak.
        canary: whether each image is a canary [N].
        owner: number of the silo that holds it, -1 for held-out images [N].
        population: images that neither target nor shadow has seen.
    """

    pool: ImageSet
    truth: Bools
    scored: Bools
    canary: Bools
    owner: npt.NDArray[np.int64]
    population: ImageSet


@dataclass
class _Suite:
    config: AuditConfig
    run: FinishedRun
    folder: AuditFolder
    tell: Progress
    done: int = 0

    def run_all(self) -> AuditFile:
        run = self.run
        rows: list[AuditRow] = []
        bounds: list[Bound] = []
        models: list[ModelFacts] = []
        sides = {silo.name: self._sides([silo]) for silo in run.silos}
        whole = self._sides(run.silos)
        for name, each in [*sides.items(), ("student", whole)]:
            non_members = int((each.scored & ~each.truth).sum())
            check_enough(non_members, non_members, self.config.fprs, f"hold out more images of {name}'s classes")
        for silo in run.silos if "teacher" in self.config.surfaces else ():
            self._say(f"{silo.name}: {self.config.shadows.count} shadow teachers")
            self._teacher(silo, sides[silo.name], rows, bounds)
            right = silo.seen_by_server(run.held_out.images).argmax(1) == run.held_out.labels
            models.append(_model(silo.name, "teacher", None, float(right.mean())))
        if "student" in self.config.surfaces:
            self._say(f"student: {self.config.shadows.count} shadows")
            self._student(whole, rows, bounds)
            right = run.student(run.held_out.images).argmax(1) == run.held_out.labels
            models.append(_model("run", "student", run.answers, float(right.mean())))
        self._say("copying, label mix, stealing")
        copied, pictures = copying(run, self.folder.folder, self.config.seed)
        extras: RunExtras = {
            "copying": copied,
            "label_mix": label_mixes(run),
            "stealing": stealing(run, self.config),
        }
        return write_audit(
            self.folder,
            self.config,
            rows=rows,
            bounds=bounds,
            models=models,
            facts={
                "run": run.name,
                "run_commit": run.result["commit"],
                "silos": [silo.name for silo in run.silos],
                "shadows": self.config.shadows.count,
                "queries": f"{run.bank.rows:,} images of the run's bank",
            },
            private_plots=pictures,
            extras=extras,
        )

    def _teacher(self, silo: SiloUnderAudit, sides: _Sides, rows: list[AuditRow], bounds: list[Bound]) -> None:
        def make() -> Arrays:
            net, member, seeds = self._shadows(sides, silo.name)
            networks = train_shadows(net, sides.pool, member, self.config.shadows, seeds)
            made: dict[str, npt.NDArray[Any]] = {"member": member.astype(np.uint8)}
            for part, images in (("pool", sides.pool), ("population", sides.population)):
                mine = self._look(lambda view: silo.released(view)[None], images, silo.channel)
                theirs = self._look(lambda view: predict_shadows(net, networks, view), images, silo.channel)
                made |= _arrays(part, mine) | _arrays(f"shadow_{part}", theirs)
            return made

        found = self.folder.stage(f"teacher {silo.name}", make)
        self._attack(silo.name, "teacher", None, silo.claim, sides, found, rows)
        self._bound(silo, "teacher", None, sides.canary, sides, found, bounds)

    def _student(self, sides: _Sides, rows: list[AuditRow], bounds: list[Bound]) -> None:
        run, plan = self.run, self.config.students

        def make() -> Arrays:
            net, member, seeds = self._shadows(sides, "student")
            teachers = train_shadows(net, sides.pool, member, self.config.shadows, seeds)
            queries = run.queries(plan.answers[-1], self.config.seed)
            targets = through_form(predict_shadows(net, teachers, queries), run.channel)
            small = net_of(plan, sides.pool)
            students = distil_students(small, queries, targets, plan, seeds)
            made: dict[str, npt.NDArray[Any]] = {"member": member.astype(np.uint8)}
            for part, images in (("pool", sides.pool), ("population", sides.population)):
                made |= _arrays(part, self._look(lambda view: run.student(view)[None], images, AnswerChannel()))
                theirs = self._look(lambda view: predict_shadows(small, students, view), images, AnswerChannel())
                made |= _arrays(f"shadow_{part}", theirs)
            return made

        found = self.folder.stage("student", make)
        self._attack("run", "student", run.answers, None, sides, found, rows)
        for number, silo in enumerate(run.silos):  # a record's promise is its own silo's: never one for them all
            on = sides.canary & (sides.owner == number)
            self._bound(silo, "student", run.answers, on, sides, found, bounds)

    def _attack(
        self,
        subject: str,
        surface: Surface,
        answers: int | None,
        claim: float | None,
        sides: _Sides,
        found: Arrays,
        rows: list[AuditRow],
    ) -> None:
        evidence = _evidence(found)
        for attack in attacks_on(evidence.target, self.config.attacks):
            scores = attack.scores(evidence)
            truth = sides.truth[None, sides.scored]
            facts: RowFacts = {
                "policy": subject,
                "surface": surface,
                "answers": answers,
                "claimed_epsilon": claim,
                "attack": attack.name,
            }
            rows.append(row(scores[None, sides.scored], truth, self.config.fprs, facts))

    def _bound(
        self,
        silo: SiloUnderAudit,
        surface: Surface,
        answers: int | None,
        on: Bools,
        sides: _Sides,
        found: Arrays,
        bounds: list[Bound],
    ) -> None:
        """From the canaries `on`, against the claim of the silo that planted them; none without canaries and claim."""
        if silo.claim is None and not on.any():
            return
        place: Place = {"policy": silo.name, "surface": surface, "answers": answers}
        scores = per_unit(self._canary_scores(on, found), silo.unit_of_record)
        share = self.config.canaries.guesses
        made = bound(scores, silo.coins, share, silo.delta, confidence_over_run(self.config, self.run.silos), silo.unit)
        held = held_against(made, silo.claim, None if silo.claim is None else silo.unit, share)
        bounds.append({**place, "attack": BOUND_ATTACK, **made, **held})

    def _canary_scores(self, on: Bools, found: Arrays) -> npt.NDArray[np.float64]:
        if not on.any():
            return np.zeros(0)
        return ATTACKS.get(BOUND_ATTACK).scores(_evidence(found).of_images(on))

    def _sides(self, silos: list[SiloUnderAudit]) -> _Sides:
        held_out, rng = self.run.held_out, numpy_generator(self.config.seed, "audit", "population")
        order = rng.permutation(len(held_out))
        aside = round(_POPULATION_SHARE * len(held_out))
        population, others = held_out.subset(np.sort(order[:aside])), held_out.subset(np.sort(order[aside:]))
        images = np.concatenate([silo.images.images for silo in silos] + [others.images])
        labels = np.concatenate([silo.images.labels for silo in silos] + [others.labels])
        outside = np.zeros(len(others), bool)
        truth = np.concatenate([silo.member for silo in silos] + [outside])
        canary = np.concatenate([silo.canary for silo in silos] + [outside])
        owner = np.repeat([*range(len(silos)), -1], [*(len(silo.images) for silo in silos), len(others)])
        scored = np.zeros(len(labels), bool)
        for k in np.unique(labels):
            sides = [np.flatnonzero((labels == k) & ~canary & (truth == side)) for side in (True, False)]
            each = min(len(side) for side in sides)
            for side in sides:
                scored[rng.permutation(side)[:each]] = True
        return _Sides(ImageSet(images, labels, held_out.classes), truth, scored, canary, owner, population)

    def _shadows(self, sides: _Sides, name: str) -> tuple[Any, Bools, list[int]]:
        count, seed = self.config.shadows.count, derive_seed(self.config.seed, "run audit", name)
        seeds = [derive_seed(seed, "shadow", shadow) for shadow in range(count)]
        member = draw_membership(seed, count, len(sides.pool))
        check_coins(member, "raise shadows.count")
        return net_of(self.config.shadows, sides.pool), member, seeds

    def _look(self, predict: Any, images: ImageSet, channel: AnswerChannel) -> Observations:
        if channel.labels_only:
            return seen_by_labels(predict, images.images, images.labels)
        return seen_by_probabilities(predict(images.images), images.labels, channel)

    def _say(self, text: str) -> None:
        self.tell(self.done, len(self.run.silos) + 2, text)
        self.done += 1


def _arrays(part: str, seen: Observations) -> dict[str, npt.NDArray[Any]]:
    loss = {} if seen.loss is None else {f"{part}_loss": seen.loss}
    return {f"{part}_statistic": seen.statistic, f"{part}_likelihood": seen.likelihood, **loss}


def _seen(found: Arrays, part: str) -> Observations:
    return Observations(found[f"{part}_statistic"], found[f"{part}_likelihood"], found.get(f"{part}_loss"))


def _evidence(found: Arrays) -> Evidence:
    """What a stored stage holds, of the one target."""
    return Evidence(
        target=_seen(found, "pool"),
        references=_seen(found, "shadow_pool"),
        member=found["member"].astype(bool),
        target_population=_seen(found, "population"),
        reference_population=_seen(found, "shadow_population"),
    )


def _model(subject: str, surface: Surface, answers: int | None, accuracy: float) -> ModelFacts:
    return {"policy": subject, "surface": surface, "answers": answers, "accuracy": {"mean": accuracy, "std": None}}
