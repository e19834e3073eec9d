# SPDX-License-Identifier: Apache-2.0
"""A silo as its owner brings it to an audit: its folder, its private images, and who of them was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcpsc.audit.figures import Unit
from fedcpsc.audit.observe import AnswerChannel, through_form
from fedcpsc.data.images import ImageSet
from fedcpsc.errors import DataError, SiloError, explain
from fedcpsc.gatekeeper.guarantee import build_mechanism
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy
from fedcpsc.gatekeeper.policy_check import check_policy
from fedcpsc.gatekeeper.released import released_scores
from fedcpsc.label_sets import LabelSets
from fedcpsc.privacy.mechanisms import Mechanism
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.teachers.manifest import Manifest, dataset_id, load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.training.canaries import CANARIES_FILE, canary_images, load_canaries

__all__ = ["OwnersSilo", "SiloUnderAudit"]

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_NO_CLAIM_DELTA = 1e-5


@dataclass(frozen=True, eq=False)
class OwnersSilo:
    """What a silo's owner brings to an audit.

    Attributes:
        folder: folder of the silo.
        images: private images that its teacher was trained on, in the silo's own classes.
        teacher: teacher where it lives in this process alone; None opens the folder's weights file.
        by_word: whether the owner's word counts where the manifest does not name the records trained on.
    """

    folder: Path
    images: ImageSet
    teacher: Teacher | None = None
    by_word: bool = False


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
    def open(cls, silo: OwnersSilo, form: AnswerForm, label_sets: LabelSets, number: int) -> SiloUnderAudit:
        """Reads a silo's folder; charges nothing.

        Args:
            silo: folder and private images of the silo.
            form: answer form that the run asked for.
            label_sets: the silos' label sets in the run.
            number: number of the silo in them.

        Raises:
            SiloError: it claims what it cannot prove, or its files do not fit together.
            DataError: its teacher was trained on other images.
        """
        folder, images = silo.folder, silo.images
        manifest, policy = load_manifest(folder), load_policy(folder / POLICY_FILE)
        report = check_policy(folder)  # the proof, down to the accountant's state
        unnamed = silo.by_word and manifest.dataset_id is None
        if not unnamed and dataset_id(images.images, images.labels) != manifest.dataset_id:
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
            teacher=silo.teacher or open_teacher(folder, manifest),
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
