# SPDX-License-Identifier: Apache-2.0
"""The folder of a silo whose teacher is a torch module of this process: made, gone on with, or given a new module.

    copy the module > try it on invented images > hold it against the policy > folder and ledger > open the gatekeeper

Folder, policy and ledger are a deployed silo's. What stands there is kept: the same module goes on with the same
ledger, another module of the silo's name is a teacher that was replaced, and any other silo is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fedcpsc.errors import ManifestError, SiloError, TeacherError, explain
from fedcpsc.files import durable
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.guarantee import build_mechanism, guarantee_of
from fedcpsc.gatekeeper.opening import begin_ledger, open_gatekeeper
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, mark_path
from fedcpsc.gatekeeper.silo_trial import try_under_policy
from fedcpsc.silos.folder import check_free, check_writable, explained_silo_writes, staged_silo, standing_teacher
from fedcpsc.silos.replacing import Replacement, finish_interrupted
from fedcpsc.silos.take_up import choose_policy, take_up_ledger, write_policy
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, Normalisation, save_manifest, sha256_hex
from fedcpsc.teachers.module_teacher import ENTRY_POINT, FrozenModule, state_bytes
from fedcpsc.teachers.opening import default_batch_size
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.teachers.torch_teacher import TorchTeacher
from fedcpsc.teachers.trying import settle_outputs
from fedcpsc.typed_yaml import validate

__all__ = ["ModuleFacts", "ModuleSilo", "open_module_silo"]

_NO_WEIGHTS = "0" * 64


@dataclass(frozen=True, kw_only=True)
class ModuleFacts:
    """What a silo's owner says of a module.

    Attributes:
        silo: name of the silo; also of the population whose budget its ledger keeps.
        classes: number K of the module's outputs, >= 2.
        class_names: names of the K classes in the order of the outputs; None where they go by number.
        image_shape: shape (C, H, W) of the images that the module takes.
        normalisation: public constants, one for each channel.
        probabilities: whether the outputs are probabilities; None finds out by a trial.
        class_counts: number of private images in each class; None where they are not said, and then never shared.
        policy: policy of the silo; None keeps the one in the folder, and begins with the default one.
    """

    silo: str
    classes: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    normalisation: Normalisation
    probabilities: bool | None = None
    class_counts: tuple[int, ...] | None = None
    policy: Policy | None = None


@dataclass(frozen=True, eq=False)
class ModuleSilo:
    """A silo that is open.

    Attributes:
        folder: path of its folder.
        manifest: manifest of its teacher.
        gatekeeper: gatekeeper of its folder; to be closed by the caller.
        teacher: the module as a teacher, past the gatekeeper: the simulation's measuring instrument.
        notes: sentences for the owner: what a trial showed, and what was replaced or kept.
    """

    folder: Path
    manifest: Manifest
    gatekeeper: Gatekeeper
    teacher: Teacher
    notes: tuple[str, ...]


def open_module_silo(module: nn.Module, facts: ModuleFacts, folder: Path) -> ModuleSilo:
    """Opens the silo in `folder`, which is made where it is not there.

    Args:
        module: classifier that maps normalised float32 [N, C, H, W] to [N, K]; it is copied, and left as it is.
        facts: what its owner says of it.
        folder: folder of the silo: new, empty, or made by this function before.

    Raises:
        ConfigError: where the facts do not fit together.
        TeacherError: where the module cannot be copied, fails its trial, or does not fit the facts.
        PolicyError: where the policy cannot be honoured with this module.
        ManifestError, LedgerError, SiloError: where what lies in the folder is damaged, is another silo, or cannot be
            written; it is left as it is.
    """
    network = FrozenModule(module, facts.silo)
    weights = state_bytes(network.network, facts.silo)
    kept = finish_interrupted(folder, lambda line: None) if folder.is_dir() else None
    old = _standing(folder, facts.silo)
    given = facts.policy or (Policy() if old is None else load_policy(folder / POLICY_FILE))
    policy, owners = choose_policy(folder, old, given)
    stays = owners or (old is not None and facts.policy is None)
    manifest, said = _manifest(network, facts, weights)
    teacher = TorchTeacher(network, manifest, policy.service.batch_size or default_batch_size(manifest.image_shape))
    build_mechanism(policy, manifest)  # before a minute is spent on a trial
    notes = [*said, *try_under_policy(teacher, manifest, policy).warnings]
    if old is None:
        _make(folder, weights, manifest, policy)
    else:
        kept = _take_up(folder, weights, manifest, policy, old, stays=stays) or kept
    if owners:
        notes.append(f"{POLICY_FILE} was edited by its owner, and holds; the policy that was given does not")
    if kept is not None:
        notes.append(f"the teacher was replaced: the one before it is kept in {kept}, and the ledger goes on")
    gatekeeper = open_gatekeeper(folder, tried=False, teacher=teacher)
    if policy.answers > (most := gatekeeper.ledger.status().budget.answers):
        notes.append(
            f"the policy says {policy.answers:,} answers, and the ledger's {most:,} hold: fedcpsc ledger raise"
        )
    return ModuleSilo(folder, manifest, gatekeeper, teacher, tuple(notes))


def _standing(folder: Path, name: str) -> Manifest | None:
    """The manifest of the module that stands in the folder; None where the folder is free.

    Raises:
        ManifestError, SiloError: where something else lies there.
    """
    old = standing_teacher(folder)
    if old is None:
        check_free(folder)
        return None
    check_writable(folder)
    if old.entry_point != ENTRY_POINT:
        shown = f"is the silo {old.silo!r}, whose teacher is a file (kind {old.kind})"
        raise SiloError(explain("silo", str(folder), shown, "name another folder, or give this one as a model itself"))
    if old.silo != name:
        shown = f"is the silo {old.silo!r}, and its ledger is of that silo's population"
        raise SiloError(explain(name, str(folder), shown, "give the models in the same order, or name another folder"))
    return old


def _manifest(network: FrozenModule, facts: ModuleFacts, weights: bytes) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest, and sentences about what a trial showed.

    Raises:
        ConfigError: where the facts do not fit together.
        TeacherError: where the module does not fit them.
    """
    kind, digest = type(network.network), sha256_hex(weights)
    known = {
        "silo": facts.silo,
        "population": facts.silo,
        "origin": "adopted",
        "kind": "python",
        "architecture": kind.__qualname__,
        "width": 1,
        "entry_point": ENTRY_POINT,
        "classes": facts.classes,
        "class_names": facts.class_names,
        "image_shape": facts.image_shape,
        "normalisation": facts.normalisation,
        "probabilities": bool(facts.probabilities),
        "train_size": None if facts.class_counts is None else sum(facts.class_counts),
        "private_class_counts": facts.class_counts,
        "training": {"kind": "plain", "by": "its owner", "module": f"{kind.__module__}.{kind.__qualname__}"},
        "weights_sha256": digest,
        "fingerprint": _NO_WEIGHTS,
    }
    manifest = validate(Manifest, known, facts.silo)
    try:
        found = settle_outputs(TorchTeacher(network, manifest, 4), facts.probabilities, facts.silo)
    except ManifestError as error:
        raise TeacherError(str(error)) from error
    except Exception as error:  # the module's own code: whatever it raises, on images that are nobody's
        shown = f"failed on invented images of {facts.image_shape} ({type(error).__name__}: {error})"
        remedy = "check image_shape=(C, H, W), and that it takes float32 [N, C, H, W]"
        raise TeacherError(explain(facts.silo, kind.__qualname__, shown, remedy)) from error
    if found.number != facts.classes:
        shown = f"the module has {found.number} outputs"
        remedy = "name exactly the classes that it was trained with, in the order of its outputs"
        raise TeacherError(explain(f"{facts.silo}: classes", facts.classes, shown, remedy))
    decides = {
        "weights": digest,
        "image_shape": facts.image_shape,
        "normalisation": facts.normalisation.model_dump(mode="json"),
        "probabilities": bool(found.probabilities),
    }
    fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    changes = {"probabilities": bool(found.probabilities), "fingerprint": fingerprint}
    return manifest.model_copy(update=changes), found.notes


def _make(folder: Path, weights: bytes, manifest: Manifest, policy: Policy) -> None:
    """Makes a new silo's folder, whole or not at all."""
    with staged_silo(folder, mark_path(Path(), policy)) as staging:
        (staging / WEIGHTS_FILE).write_bytes(weights)
        save_manifest(write_policy(manifest, policy, staging), staging)
        with contextlib.closing(begin_ledger(staging)) as ledger:
            guarantee_of(policy, manifest, ledger)  # what the gatekeeper would refuse is refused now


def _take_up(
    folder: Path, weights: bytes, manifest: Manifest, policy: Policy, old: Manifest, *, stays: bool
) -> Path | None:
    """Goes on with the silo that stands there; returns the folder that keeps its teacher where this is another one.

    Args:
        stays: whether the policy that lies there is the one in force, and stays as it is.
    """
    ledger = take_up_ledger(folder, manifest.population, manifest.unit, policy, old)
    with contextlib.closing(ledger):
        guarantee_of(policy, manifest, ledger)  # a module that cannot be promised replaces none
        if manifest.fingerprint != old.fingerprint:
            replacement = Replacement(folder)
            with replacement.staging() as staged:
                with durable(staged / WEIGHTS_FILE) as file:
                    file.write(weights)
                save_manifest(manifest if stays else write_policy(manifest, policy, staged), staged)
            return replacement.commit(ledger)
        with explained_silo_writes(folder):
            kept_hash = manifest.model_copy(update={"policy_sha256": old.policy_sha256})
            changed = kept_hash if stays else write_policy(manifest, policy, folder)
            if changed != old:
                save_manifest(changed, folder)
    return None
