# SPDX-License-Identifier: Apache-2.0
"""Copies of a simulated silo as it was made, so that several experiments begin with the same silo.

A copy is what `make_silos` would have made in its folder, less the training: the same teacher, policy and private
files, and a ledger that is begun there, never a copy of one. Nobody may ask the silo that was made: its ledger stays at
its beginning, and every copy begins with the whole budget of the policy.

Each copy is a silo of its own, and its ledger bounds what this copy releases. Together the copies release more than one
budget: that is for experiments on one's own machine, and no promise to people whose records are used.

| edge | |
|---|---|
| a teacher that was adopted, or a policy that was edited | refused: an owner keeps that silo |
| a silo that was asked anything | refused: its copies would begin with a budget that was spent |
| a high-water mark outside the folder | refused: all copies would share it |
| a DP-SGD teacher | the copy's ledger records its training as that of the silo does |
| a copy that a crash cut short | made anew: it has its name only when it is whole |
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from fedcpsc.errors import SiloError, explain
from fedcpsc.files import private_folder, sync
from fedcpsc.gatekeeper.held_out import HELD_OUT_FOLDER
from fedcpsc.gatekeeper.opening import create_ledger
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, mark_path
from fedcpsc.gatekeeper.releases import record_training
from fedcpsc.gatekeeper.seen_records import SEEN_FILE
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.silos.folder import explained_silo_writes
from fedcpsc.teachers.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, load_manifest, read_weights, sha256_hex
from fedcpsc.training.canaries import CANARIES_FILE
from fedcpsc.training.sharding import KEY_FILE

__all__ = ["check_copyable", "replicate"]

_COPIED = (WEIGHTS_FILE, POLICY_FILE, CANARIES_FILE, KEY_FILE, SEEN_FILE, MANIFEST_FILE)


def replicate(made: Path, folder: Path) -> Manifest:
    """Copies a silo that was made and never asked; returns its manifest. A copy that is there already stays as it is.

    Args:
        made: folder of the silo as `make_silos` left it.
        folder: folder of the copy.

    Raises:
        SiloError: the silo may not be copied (the table above), or a folder cannot be read or written.
        ManifestError, LedgerError, PolicyError: the silo is damaged.
    """
    if (folder / MANIFEST_FILE).exists():
        return load_manifest(folder)
    manifest, policy = load_manifest(made), load_policy(made / POLICY_FILE)
    read_weights(made, manifest)
    persons = _unasked_silos_persons(made, manifest, policy)
    partial = folder.with_name(f"{folder.name}.partial")
    with explained_silo_writes(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        with contextlib.closing(create_ledger(partial, manifest.population, policy, manifest.unit)) as ledger:
            ledger.name_persons(persons)
            record_training(manifest, ledger)
        for name in _COPIED:  # after the ledger, which is not begun beside records that were seen
            if (made / name).exists():
                shutil.copy2(made / name, partial / name)
                sync(partial / name)
        _copy_held_out(made / HELD_OUT_FOLDER, partial / HELD_OUT_FOLDER)
        sync(partial)
        partial.rename(folder)
        sync(folder.parent)
    return manifest


def _copy_held_out(made: Path, folder: Path) -> None:
    """Copies the images that were set aside of the silo's (`silos.held_out`), where there are any."""
    if not made.exists():
        return
    private_folder(folder)
    for file in made.iterdir():
        shutil.copy2(file, folder / file.name)
        sync(folder / file.name)
    sync(folder)


def check_copyable(policy: Policy) -> None:
    """Does nothing where silos of this policy can be copied.

    Args:
        policy: policy of the silo.

    Raises:
        SiloError: its high-water mark lies outside the silo's folder.
    """
    mark = policy.high_water_mark
    if mark is not None and (Path(mark).is_absolute() or ".." in Path(mark).parts):
        constraint = "is outside the silo's folder, and copies of the silo would share it"
        raise SiloError(explain("high_water_mark", mark, constraint, "leave it out of the policy"))


def _unasked_silos_persons(made: Path, manifest: Manifest, policy: Policy) -> str:
    """How the silo's ledger tells persons apart, where the silo was made here and nobody has asked it yet."""
    check_copyable(policy)
    remedy = "copy a silo that fedcpsc teachers made, before anybody asks it"
    if manifest.origin != "trained" or manifest.policy_sha256 != sha256_hex((made / POLICY_FILE).read_bytes()):
        constraint = "is kept by its owner (an adopted teacher, or an edited policy)"
        raise SiloError(explain("silo", str(made), constraint, remedy))
    mark = mark_path(made, policy)
    ledger = Ledger.open(made / LEDGER_FILE, manifest.population, unit=manifest.unit, high_water_mark=mark)
    with contextlib.closing(ledger):
        status = ledger.status()
        if status.queries or status.spent.answers or status.spent.mu2:
            raise SiloError(explain("silo", str(made), "was asked already", remedy))
        return ledger.persons()
