# SPDX-License-Identifier: Apache-2.0
"""A silo's folder around a teacher that needs no torch."""

from pathlib import Path
from typing import Any

from fedcpsc.gatekeeper.opening import begin_ledger
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, save_policy
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, Normalisation, save_manifest, sha256_hex

SHAPE = (1, 8, 8)


def make_folder(folder: Path, weights: bytes = b"128", policy: dict[str, Any] | None = None, **fields: Any) -> Manifest:
    """`teacher.safetensors`, `manifest.json`, `policy.yaml` and a fresh ledger in `folder`."""
    facts: dict[str, Any] = {
        "silo": "north",
        "kind": "python",
        "architecture": "python",
        "entry_point": "support.brightness_teacher:make",
        "width": 1,
        "classes": 2,
        "image_shape": SHAPE,
        "normalisation": Normalisation(),
        "population": "people of the north",
        "train_size": 20_000,
        "training": {},
        "weights_sha256": sha256_hex(weights),
        "fingerprint": "2" * 64,
        "private_class_counts": (15_000, 5_000),
    }
    manifest = Manifest.model_validate(facts | fields)
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    save_manifest(manifest, folder)
    save_policy(Policy.model_validate(policy or {"answers": 100, "images_per_query": 50}), folder / POLICY_FILE)
    begin_ledger(folder).close()
    return manifest
