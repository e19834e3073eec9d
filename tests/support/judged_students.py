# SPDX-License-Identifier: Apache-2.0
"""A silo that judges students on eight kinds of held-out images, and students whose number of right ones is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save

from fedcpsc.gatekeeper.evaluating import StudentJudge, predictions
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.guarantee import guarantee_of, initial_budget
from fedcpsc.gatekeeper.held_out import HeldOut
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.ledger.ledger import Ledger
from fedcpsc.models.adapted import stored_tensors
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.models.registry import build_classifier
from fedcpsc.protocol.evaluation import EvaluationQuery
from fedcpsc.teachers.manifest import Manifest, Normalisation

SHAPE, CLASSES, WIDTH, COUNT = (1, 8, 8), 3, 2, 40
NAMES = ("ant", "bee", "cat")
NOISE_ONLY = {"kind": "noise_only", "sigma": 50.0, "epsilon": 4.0}


class ConstantTeacher:
    """Says the same of every image."""

    classes = CLASSES
    image_shape = SHAPE

    def predict(self, images: Any) -> Any:
        return np.full((len(images), CLASSES), 1 / CLASSES, np.float32)


def held_out_images(count: int = COUNT, seed: int = 0) -> HeldOut:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return HeldOut(images, rng.integers(0, CLASSES, count))


def a_manifest(**fields: Any) -> Manifest:
    facts: dict[str, Any] = {
        "silo": "north",
        "architecture": "convnet",
        "width": WIDTH,
        "classes": CLASSES,
        "class_names": NAMES,
        "image_shape": SHAPE,
        "normalisation": Normalisation(),
        "population": "patients",
        "train_size": 15,
        "training": {"kind": "plain"},
        "weights_sha256": "1" * 64,
        "fingerprint": "2" * 64,
        "private_class_counts": (5, 5, 5),
    }
    return Manifest.model_validate(facts | fields)


def a_policy(evaluation: dict[str, Any] | None, **fields: Any) -> Policy:
    return Policy.model_validate({"answers": 100, "evaluation": evaluation, **fields})


def begun(folder: Path, policy: Policy, manifest: Manifest) -> Ledger:
    budget = initial_budget(policy, manifest.unit)
    path = folder / "ledger.sqlite"
    return Ledger.create(path, "patients", budget.answers, mu2=budget.mu2, unit=manifest.unit)


def judging(folder: Path, policy: Policy, held_out: HeldOut | None = None, **fields: Any) -> Gatekeeper:
    """A silo with a new ledger in `folder`; `fields` are of its manifest."""
    manifest = a_manifest(**fields)
    return judging_over(begun(folder, policy, manifest), policy, manifest, held_out)


def judging_over(ledger: Ledger, policy: Policy, manifest: Manifest, held_out: HeldOut | None = None) -> Gatekeeper:
    """The same over a ledger that is open."""
    guarantee = guarantee_of(policy, manifest, ledger)
    section, images = policy.evaluation, held_out or held_out_images()
    judge = None if section is None else StudentJudge(section, images, CLASSES, NAMES, ledger, guarantee)
    return Gatekeeper("north", "model", ConstantTeacher(), policy, ledger, guarantee, class_names=NAMES, judge=judge)


def a_student(seed: int = 0) -> HeadedClassifier:
    return build_classifier("convnet", CLASSES, SHAPE, WIDTH, seed=seed)


def sent(number: int = 1, network: HeadedClassifier | None = None, **fields: Any) -> EvaluationQuery:
    """A query about a student, by default that of seed 0."""
    weights = np.frombuffer(save(stored_tensors(network or a_student())), np.uint8)
    facts: dict[str, Any] = {
        "query_id": f"{number:032x}",
        "architecture": "convnet",
        "width": WIDTH,
        "classes": CLASSES,
        "image_shape": SHAPE,
        "outputs": (0, 1, 2),
        "weights": weights,
        "class_names": NAMES,
        "run": "r",
    }
    return EvaluationQuery(**(facts | fields))


def truly_right(held_out: HeldOut | None = None, seed: int = 0) -> int:
    """What a student of this project's own would count without a gatekeeper."""
    network = a_student(seed).eval()
    images = held_out or held_out_images()
    return int((predictions(network, images) == images.labels).sum())
