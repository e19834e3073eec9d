# SPDX-License-Identifier: Apache-2.0
"""A finished run and its silos, opened and checked for an audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.figures import Unit
from fedcpsc.audit.observe import AnswerChannel, through_form
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.silo_images import iterate_silo_images
from fedcpsc.data.sources import load_evaluation
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.federation import federated_labels
from fedcpsc.errors import AuditError, DataError, RunError, SiloError, explain
from fedcpsc.gatekeeper.guarantee import build_mechanism
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy
from fedcpsc.gatekeeper.policy_check import check_policy
from fedcpsc.gatekeeper.released import released_scores
from fedcpsc.label_sets import LabelSets
from fedcpsc.privacy.mechanisms import Mechanism
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.bank_view import BankView
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE, RESULT_FILE
from fedcpsc.runs.read import gather
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.student import load_student
from fedcpsc.runs.suspicion import exclusion
from fedcpsc.seeding import numpy_generator
from fedcpsc.teachers.manifest import Manifest, dataset_id, load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.training.canaries import CANARIES_FILE, canary_images, load_canaries

__all__ = ["FinishedRun", "SiloUnderAudit"]

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_NO_CLAIM_DELTA = 1e-5


@dataclass(frozen=True, eq=False)
class SiloUnderAudit:
    """A silo as its owner knows it.

    Attributes:
        name: name of the silo.
        manifest: manifest of its teacher.
        label_sets: the silos' label sets in the run.
        number: number of the silo in them.
        images: private images with the federation's labels, canaries with the labels they were planted with.
        member: whether the teacher was trained on each image [N].
        canary: whether each image is a canary [N], R in all.
        coins: whether the teacher was trained on each of U canary units [U], as independent coins decided: U is random,
            and may be 0 also where canaries were planted.
        unit_of_record: index of the canary unit of each record that is a canary, in the order of the images [R].
        unit: what the training protects, and what one coin decides about.
        claim: epsilon that its policy claims; None for no claim.
        delta: delta of the claim.
        teacher: the network itself.
        mechanism: mechanism of its policy, between the teacher and an answer.
        channel: form that the run asked for, with the bits and the top-k of its own policy.
    """

    name: str
    manifest: Manifest
    label_sets: LabelSets
    number: int
    images: ImageSet
    member: Bools
    canary: Bools
    coins: Bools
    unit_of_record: npt.NDArray[np.int64]
    unit: Unit
    claim: float | None
    delta: float
    teacher: Teacher
    mechanism: Mechanism
    channel: AnswerChannel

    @classmethod
    def open(
        cls, folder: Path, images: ImageSet, form: AnswerForm, label_sets: LabelSets, number: int
    ) -> SiloUnderAudit:
        """Reads a silo's folder; charges nothing.

        Args:
            folder: folder of the silo.
            images: private images of the silo, as the run's configuration deals them, in the silo's own classes.
            form: answer form that the run asked for.
            label_sets: the silos' label sets in the run.
            number: number of the silo in them.

        Raises:
            SiloError: it claims what it cannot prove, or its files do not fit together.
            DataError: its teacher was trained on other images.
        """
        manifest, policy = load_manifest(folder), load_policy(folder / POLICY_FILE)
        report = check_policy(folder)  # the proof, down to the accountant's state
        if dataset_id(images.images, images.labels) != manifest.dataset_id:
            remedy = "give the silos that this run's configuration made, with --silos"
            raise DataError(explain("private images", manifest.silo, "are not those of its teacher", remedy))
        member, canary = np.ones(len(images), bool), np.zeros(len(images), bool)
        coins, unit_of_record = np.zeros(0, bool), np.zeros(0, np.int64)
        if (folder / CANARIES_FILE).exists():
            planted = load_canaries(folder, manifest)
            labels = images.labels.copy()
            labels[planted.positions] = canary_images(images, planted).labels
            images = replace(images, labels=labels)
            canary[planted.positions] = True
            member[planted.positions] = planted.included[planted.units]
            coins, unit_of_record = planted.included, planted.units
        places = np.array(label_sets.places[number], np.int64)
        if len(places) != manifest.classes:
            constraint = f"the run's silo had {len(places)} classes"
            raise SiloError(explain("classes", manifest.classes, constraint, "give this run's silos, with --silos"))
        images = replace(images, labels=places[images.labels], classes=label_sets.classes, class_names=label_sets.names)
        return cls(
            name=manifest.silo,
            manifest=manifest,
            label_sets=label_sets,
            number=number,
            images=images,
            member=member,
            canary=canary,
            coins=coins,
            unit_of_record=unit_of_record,
            unit="person" if report.unit == "person" else "record",
            claim=report.epsilon,
            delta=report.delta or _NO_CLAIM_DELTA,
            teacher=open_teacher(folder, manifest),
            mechanism=build_mechanism(policy, manifest),
            channel=AnswerChannel(form, policy.bits, policy.top_k),
        )

    def own(self, images: Images) -> Floats:
        """The teacher's own probabilities in the federation's classes [N, K]."""
        return self.label_sets.federated(self.number, self.teacher.predict(images))[0]

    def released(self, images: Images) -> Floats:
        """What the mechanism lets out, before the answer form, in the federation's classes [N, K].

        Charged to no ledger: it does not leave.
        """
        scores = released_scores(self.mechanism, self.teacher, images)
        if self.label_sets.alike:
            return scores
        return self.label_sets.federated(self.number, scores)[0]

    def seen_by_server(self, images: Images) -> Floats:
        """What a server decodes of the silo's answers [N, K]."""
        return through_form(self.released(images), self.channel)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run's folder and its silos.

    Attributes:
        name: name of the run.
        config: configuration of the run.
        result: figures of the run.
        bank: transcript of the run.
        silos: silos of the bank, in its order.
        held_out: images that no silo holds.
        student: probabilities [N, K] of images uint8 [N, C, H, W].
        channel: form that the run asked for, with the most bits and the largest top-k of all silos: shadow students are
            fitted through it, so that no silo's answers tell more.
    """

    name: str
    config: RunConfig
    result: RunResult
    bank: BankView
    silos: list[SiloUnderAudit]
    held_out: ImageSet
    student: Callable[[Images], Floats]
    channel: AnswerChannel

    @classmethod
    def open(cls, run_dir: Path, silos_dir: Path) -> FinishedRun:
        """Opens and checks everything.

        Raises:
            RunError, BankError: the run is not finished, or a file of it is damaged.
            AuditError: it has no transcript, no held-out images, or asked its silos for different forms.
            SiloError, DataError: as `SiloUnderAudit.open`.
        """
        run = gather(run_dir)
        config, bank, result = run.config, run.bank, run.result
        if result is None:
            remedy = "finish it first: fedcpsc run CONFIG --resume"
            raise RunError(explain("run", str(run_dir), f"has no {RESULT_FILE}", remedy))
        if bank is None:
            remedy = f"audit a run whose {BANK_FOLDER}/ was kept, or audit from scratch, without --run"
            raise AuditError(explain("run", str(run_dir), f"has no transcript ({BANK_FOLDER}/{JOURNAL_FILE})", remedy))
        student = load_student(run)
        held_out = load_evaluation(config.data, config.seed)
        if held_out is None:
            remedy = "use a source with a test split, or data.validation"
            raise AuditError(explain("data.source", config.data.source, "has no held-out images", remedy))
        names, sets = bank.silos, bank.label_sets
        held_out = federated_labels(held_out, sets, config.aggregation.aliases)
        if held_out.classes > sets.classes and sets.names is not None:  # nobody can be a member among the others
            known = held_out.subset(np.flatnonzero(held_out.labels < sets.classes))
            held_out = replace(known, classes=sets.classes, class_names=sets.names)
        dealt = {f"silo-{number}": images for number, images in enumerate(iterate_silo_images(config))}
        form = _form(result)
        if strange := [name for name in names if name not in dealt]:
            constraint = "holds answers of teachers that are not among these silos any more"
            remedy = f"audit a refit without them: fedcpsc refit with {exclusion(strange)}"
            raise AuditError(explain("run", ", ".join(strange), constraint, remedy))
        silos = [
            SiloUnderAudit.open(silos_dir / name.removeprefix("silo-"), dealt[name], form, sets, number)
            for number, name in enumerate(names)
        ]
        return cls(
            name=result["name"],
            config=config,
            result=result,
            bank=bank,
            silos=silos,
            held_out=held_out,
            student=lambda images: predict(student.network, images, config.evaluation.batch_size),
            channel=_most_telling([silo.channel for silo in silos]),
        )

    @property
    def answers(self) -> int:
        """Images answered by each silo."""
        return self.result["answers_per_silo"]

    def queries(self, most: int, seed: int) -> Images:
        """At most so many of the bank's answered images, drawn by the seed, uint8 [Q, C, H, W]."""
        rows = self.bank.answered_rows()
        if len(rows) > most:
            rows = np.sort(numpy_generator(seed, "audit", "bank rows").choice(rows, most, replace=False))
        return np.array(self.bank.images[rows])

    def answered_by(self, name: str) -> tuple[Images, Floats]:
        """Images that a silo answered, in the order asked, and its decoded answers [Q, K]."""
        images, answers = [], []
        for batch in self.bank.batches:
            for rows in batch.answered_by(name):
                images.append(np.array(self.bank.images[rows]))
                answers.append(self.bank.answers(batch, rows)[0][self.bank.silos.index(name)])
        if not images:
            raise AuditError(explain("silo", name, "answered nothing in this run", "audit another run"))
        return np.concatenate(images), np.concatenate(answers)


def _most_telling(channels: list[AnswerChannel]) -> AnswerChannel:
    """The channel, of one form, that tells as much as any of several.

    Args:
        channels: channels of the silos, of one form, at least one.
    """
    bits, top_k = (max(getattr(channel, name) for channel in channels) for name in ("bits", "top_k"))
    return AnswerChannel(channels[0].form, bits, top_k)


def _form(result: RunResult) -> AnswerForm:
    form = result.get("form", "")
    try:
        return AnswerForm(form)
    except ValueError:
        remedy = "audit a run that asked all its silos for one form: attacks differ from form to form"
        raise AuditError(explain("form", form, "is not one form", remedy)) from None
