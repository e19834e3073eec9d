# SPDX-License-Identifier: Apache-2.0
"""Which of the silos on this machine still hold the teacher that answered a bank's queries, as their ledgers tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.parts import query_ids
from fedcpsc.distillation.transport import SiloId
from fedcpsc.errors import SiloError
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.protocol.query_size import images_of_bytes
from fedcpsc.runs.bank_view import BankView, read_bank
from fedcpsc.runs.descriptions import read_descriptions
from fedcpsc.runs.layout import BANK_FOLDER
from fedcpsc.runs.read import gather
from fedcpsc.simulated.silo_facts import facts_of_silo
from fedcpsc.teachers.manifest import MANIFEST_FILE, load_manifest

__all__ = ["read_answerers"]


def read_answerers(folder: Path, source: Path, tell: Callable[[str], None]) -> dict[SiloId, SiloFacts] | None:
    """Facts of the silos whose teachers gave a run's answers, by the silo's name; each that is missing is told of.

    Args:
        folder: folder of the silos' folders `0`, `1`, ...
        source: folder of the run.
        tell: function called with one line for each silo whose teacher cannot be measured.

    Returns:
        None where the run was no simulation, or no silos lie there: then nothing is told.

    Raises:
        RunError, BankError: the run's folder is damaged.
    """
    run, bank, said = gather(source), read_bank(source / BANK_FOLDER), read_descriptions(source) or {}
    result, fit = run.result, images_of_bytes(run.config.queries.max_megabytes, bank.image_shape)
    here = {path.parent for path in folder.glob(f"*/{MANIFEST_FILE}")}
    if (result is not None and not result.get("simulated", False)) or not here:
        return None
    facts: dict[SiloId, SiloFacts] = {}
    reasons: dict[SiloId, str] = {}
    for silo_dir in sorted(here):
        try:
            manifest = load_manifest(silo_dir)
            if manifest.silo not in bank.silos:
                continue
            most = min(fit, said[manifest.silo].images_per_query) if manifest.silo in said else fit
            answered_by = _models(silo_dir, bank, most)
            if answered_by == {manifest.weights_sha256}:
                facts[manifest.silo] = facts_of_silo(silo_dir, manifest)
            else:
                reasons[manifest.silo] = f"{silo_dir} holds another teacher than the one that answered"
        except SiloError as error:
            reasons[silo_dir.name] = str(error)
    for silo in bank.silos:
        if silo not in facts:
            constraint = reasons.get(silo, f"no folder in {folder} holds its teacher")
            tell(f"{silo}: {constraint}, so that neither teachers nor ensemble are measured")
    return facts


def _models(silo_dir: Path, bank: BankView, most: int) -> set[str]:
    """Versions of the teachers that answered the bank's queries, in parts of at most `most` images.

    Raises:
        LedgerError: the ledger is missing or damaged.
    """
    asked = {number for batch in bank.batches for number in (batch.query_id, *query_ids(batch, most))}
    models: dict[str, str] = {}
    with contextlib.closing(Ledger.read(silo_dir / LEDGER_FILE)) as ledger:
        for row in ledger.export():
            if row["query_id"] in asked and row["kind"] in ("charged", "answered") and row["model"]:
                models[row["query_id"]] = row["model"]  # of `answered`, where another one answered than was charged for
    return set(models.values())
