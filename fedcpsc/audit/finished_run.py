# SPDX-License-Identifier: Apache-2.0
"""A finished run and its silos, opened and checked for an audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.observe import AnswerChannel
from fedcpsc.audit.silo_under_audit import OwnersSilo, SiloUnderAudit
from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.silo_images import iterate_silo_images
from fedcpsc.data.sources import load_evaluation
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.federation import federated_labels
from fedcpsc.errors import AuditError, RunError, explain
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.bank_view import BankView
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE, RESULT_FILE
from fedcpsc.runs.read import RunFacts, gather
from fedcpsc.runs.result import RunResult
from fedcpsc.runs.student import load_student
from fedcpsc.runs.suspicion import exclusion
from fedcpsc.seeding import numpy_generator

__all__ = ["FinishedRun"]

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run's folder and its silos.

    Attributes:
        folder: folder of the run.
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

    folder: Path
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
        """Opens and checks a simulation's run: its configuration deals the private and the held-out images.

        Args:
            run_dir: folder of the run.
            silos_dir: folder of its silos' folders.

        Raises:
            RunError, BankError: the run is not finished, or a file of it is damaged.
            AuditError: it has no transcript, no held-out images, or asked its silos for different forms.
            SiloError, DataError: as `SiloUnderAudit.open`.
        """
        run, bank, _ = _finished(run_dir)
        held_out = load_evaluation(run.config.data, run.config.seed)
        if held_out is None:
            remedy = "use a source with a test split, or data.validation"
            raise AuditError(explain("data.source", run.config.data.source, "has no held-out images", remedy))
        dealt = {f"silo-{number}": images for number, images in enumerate(iterate_silo_images(run.config))}
        owners = {name: OwnersSilo(silos_dir / name.removeprefix("silo-"), dealt[name]) for name in bank.silos}
        return cls.given(run_dir, owners, held_out)

    @classmethod
    def given(cls, run_dir: Path, owners: Mapping[str, OwnersSilo], held_out: ImageSet) -> FinishedRun:
        """Opens and checks a run whose owners bring their images themselves.

        Args:
            run_dir: folder of the run.
            owners: what each silo of the run's bank brings, by the silo's name.
            held_out: images that no silo's teacher was trained on.

        Raises:
            RunError, BankError: the run is not finished, or a file of it is damaged.
            AuditError: it has no transcript, or asked its silos for different forms.
            SiloError, DataError: as `SiloUnderAudit.open`.
        """
        run, bank, result = _finished(run_dir)
        config, names, sets = run.config, bank.silos, bank.label_sets
        student = load_student(run)
        held_out = federated_labels(held_out, sets, config.aggregation.aliases)
        if held_out.classes > sets.classes and sets.names is not None:  # nobody can be a member among the others
            known = held_out.subset(np.flatnonzero(held_out.labels < sets.classes))
            held_out = replace(known, classes=sets.classes, class_names=sets.names)
        form = _form(result)
        if strange := [name for name in names if name not in owners]:
            constraint = "holds answers of teachers that are not among these silos any more"
            remedy = f"audit a refit without them: fedcpsc refit with {exclusion(strange)}"
            raise AuditError(explain("run", ", ".join(strange), constraint, remedy))
        silos = [SiloUnderAudit.open(owners[name], form, sets, number) for number, name in enumerate(names)]
        return cls(
            folder=run_dir,
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


def _finished(run_dir: Path) -> tuple[RunFacts, BankView, RunResult]:
    """What the run's folder tells, its transcript and its figures.

    Raises:
        RunError, BankError: the run is not finished, or a file of it is damaged.
        AuditError: it has no transcript.
    """
    run = gather(run_dir)
    if run.result is None:
        remedy = "finish it first: fedcpsc run CONFIG --resume"
        raise RunError(explain("run", str(run_dir), f"has no {RESULT_FILE}", remedy))
    if run.bank is None:
        remedy = f"audit a run whose {BANK_FOLDER}/ was kept, or audit from scratch, without --run"
        raise AuditError(explain("run", str(run_dir), f"has no transcript ({BANK_FOLDER}/{JOURNAL_FILE})", remedy))
    return run, run.bank, run.result


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
