# SPDX-License-Identifier: Apache-2.0
"""Makes a silo whose teacher this project trains: reuses a matching teacher, else trains one and puts it in place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.units import record_ids, unit_ids
from fedcpsc.errors import DataError, explain
from fedcpsc.files import durable
from fedcpsc.gatekeeper.guarantee import check_training
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.seen_records import check_records, note_records
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.privacy.randomness import NOISE_SOURCE
from fedcpsc.seeding import derive_seed
from fedcpsc.silos.adopted import accuracy_of
from fedcpsc.silos.folder import check_writable, explained_silo_writes, made_alone, standing_teacher
from fedcpsc.silos.replacing import Replacement, finish_interrupted
from fedcpsc.silos.report import SiloReport
from fedcpsc.silos.take_up import choose_policy, take_up_ledger, write_policy
from fedcpsc.teachers.manifest import (
    WEIGHTS_FILE,
    Manifest,
    Normalisation,
    dataset_id,
    save_manifest,
    sha256_hex,
)
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.training.canaries import planted, save_canaries
from fedcpsc.training.plain import Progress, TrainedTeacher
from fedcpsc.training.plan import (
    DpSgdTraining,
    TrainingFacts,
    planned_history,
    public_units,
    training_plan,
    used_settings,
)
from fedcpsc.training.teacher import train_teacher

__all__ = ["SiloMaker"]


@dataclass(frozen=True)
class SiloMaker:
    """Makes one silo whose teacher this project trains.

    Attributes:
        config: configuration of the run.
        silo: number of the silo.
        folder: path of its folder.
        device: device to train on.
        weights: public weights that the teacher starts from; None where it starts at random.
    """

    config: RunConfig
    silo: int
    folder: Path
    device: torch.device
    weights: Pretrained | None = None

    @property
    def name(self) -> str:
        """The silo's name in the run."""
        return f"silo-{self.silo}"

    @property
    def seed(self) -> int:
        """Seed of whatever in the training need not be secret."""
        return derive_seed(self.config.seed, "teacher", self.silo)

    @property
    def population(self) -> str:
        """Name of the population whose records the silo holds."""
        return self.config.silos.population.replace("{silo}", self.name)

    @property
    def persons(self) -> str:
        """How persons are told apart, such as "column patient_id"; empty where every record stands for itself."""
        persons = self.config.data.persons
        return "" if persons is None else " ".join(str(value) for value in persons.model_dump().values())

    def make(
        self,
        images: ImageSet,
        architecture: str,
        configured: Policy,
        evaluation: ImageSet | None,
        progress: Progress,
    ) -> SiloReport:
        """Reuses the teacher that stands in the folder, or trains one and puts it in its place.

        Args:
            images: private images of the silo.
            architecture: name of the teacher's network.
            configured: policy of the run's configuration, for where the owner has edited none.
            evaluation: held-out images to measure the teacher with; None measures nothing.
            progress: function that is called with what is being done, a line each time.

        Raises:
            FedcpscError: as `make_silos`; whatever stood in the folder then stands there still.
        """
        started = time.monotonic()
        if evaluation is not None and evaluation.image_shape != images.image_shape:
            held_out, own = evaluation.image_shape, images.image_shape
            remedy = "set data.image_size and data.channels"
            raise DataError(explain("evaluation images", held_out, f"{self.name}'s images are {own}", remedy))
        with explained_silo_writes(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what is here was made from private data
        check_writable(self.folder)

        def tell(line: str) -> None:
            progress(f"{self.name}: {line}")

        with made_alone(self.folder, tell):
            kept = finish_interrupted(self.folder, tell)
            old = standing_teacher(self.folder)
            policy, owners = choose_policy(self.folder, old, configured)
            fingerprint = self._fingerprint(images, architecture)
            reused = old is not None and old.fingerprint == fingerprint
            with contextlib.closing(take_up_ledger(self.folder, self.population, _unit(images), policy, old)) as ledger:
                ledger.check_persons(self.persons)
                if old is not None and reused:
                    ledger.name_persons(self.persons)  # an earlier version did not
                    manifest = self._with_policy(self._with_names(old, images), None if owners else policy)
                else:
                    self._check_before(images, policy, ledger)
                    tell(f"training {architecture} on {len(images)} images")
                    made = self._train(images, architecture, policy, progress)
                    self._check_before(images, policy, ledger)  # others may have been answered meanwhile
                    ledger.name_persons(self.persons)
                    note_records(self.folder, self.population, _ids(images))
                    manifest = self._stage(made, images, fingerprint, None if owners else policy)
                    kept = Replacement(self.folder).commit(ledger) or kept
        if kept is not None:
            tell(f"the teacher before it is kept in {kept}")
        teacher = None if evaluation is None else open_teacher(self.folder, manifest)
        return SiloReport(
            silo=self.name,
            folder=self.folder,
            architecture=manifest.architecture,
            train_size=len(images),
            reused=reused,
            policy_kept=owners,
            accuracy=accuracy_of(teacher, manifest, evaluation, self.config.aggregation.aliases) if teacher else None,
            seconds=time.monotonic() - started,
            kept=kept,
        )

    def _check_before(self, images: ImageSet, policy: Policy, ledger: Ledger) -> None:
        """What must not be trained on, or not once more, is refused while the old teacher stands."""
        check_records(self.folder, self.population, _ids(images))
        plan, teachers = training_plan(self.config.teachers), self.config.teachers
        if isinstance(plan, DpSgdTraining):
            true = len(images if images.persons is None else np.unique(images.persons))
            units = public_units(plan, true, public_size=policy.public_size)
            check_training(policy, ledger, planned_history(plan, teachers.epochs, teachers.batch_size, units))

    def _train(self, images: ImageSet, architecture: str, policy: Policy, progress: Progress) -> TrainedTeacher:
        with gpu_arithmetic(self.device):
            return train_teacher(
                images,
                self.config.teachers,
                self.seed,
                architecture,
                lambda line: progress(f"{self.name}: {line}"),
                self.folder,
                self.device,
                public_size=policy.public_size,
                weights=self.weights,
            )

    def _stage(self, made: TrainedTeacher, images: ImageSet, fingerprint: str, policy: Policy | None) -> Manifest:
        """Writes the new teacher, and the policy where it is the configuration's, to where `Replacement` takes them."""
        weights, data = save_tensors(made.states), dataset_id(images.images, images.labels)
        digest, unit = sha256_hex(weights), _unit(images)
        with Replacement(self.folder).staging() as staged:
            with durable(staged / WEIGHTS_FILE) as file:
                file.write(weights)
            if made.canaries is not None:
                save_canaries(made.canaries, staged, digest)
                images = planted(images, made.canaries)  # sizes and counts are of what was trained on
            channels = images.image_shape[0]
            manifest = Manifest(
                silo=self.name,
                population=self.population,
                unit=unit,
                origin="trained",
                kind=made.kind,
                architecture=made.architecture,
                width=self.config.teachers.width,
                classes=images.classes,
                class_names=images.class_names,
                none_class=self.config.teachers.outliers is not None,
                image_shape=images.image_shape,
                resize=self.config.data.resize,
                normalisation=self._normalisation(channels),
                dataset_id=data,
                train_size=len(images),
                training=self._recipe(),
                weights_sha256=digest,
                fingerprint=fingerprint,
                private_class_counts=tuple(np.bincount(images.labels, minlength=images.classes).tolist()),
                privacy=made.proof,
            )
            if policy is not None:
                manifest = write_policy(manifest, policy, staged)
            save_manifest(manifest, staged)
        return manifest

    def _normalisation(self, channels: int) -> Normalisation:
        """The constants of the configuration, else those of `to_pixels`."""
        given = self.config.teachers.normalisation
        if given is None:
            return Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels)
        times = channels // len(given.mean)
        return Normalisation(mean=given.mean * times, std=given.std * times)

    def _with_names(self, manifest: Manifest, images: ImageSet) -> Manifest:
        """The manifest of a reused teacher with what the data say today of names and resizing; pixels are the same."""
        names = images.class_names or manifest.class_names
        changed = manifest.model_copy(update={"class_names": names, "resize": self.config.data.resize})
        if changed != manifest:
            with explained_silo_writes(self.folder):
                save_manifest(changed, self.folder)
        return changed

    def _with_policy(self, manifest: Manifest, policy: Policy | None) -> Manifest:
        """The manifest of a reused teacher, with the configuration's policy beside it; None keeps the owner's own."""
        if policy is None:
            return manifest
        with explained_silo_writes(self.folder):
            changed = write_policy(manifest, policy, self.folder)
            if changed != manifest:
                save_manifest(changed, self.folder)
        return changed

    def _recipe(self) -> TrainingFacts:
        digest = None if self.weights is None else self.weights.sha256
        return {**used_settings(training_plan(self.config.teachers), self.config.teachers, digest), "seed": self.seed}

    def _fingerprint(self, images: ImageSet, architecture: str) -> str:
        parts: dict[str, object] = {
            "silo": self.name,
            "dataset_id": dataset_id(images.images, images.labels),
            "architecture": architecture,
            "width": self.config.teachers.width,
            "training": self._recipe(),
        }
        if isinstance(training_plan(self.config.teachers), DpSgdTraining):
            parts["noise_source"] = NOISE_SOURCE  # noise of another source carries no guarantee: it is trained anew
        if images.persons is not None:
            records = zip(record_ids(images.images, images.labels), unit_ids(images), strict=True)
            parts["persons"] = sha256_hex(b"".join(sorted(record + person for record, person in records)))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _unit(images: ImageSet) -> Literal["record", "person"]:
    return "record" if images.persons is None else "person"


def _ids(images: ImageSet) -> list[bytes]:
    """What another population must not have used: the records, and where persons are named, the persons."""
    records = record_ids(images.images, images.labels)
    return records if images.persons is None else [*records, *dict.fromkeys(unit_ids(images))]
