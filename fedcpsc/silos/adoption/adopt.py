# SPDX-License-Identifier: Apache-2.0
"""Makes a silo's folder of a finished model: recognised, tried, and written whole or not at all.

    recognise the file > ask for what it does not say > open it as the gatekeeper will > choose a batch > try it
    > look at the owner's pictures > begin the ledger > put the folder in its place

What stands in the folder's place is never overwritten. Nothing is charged.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.class_names import moved_name
from fedcpsc.errors import ConfigError, ManifestError, explain
from fedcpsc.gatekeeper.guarantee import build_mechanism, guarantee_of
from fedcpsc.gatekeeper.opening import begin_ledger
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, mark_path, save_policy
from fedcpsc.gatekeeper.silo_trial import try_under_policy
from fedcpsc.silos.adoption.own_pictures import PictureView, look_at_pictures
from fedcpsc.silos.adoption.wishes import Wishes, ask_for_the_rest, named_normalisation
from fedcpsc.silos.folder import check_free, staged_silo
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, save_manifest, sha256_hex
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.recognise import recognise
from fedcpsc.teachers.recognised import Recognised, overruled
from fedcpsc.teachers.trial import TrialResult, batch_that_fits
from fedcpsc.typed_yaml import validate

__all__ = ["Adopted", "adopt"]

_LARGEST_BATCH = 500
_NONE = "none of these"
_SHOWN = 5  # names in a note


@dataclass(frozen=True)
class Adopted:
    """A silo that was made of a finished model.

    Attributes:
        folder: path of the silo's folder.
        manifest: manifest of its teacher.
        policy: policy of the silo.
        trial: what came of trying the teacher.
        notes: sentences: what was found in the file, and changed for the silo.
        pictures: what the model makes of its owner's pictures; None where none were given.
    """

    folder: Path
    manifest: Manifest
    policy: Policy
    trial: TrialResult
    notes: tuple[str, ...]
    pictures: PictureView | None


def adopt(model: str | Path, silo_dir: str | Path, wishes: Wishes, pictures: str | Path | None = None) -> Adopted:
    """Makes a silo's folder of a finished model.

    Args:
        model: path of the model's file, or of its folder in Hugging Face form.
        silo_dir: folder to make; it must not exist, or be empty.
        wishes: what the owner says of the model.
        pictures: folder of the owner's own pictures, to look at what the model makes of them.

    Raises:
        ConfigError: where something is said wrong, or not said; all that is missing is named at once.
        ManifestError: where the file is no model that can become a teacher.
        TeacherError: where the model fails its trial.
        PolicyError: where the policy cannot be honoured with this model.
        DataError: where the pictures cannot be read.
        SiloError: where the folder holds something, or cannot be written.
    """
    folder = Path(silo_dir)
    check_free(folder)
    found = _recognised(Path(model), wishes)
    ask_for_the_rest(found, wishes)
    names, notes = _names(found, wishes)
    manifest = _manifest(found, names, wishes, Path(model), folder)
    build_mechanism(wishes.policy, manifest)  # before a minute is spent on a trial
    with staged_silo(folder, mark_path(Path(), wishes.policy)) as staging:
        (staging / WEIGHTS_FILE).write_bytes(found.weights)
        save_manifest(manifest, staging)
        policy = _with_batch(wishes.policy, manifest, staging)
        teacher = open_teacher(staging, manifest, policy.service.batch_size, policy.service.device)
        trial = try_under_policy(teacher, manifest, policy)
        seen = None
        if pictures is not None:
            names = (*(manifest.class_names or ()), *([_NONE] if manifest.none_class else []))
            batch = policy.service.batch_size
            seen = look_at_pictures(
                Path(pictures),
                manifest,
                names,
                lambda as_said: open_teacher(staging, as_said, batch, policy.service.device),
            )
        save_policy(policy, staging / POLICY_FILE)
        with contextlib.closing(begin_ledger(staging)) as ledger:
            guarantee_of(policy, manifest, ledger)  # what the gatekeeper would refuse is refused now
    way = overruled("resizing by", wishes.resize, found.resize, "the model's folder")
    return Adopted(folder, manifest, policy, trial, (*wishes.notes, *found.notes, *notes, *way), seen)


def _recognised(model: Path, wishes: Wishes) -> Recognised:
    """What the file is, with the owner's hints; a normalisation by name needs the number of channels first."""
    outputs = None if wishes.class_names is None else len(wishes.class_names) + wishes.none_class
    hints = dataclasses.replace(wishes.hints, outputs=outputs)
    channels = None if hints.image_shape is None else hints.image_shape[0]
    found = None
    if wishes.normalisation is not None and channels is None:
        found = recognise(model, hints)
        channels = found.image_shape[0] if found.image_shape else found.channels
    if wishes.normalisation is not None and channels is not None:
        hints = dataclasses.replace(hints, normalisation=named_normalisation(wishes.normalisation, channels))
        found = None
    found = found or recognise(model, hints)
    if wishes.kind is not None and found.kind != wishes.kind:
        constraint = f"the file is read as kind {found.kind}"
        raise ManifestError(explain("--kind", wishes.kind, constraint, f"leave --kind out, or say {found.kind}"))
    return found


def _manifest(found: Recognised, names: tuple[str, ...], wishes: Wishes, model: Path, folder: Path) -> Manifest:
    counts = wishes.class_counts
    if counts is not None and len(counts) != len(names):
        constraint = f"must be {len(names)} numbers, one for each class"
        raise ConfigError(explain("--class-counts", list(counts), constraint, "name all, 0 where there are none"))
    digest = sha256_hex(found.weights)
    facts = {
        "silo": wishes.silo or _named_by(folder),
        "population": wishes.population,
        "origin": "adopted",
        "kind": found.kind,
        "architecture": found.architecture,
        "width": found.width,
        "entry_point": found.entry_point,
        "classes": len(names),
        "class_names": names,
        "none_class": wishes.none_class,
        "image_shape": found.image_shape,
        "normalisation": found.normalisation,
        "probabilities": bool(found.probabilities),
        "resize": wishes.resize or found.resize or "squash",
        "train_size": None if counts is None else sum(counts),
        "private_class_counts": counts,
        "training": {"kind": "plain", "by": "its owner", "adopted_from": model.name},
        "weights_sha256": digest,
        "fingerprint": digest,
    }
    return validate(Manifest, facts, str(model))


def _names(found: Recognised, wishes: Wishes) -> tuple[tuple[str, ...], list[str]]:
    """The names of the classes: the owner's, or the file's own; and sentences about where the two differ.

    Raises:
        ConfigError: where neither says them, or a name that both have stands at unlike outputs.
    """
    own, said = found.class_names, wishes.class_names
    if own is None and said is None:
        raise ConfigError(explain("--classes", None, "must name the classes", "give a file with one a line"))
    if own is None:
        return said or (), []
    notes = []
    if wishes.none_class:
        notes.append(f"the last output, which the model calls {own[-1]!r}, is taken to say none of the classes")
    if said is None:
        return (own[:-1] if wishes.none_class else own), notes
    if (moved := moved_name(said, own)) is not None:
        place, other = moved
        shown = f"output {other} by the model's own names ({', '.join(own[:_SHOWN])})"
        remedy = "leave --classes out, or use the model's order; where the model is wrong, fix its names first"
        raise ConfigError(explain("--classes", said[place], f"is output {place} there, and {shown}", remedy))
    unlike = [f"{name!r} for {own[place]!r}" for place, name in enumerate(said) if name != own[place]]
    if unlike:
        more = f" and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else ""
        notes.append(f"--classes names outputs unlike the model itself: {', '.join(unlike[:_SHOWN])}{more}")
    return said, notes


def _named_by(folder: Path) -> str:
    name = folder.resolve().name
    return f"silo-{name}" if name.isdecimal() else name


def _with_batch(policy: Policy, manifest: Manifest, staging: Path) -> Policy:
    """The policy with a batch size that fits, unless its owner named one."""
    if "batch_size" in policy.service.model_fields_set:
        return policy
    largest = min(_LARGEST_BATCH, policy.images_per_query)
    teacher = open_teacher(staging, manifest, largest, policy.service.device)
    fits = batch_that_fits(teacher, manifest.image_shape, largest)
    return policy.model_copy(update={"service": policy.service.model_copy(update={"batch_size": fits})})
