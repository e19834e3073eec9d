# SPDX-License-Identifier: Apache-2.0
"""The simulation's measuring instrument: teachers read straight from the silos' folders, past gatekeeper and budget.

Only a simulated run has these folders at hand; a deployment knows nothing of a teacher but its answers.
"""

from __future__ import annotations

from pathlib import Path

from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.transport import SiloId
from fedcpsc.teachers.manifest import MANIFEST_FILE, Manifest, load_manifest
from fedcpsc.teachers.opening import open_teacher

__all__ = ["facts_of_silo", "read_silo_facts"]


def read_silo_facts(folder: Path) -> dict[SiloId, SiloFacts]:
    """The facts of every silo in `folder`, by the silo's name.

    Raises:
        ManifestError: where a teacher and its manifest disagree.
    """
    facts: dict[SiloId, SiloFacts] = {}
    for silo in sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}")):
        manifest = load_manifest(silo)
        facts[manifest.silo] = facts_of_silo(silo, manifest)
    return facts


def facts_of_silo(folder: Path, manifest: Manifest) -> SiloFacts:
    """The facts of one silo.

    Args:
        folder: folder of the silo.
        manifest: its manifest.

    Raises:
        ManifestError: where the teacher and its manifest disagree.
    """
    return SiloFacts(manifest.train_size, open_teacher(folder, manifest).predict)
