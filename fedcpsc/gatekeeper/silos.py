"""Making the simulated silos' folders, as each organisation would have its own before any federation starts.

    <base>/<i>/teacher.safetensors  manifest.json  policy.yaml  ledger.sqlite
               canaries.json, where the training planted some

A folder without a manifest is no silo. So that a crash never leaves half a silo that is taken for a whole one, the old
manifest goes first and the new one comes last. The ledger belongs to the population: when a silo's private data
changes, it stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.silo_images import iterate_silo_images, load_silo_train
from fedcpsc.data.sources import evaluation_images
from fedcpsc.errors import DataError, ManifestError, explain
from fedcpsc.gatekeeper.canaries import CANARIES_FILE, planted, save_canaries
from fedcpsc.gatekeeper.gatekeeper import create_ledger
from fedcpsc.gatekeeper.ledger import LEDGER_FILE, Ledger
from fedcpsc.gatekeeper.ledger_mark import mark_path
from fedcpsc.gatekeeper.manifest import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    Normalisation,
    dataset_id,
    load_manifest,
    read_weights,
    save_manifest,
    sha256_hex,
)
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, save_policy
from fedcpsc.gatekeeper.private_training import train_teacher
from fedcpsc.gatekeeper.teachers import open_teacher
from fedcpsc.gatekeeper.training import Progress
from fedcpsc.gatekeeper.training_plan import training_plan
from fedcpsc.models.device import choose_device, torch_threads
from fedcpsc.models.registry import check_architecture
from fedcpsc.seeding import derive_seed
from fedcpsc.typed_yaml import validate

__all__ = ["SiloReport", "make_silos"]


@dataclass(frozen=True)
class SiloReport:
    """What became of one silo.

    Attributes:
        silo: its name.
        folder: where it lies.
        architecture: of its teacher.
        train_size: private images.
        reused: whether the teacher was there already.
        policy_kept: whether its `policy.yaml` was edited by its owner and differs from the configuration.
        accuracy: of the teacher on the run's held-out images, in [0, 1]; None where there are none. The simulation's
            measuring instrument: it is written into no file of the silo.
        seconds: spent on this silo.
    """

    silo: str
    folder: Path
    architecture: str
    train_size: int
    reused: bool
    policy_kept: bool
    accuracy: float | None
    seconds: float

    def __str__(self) -> str:
        measured = "" if self.accuracy is None else f", {100 * self.accuracy:.1f} % of held-out images right"
        done = "reused" if self.reused else f"made in {self.seconds:.1f} s"
        kept = f"; {POLICY_FILE} was edited by its owner and kept" if self.policy_kept else ""
        return f"{self.silo}: {self.architecture}, {self.train_size} private images{measured}, {done}{kept}"


def make_silos(
    config: RunConfig, base: Path, progress: Progress | None = None, only: int | None = None
) -> list[SiloReport]:
    """Makes `<base>/0`, `<base>/1`, ..., reusing every teacher whose data, architecture, training and seed match.

    Args:
        config: of the run.
        base: folder of the silos' folders.
        progress: told what is being done, a line each time.
        only: the number of the one silo to make, as its owner does on a machine of its own; None makes all.

    Raises:
        ConfigError: for an unknown architecture, kind of training or policy field.
        DataError: where the private or held-out images cannot be read or dealt as configured.
        LedgerError: where a silo's ledger is missing, damaged, in use, or of other data than its teacher.
        PolicyError: where an owner's own `policy.yaml` cannot be honoured.
    """
    names = config.teachers.architecture
    architectures = (names,) if isinstance(names, str) else names
    for name in architectures:
        check_architecture(name)
    training_plan(config.teachers)
    shared, own = config.silos.policy, config.silos.policies or ({},)
    policies = [validate(Policy, {**shared, **fields}, "silos.policy") for fields in own]
    device = choose_device(config.runtime.device)
    evaluation = evaluation_images(config)
    reports = []
    with torch_threads(config.runtime.threads):
        one_or_all = enumerate(iterate_silo_images(config)) if only is None else [(only, load_silo_train(config, only))]
        for silo, images in one_or_all:
            architecture, policy = architectures[silo % len(architectures)], policies[silo % len(policies)]
            maker = _Maker(config, silo, base / str(silo), architecture, policy, device)
            reports.append(maker.make(images, evaluation, progress or _silent))
    return reports


@dataclass(frozen=True)
class _Maker:
    config: RunConfig
    silo: int
    folder: Path
    architecture: str
    policy: Policy
    device: torch.device

    @property
    def name(self) -> str:
        return f"silo-{self.silo}"

    @property
    def population(self) -> str:
        return self.config.silos.population.replace("{silo}", self.name)

    @property
    def seed(self) -> int:
        return derive_seed(self.config.seed, "teacher", self.silo)

    def make(self, images: ImageSet, evaluation: ImageSet | None, progress: Progress) -> SiloReport:
        started = time.monotonic()
        if evaluation is not None and evaluation.image_shape != images.image_shape:
            held_out, own = evaluation.image_shape, images.image_shape
            remedy = "set data.image_size and data.channels"
            raise DataError(explain("evaluation images", held_out, f"{self.name}'s images are {own}", remedy))
        data = dataset_id(images.images, images.labels)
        fingerprint = self._fingerprint(data)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # private data has touched what lies here
        old = self._old_manifest()
        policy, kept = self._choose_policy(old)
        self._take_up_ledger(old, policy)
        reused = old is not None and old.fingerprint == fingerprint
        if old is not None and reused:
            manifest = old
        else:
            progress(f"{self.name}: training {self.architecture} on {len(images)} images")
            manifest = self._train(images, data, fingerprint, progress)
        if not kept:
            save_policy(policy, self.folder / POLICY_FILE)
            written = sha256_hex((self.folder / POLICY_FILE).read_bytes())
            manifest = manifest.model_copy(update={"policy_sha256": written})
        if manifest != old:
            save_manifest(manifest, self.folder)
        accuracy = None if evaluation is None else self._accuracy(manifest, evaluation)
        return SiloReport(
            silo=self.name,
            folder=self.folder,
            architecture=manifest.architecture,
            train_size=len(images),
            reused=reused,
            policy_kept=kept,
            accuracy=accuracy,
            seconds=time.monotonic() - started,
        )

    def _train(self, images: ImageSet, data: str, fingerprint: str, progress: Progress) -> Manifest:
        """Replaces the weights; from before that until the caller saves the manifest, the folder is no silo."""
        teachers = self.config.teachers
        made = train_teacher(
            images,
            teachers,
            self.seed,
            self.architecture,
            lambda line: progress(f"{self.name}: {line}"),
            self.folder,
            self.device,
        )
        weights = save_tensors(made.states)
        (self.folder / MANIFEST_FILE).unlink(missing_ok=True)
        partial = self.folder / f"{WEIGHTS_FILE}.partial"
        partial.write_bytes(weights)
        os.replace(partial, self.folder / WEIGHTS_FILE)
        (self.folder / CANARIES_FILE).unlink(missing_ok=True)
        if made.canaries is not None:
            save_canaries(made.canaries, self.folder, sha256_hex(weights))
            images = planted(images, made.canaries)  # sizes and counts are of what was trained on
        channels = images.image_shape[0]
        return Manifest(
            silo=self.name,
            population=self.population,
            origin="trained",
            kind=made.kind,
            architecture=made.architecture,
            width=teachers.width,
            classes=images.classes,
            image_shape=images.image_shape,
            normalisation=Normalisation(mean=(0.5,) * channels, std=(0.5,) * channels),  # what `to_pixels` does
            dataset_id=data,
            train_size=len(images),
            training=self._recipe(),
            weights_sha256=sha256_hex(weights),
            fingerprint=fingerprint,
            private_class_counts=tuple(np.bincount(images.labels, minlength=images.classes).tolist()),
            privacy=made.proof,
        )

    def _recipe(self) -> dict[str, Any]:
        plan, teachers = training_plan(self.config.teachers), self.config.teachers
        fields = ("epochs", "batch_size", "learning_rate", "weight_decay", "shift", "flip")
        kind = plan.model_dump()
        if not kind.get("canaries"):
            kind.pop("canaries", None)  # a teacher without any is the one made before there were canaries
        return kind | {name: getattr(teachers, name) for name in fields} | {"seed": self.seed}

    def _fingerprint(self, data: str) -> str:
        parts = {
            "silo": self.name,
            "dataset_id": data,
            "architecture": self.architecture,
            "width": self.config.teachers.width,
            "training": self._recipe(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _old_manifest(self) -> Manifest | None:
        """The silo's manifest, where it and the weights are whole."""
        try:
            manifest = load_manifest(self.folder)
            read_weights(self.folder, manifest)
        except ManifestError:  # none yet, or of a crash, or damaged: the teacher is made again
            return None
        return manifest

    def _choose_policy(self, old: Manifest | None) -> tuple[Policy, bool]:
        """The policy in force, and whether it is the owner's own file rather than the configuration's."""
        path = self.folder / POLICY_FILE
        if not path.exists():
            return self.policy, False
        if old is not None and old.policy_sha256 == sha256_hex(path.read_bytes()):
            return self.policy, False
        own = load_policy(path)
        return own, own != self.policy

    def _take_up_ledger(self, old: Manifest | None, policy: Policy) -> None:
        """Leaves the population's ledger in place: the one there, or a new one in a new folder."""
        path = self.folder / LEDGER_FILE
        if path.exists() or old is not None:  # a missing one is not begun afresh
            Ledger.open(path, self.population, high_water_mark=mark_path(self.folder, policy)).close()
        else:
            create_ledger(self.folder, self.population, policy).close()

    def _accuracy(self, manifest: Manifest, evaluation: ImageSet) -> float:
        predicted = open_teacher(self.folder, manifest).predict(evaluation.images).argmax(1)
        return float((predicted == evaluation.labels).mean())


def _silent(line: str) -> None:
    """Tells nobody."""
