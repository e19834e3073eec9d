# SPDX-License-Identifier: Apache-2.0
"""The simulation's measuring instrument: teachers read straight from the silos' folders, past gatekeeper and budget.

Only a simulated run has these folders at hand; a deployment knows nothing of a teacher but its answers.
"""

from __future__ import annotations

from pathlib import Path

from fedcpsc.distillation.evaluate import SiloFacts
from fedcpsc.distillation.transport import SiloId
from fedcpsc.teachers.manifest import MANIFEST_FILE, load_manifest
from fedcpsc.teachers.opening import open_teacher

__all__ = ["facts_of", "read_silo_facts"]


def read_silo_facts(folder: Path) -> dict[SiloId, SiloFacts]:
    """The facts of every silo in `folder`, by the silo's name.

    Raises:
        ManifestError: where a teacher and its manifest disagree.
    """
    return {
        load_manifest(silo).silo: facts_of(silo)
        for silo in sorted(path.parent for path in folder.glob(f"*/{MANIFEST_FILE}"))
    }


def facts_of(silo: Path) -> SiloFacts:
    """The facts of one silo.

    Args:
        silo: folder of the silo.

    Raises:
        ManifestError: where teacher and manifest disagree.
    """
    manifest = load_manifest(silo)
    return SiloFacts(manifest.train_size, open_teacher(silo, manifest).predict)
