# SPDX-License-Identifier: Apache-2.0
"""Opens the gatekeeper of a silo's folder, and begins the ledger of a new one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fedcpsc.errors import explain
from fedcpsc.freed_memory import keep_freed_memory
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.guarantee import Guarantee, guarantee_of, initial_budget
from fedcpsc.gatekeeper.owner_account import OWNER_FILE, OwnerAccount
from fedcpsc.gatekeeper.past_ledgers import check_past
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, mark_path
from fedcpsc.gatekeeper.releases import record_training, report_class_counts
from fedcpsc.gatekeeper.seen_records import check_never_seen
from fedcpsc.gatekeeper.silo_trial import try_under_policy
from fedcpsc.gatekeeper.teacher_version import teacher_version
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.logs import fields
from fedcpsc.teachers.manifest import Manifest, load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.protocol import Teacher

if TYPE_CHECKING:
    from fedcpsc.gatekeeper.evaluating import StudentJudge

__all__ = ["begin_ledger", "create_ledger", "open_gatekeeper"]

log = logging.getLogger("fedcpsc.gatekeeper")


def begin_ledger(silo_dir: str | Path) -> Ledger:
    """A new ledger in a silo's folder, with the budget of its policy and for the population of its manifest.

    Raises:
        ManifestError, PolicyError: where manifest or policy cannot be read.
        LedgerError: where a ledger exists already, or none can be made.
    """
    folder = Path(silo_dir)
    manifest = load_manifest(folder)
    return create_ledger(folder, manifest.population, load_policy(folder / POLICY_FILE), manifest.unit)


def create_ledger(folder: Path, population: str, policy: Policy, unit: str = "record") -> Ledger:
    """A new ledger in `folder`, with the budget of `policy`.

    Raises:
        LedgerError: where a ledger exists already, records of the population were trained on before, or none can be
            made.
    """
    check_never_seen(folder, population)
    budget = initial_budget(policy, unit)
    return Ledger.create(
        folder / LEDGER_FILE,
        population,
        budget.answers,
        mu2=budget.mu2,
        unit=unit,
        delta=getattr(policy.mechanism, "delta", 1e-5),
        high_water_mark=mark_path(folder, policy),
    )


def open_gatekeeper(silo_dir: str | Path, *, tried: bool | None = None, teacher: Teacher | None = None) -> Gatekeeper:
    """The gatekeeper of a silo's folder (`teacher.safetensors`, `manifest.json`, `policy.yaml`, `ledger.sqlite`).

    Args:
        silo_dir: the silo's folder.
        tried: whether the teacher is tried first, on invented images; None: where this project did not train it.
        teacher: teacher of the folder's manifest where it lives in this process alone; None opens the weights file.

    Raises:
        ManifestError: where teacher and manifest are missing or disagree.
        TeacherError: where the teacher fails its trial; the ledger was not opened then.
        PolicyError: where the policy cannot be honoured.
        LedgerError: where the ledger is missing, of another population, tampered with, or not writable.
    """
    keep_freed_memory()
    folder = Path(silo_dir)
    manifest, policy = load_manifest(folder), load_policy(folder / POLICY_FILE)
    if teacher is None:
        teacher = open_teacher(folder, manifest, policy.service.batch_size, policy.service.device)
    if tried or (tried is None and manifest.origin == "adopted"):
        _try(teacher, manifest, policy)
    ledger = Ledger.open(
        folder / LEDGER_FILE, manifest.population, unit=manifest.unit, high_water_mark=mark_path(folder, policy)
    )
    try:
        check_past(folder, manifest.population, ledger)
        if policy.answers > (cap := ledger.status().budget.answers):
            remedy = "raise it with: fedcpsc ledger raise"
            note = explain("policy.answers", policy.answers, f"is more than the ledger's {cap}, which holds", remedy)
            log.warning("the ledger holds less than the policy", extra=fields(silo=manifest.silo, note=note))
        guarantee = guarantee_of(policy, manifest, ledger)
        record_training(manifest, ledger)
        return Gatekeeper(
            silo=manifest.silo,
            model=manifest.weights_sha256,
            teacher=teacher,
            policy=policy,
            ledger=ledger,
            guarantee=guarantee,
            class_names=manifest.class_names,
            none_class=manifest.none_class,
            class_report=report_class_counts(policy, manifest, ledger, guarantee.limit),
            teacher_version=teacher_version(manifest.weights_sha256, ledger, policy, guarantee),
            owner_account=OwnerAccount(folder / OWNER_FILE),
            judge=_judge(folder, policy, manifest, ledger, guarantee),
        )
    except BaseException:
        ledger.close()
        raise


def _judge(
    folder: Path, policy: Policy, manifest: Manifest, ledger: Ledger, guarantee: Guarantee
) -> StudentJudge | None:
    """The judge of students, where the policy has a section for it; the owner's log says what its images lack."""
    section = policy.evaluation
    if section is None:
        return None
    from fedcpsc.gatekeeper.evaluating import StudentJudge  # noqa: PLC0415 - brings torch
    from fedcpsc.gatekeeper.held_out import read_held_out  # noqa: PLC0415 - likewise

    held_out = read_held_out(folder, section, manifest)
    for note in held_out.notes:
        log.warning("held-out images", extra=fields(silo=manifest.silo, note=note))
    return StudentJudge(
        section=section,
        held_out=held_out,
        classes=manifest.classes,
        class_names=manifest.class_names,
        ledger=ledger,
        guarantee=guarantee,
    )


def _try(teacher: Teacher, manifest: Manifest, policy: Policy) -> None:
    """Tries the teacher, and writes into the owner's log what came of it."""
    found = try_under_policy(teacher, manifest, policy)
    log.info("tried the teacher on invented images", extra=fields(silo=manifest.silo, note=str(found)))
    for warning in found.warnings:
        log.warning("the teacher may be wrong", extra=fields(silo=manifest.silo, note=warning))
