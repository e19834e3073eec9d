# SPDX-License-Identifier: Apache-2.0
"""The trial of a silo's own teacher, with the sizes that its policy allows; nothing is charged."""

from __future__ import annotations

from pathlib import Path

from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy
from fedcpsc.teachers.manifest import Manifest, load_manifest
from fedcpsc.teachers.opening import default_batch_size, open_teacher
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.teachers.trial import TrialResult, try_teacher

__all__ = ["try_in_folder", "try_under_policy"]


def try_under_policy(teacher: Teacher, manifest: Manifest, policy: Policy) -> TrialResult:
    """Tries a teacher on the largest forward pass that a query can bring.

    Args:
        teacher: teacher, opened with the policy's `service.batch_size`.
        manifest: manifest of the teacher.
        policy: policy of the silo.

    Raises:
        TeacherError: where it fails.
    """
    shape = manifest.image_shape
    usual = policy.service.batch_size or default_batch_size(shape, policy.service.device)
    size = min(usual, policy.images_of_a_query(shape))
    return try_teacher(teacher, shape, size, from_elsewhere=manifest.origin == "adopted")


def try_in_folder(silo_dir: str | Path) -> TrialResult:
    """Opens a silo's teacher and tries it; its ledger is neither needed nor opened.

    Raises:
        ManifestError, PolicyError: where the teacher cannot be opened, or the policy not be read.
        TeacherError: where it fails.
    """
    folder = Path(silo_dir)
    manifest, policy = load_manifest(folder), load_policy(folder / POLICY_FILE)
    return try_under_policy(
        open_teacher(folder, manifest, policy.service.batch_size, policy.service.device), manifest, policy
    )
