# SPDX-License-Identifier: Apache-2.0
"""Silos whose teacher this project did not train: they are used as they are.

Their folder is read, never written: no private data is looked for, nothing is trained, policy and ledger stay their
owner's. Only the gatekeeper, when it is asked, charges the ledger. Whether such a silo fits the run is checked before
any silo is asked anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.errors import ConfigError, FederationError, explain
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy, mark_path
from fedcpsc.gatekeeper.silo_trial import try_under_policy
from fedcpsc.label_sets import Aliases, SiloClasses, unite
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.silos.folder import check_writable, standing_teacher
from fedcpsc.silos.report import SiloReport
from fedcpsc.teachers.manifest import Manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.protocol import Teacher

__all__ = [
    "accuracy_of",
    "adopted_silos",
    "check_classes",
    "check_fit",
    "check_names",
    "check_no_adopted",
    "classes_of",
    "use_adopted",
]


def adopted_silos(base: Path, silos: Iterable[int]) -> dict[int, Manifest]:
    """Manifests of those silos in `<base>/<number>` whose teacher is adopted, by the silo's number.

    Raises:
        ManifestError: where a folder holds a teacher that is damaged, or of a version that must be migrated.
    """
    standing = {silo: standing_teacher(base / str(silo)) for silo in silos}
    return {silo: manifest for silo, manifest in standing.items() if manifest and manifest.origin == "adopted"}


def check_no_adopted(config: RunConfig, option: str, value: object, remedy: str) -> None:
    """Does nothing where all silos in `silos.root` are trained here, so that others like them can be trained elsewhere.

    Args:
        config: configuration of the run.
        option: name of the option that asks for silos in another folder.
        value: value of that option.
        remedy: advice what to do instead.

    Raises:
        ConfigError: an adopted silo lies there, and a teacher trained in its place would be another one.
        ManifestError: a folder there holds a teacher that is damaged, or must be migrated.
    """
    adopted = adopted_silos(Path(config.silos.root).absolute(), range(config.silos.count))
    if adopted:
        names = ", ".join(manifest.silo for manifest in adopted.values())
        constraint = f"takes silos from another folder than {config.silos.root}, which holds adopted teachers ({names})"
        raise ConfigError(explain(option, value, constraint, remedy))


def check_fit(
    adopted: Mapping[int, Manifest], wanted: SiloClasses, image_shape: tuple[int, int, int], whose: str
) -> None:
    """Does nothing where every adopted teacher takes such images and, where one of both names none, as many classes.

    Classes with names are united by these (`check_classes`).

    Args:
        adopted: manifests of the adopted silos.
        wanted: classes that are wanted.
        image_shape: (C, H, W) that is wanted.
        whose: what has those classes and that shape, for the error.

    Raises:
        FederationError: naming the silo, what its teacher has and what is wanted.
    """
    remedy = "let the run's data have what the adopted teacher has, or leave that silo out"
    for silo, manifest in adopted.items():
        name = f"silo {silo} ({manifest.silo})"
        if manifest.image_shape != image_shape:
            shown = f"{whose} have image_shape {image_shape}, and an adopted teacher is used as it is"
            with_data = f"set data.image_size and data.channels; or {remedy}"
            raise FederationError(explain(f"{name}: image_shape", manifest.image_shape, shown, with_data))
        named = wanted.names is not None and manifest.class_names is not None
        if manifest.classes != wanted.classes and not named:
            shown = f"{whose} have {wanted.classes} classes, and an adopted teacher is used as it is"
            raise FederationError(explain(f"{name}: classes", manifest.classes, shown, remedy))


def check_classes(said: Mapping[str, SiloClasses], evaluation: ImageSet | None, aliases: Aliases) -> None:
    """Does nothing where the silos' classes can be united, and the held-out images are of some of them.

    Args:
        said: classes of the silos that are known so far, by the silo's name.
        evaluation: held-out images; None where there are none.
        aliases: words that stand for others of the federation.

    Raises:
        FederationError: they cannot; before anything is trained or asked.
    """
    if not said:
        return
    united = unite(said, aliases, complete=False)
    if evaluation is not None and evaluation.class_names is not None and united.names is not None:
        united.place_of(evaluation.class_names, aliases)


def classes_of(manifest: Manifest) -> SiloClasses:
    """What a silo will say of its classes."""
    return SiloClasses(manifest.classes, manifest.class_names, manifest.none_class)


def check_names(names: Mapping[int, str]) -> None:
    """Does nothing where every silo has a name of its own.

    Args:
        names: the silos' names, by number.

    Raises:
        FederationError: naming two silos that share one.
    """
    seen: dict[str, int] = {}
    for silo, name in names.items():
        if name in seen:
            both = f"silos {seen[name]} and {silo} have this name"
            raise FederationError(explain("silo", name, both, "give each silo its own name in its manifest.json"))
        seen[name] = silo


def use_adopted(folder: Path, manifest: Manifest, evaluation: ImageSet | None, aliases: Aliases) -> SiloReport:
    """Opens an adopted silo once, as its gatekeeper will, tries its teacher, and leaves it as it is.

    Args:
        folder: folder of the silo.
        manifest: manifest of its teacher.
        evaluation: held-out images to measure the teacher with; None measures nothing.
        aliases: words that stand for others of the federation.

    Raises:
        ManifestError: where the teacher cannot be opened.
        TeacherError: where it fails its trial, or gives something that is no answer.
        PolicyError: where `policy.yaml` is missing or cannot be honoured.
        SiloError: where the folder is read-only.
        LedgerError: where the ledger is missing, damaged, or of another population or unit.
    """
    started = time.monotonic()
    check_writable(folder)
    policy = load_policy(folder / POLICY_FILE)
    mark = mark_path(folder, policy)
    Ledger.open(folder / LEDGER_FILE, manifest.population, unit=manifest.unit, high_water_mark=mark).close()
    teacher = open_teacher(folder, manifest, policy.service.batch_size, policy.service.device)
    try_under_policy(teacher, manifest, policy)
    return SiloReport(
        silo=manifest.silo,
        folder=folder,
        architecture=manifest.architecture,
        train_size=manifest.train_size,
        reused=True,
        policy_kept=True,
        accuracy=accuracy_of(teacher, manifest, evaluation, aliases),
        seconds=time.monotonic() - started,
        adopted=True,
    )


def accuracy_of(teacher: Teacher, manifest: Manifest, evaluation: ImageSet | None, aliases: Aliases) -> float | None:
    """Share of the held-out images that a teacher classifies right, in [0, 1]; None without images.

    Classes are compared by name, where both have names; an image of a class that the teacher does not know counts as
    wrong. The most probable of the K classes counts, also where "none of these" is more probable: whether a silo knows
    an image at all is weighed in the ensemble.

    Args:
        teacher: teacher.
        manifest: its manifest.
        evaluation: held-out images; None where there are none.
        aliases: words that stand for others of the federation.
    """
    if evaluation is None:
        return None
    labels = evaluation.labels
    if manifest.class_names is not None and evaluation.class_names is not None:
        own = {aliases.get(name, name): place for place, name in enumerate(manifest.class_names)}
        places = [own.get(aliases.get(name, name), -1) for name in evaluation.class_names]
        labels = np.array(places, np.int64)[labels]
    chosen = teacher.predict(evaluation.images)[:, : manifest.classes].argmax(1)
    return float((chosen == labels).mean())
