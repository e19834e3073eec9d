# SPDX-License-Identifier: Apache-2.0
"""What a run's transcript gives away besides membership: look-alikes of private images, class mixes, the teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min

from fedcpsc.audit.copying import copy_test, neighbour_test, pixel_features
from fedcpsc.audit.figures import Plot
from fedcpsc.audit.finished_run import FinishedRun
from fedcpsc.audit.label_mix import label_mix_leak
from fedcpsc.audit.plan import AuditConfig
from fedcpsc.audit.plots import save_neighbours
from fedcpsc.audit.run import net_of
from fedcpsc.audit.shadows import distil_students, predict_shadows
from fedcpsc.audit.silo_under_audit import SiloUnderAudit
from fedcpsc.audit.stealing import answers_epsilon, stealing_curve
from fedcpsc.seeding import derive_seed, numpy_generator

__all__ = ["copying", "label_mixes", "stealing"]

_MOST_IMAGES = 2000
_LEAST_IMAGES = 50  # of the generator's own, for a test of them alone
_SHOWN = 12


def copying(run: FinishedRun, folder: Path, seed: int) -> tuple[list[Mapping[str, Any]], list[Plot]]:
    """Do query images look like private ones more than chance allows? Each silo's images against held-out ones.

    The generator's images where the bank has enough, else all of its images. Distances are of pixels: nothing learnt.

    Returns:
        A row a silo; a private picture a silo of the nearest pairs.
    """
    made_by_generator = np.flatnonzero(np.asarray(run.bank.pseudo_labels) >= 0)
    enough = len(made_by_generator) >= _LEAST_IMAGES
    rows = made_by_generator if enough else run.bank.answered_rows()
    rng = numpy_generator(seed, "audit", "copying")
    if len(rows) > _MOST_IMAGES:
        rows = np.sort(rng.choice(rows, _MOST_IMAGES, replace=False))
    images = np.array(run.bank.images[rows])
    made, held_out = pixel_features(images), pixel_features(run.held_out.images)
    found: list[Mapping[str, Any]] = []
    pictures: list[Plot] = []
    for silo in run.silos:
        private = pixel_features(silo.images.images)
        test, nearest = copy_test(private, held_out, made), neighbour_test(private, held_out, made, rng)
        figures = {f"copy_{key}": value for key, value in asdict(test).items()}
        figures |= {f"nearest_{key}": value for key, value in asdict(nearest).items()}
        source = "generator" if enough else "generator and prior"
        found.append({"silo": silo.name, "images": len(made), "made_by": source, **figures})
        theirs, distances = pairwise_distances_argmin_min(made, private)
        closest = np.argsort(distances, kind="stable")[:_SHOWN]
        pairs = images[closest], silo.images.images[theirs[closest]]
        pictures.append(save_neighbours(folder, silo.name, *pairs, distances[closest]))
    return found, pictures


def label_mixes(run: FinishedRun) -> list[Mapping[str, Any]]:
    """Each silo's mix of classes, guessed from its answers; the truth beside it makes the row the owner's own."""
    found: list[Mapping[str, Any]] = []
    for silo in run.silos:
        if silo.manifest.private_class_counts is None:
            continue
        _, answers = run.answered_by(silo.name)
        own = answers[:, list(silo.label_sets.places[silo.number])]
        leak = label_mix_leak(own, silo.manifest.private_class_counts)
        found.append({"silo": silo.name, "answers": len(answers), **asdict(leak), "private": True})
    return found


def stealing(run: FinishedRun, config: AuditConfig) -> list[Mapping[str, Any]]:
    """How like each teacher a copy is that was fitted to its answers alone, against their number."""
    found: list[Mapping[str, Any]] = []
    for silo in run.silos:
        images, answers = run.answered_by(silo.name)
        counts = sorted({min(count, len(images)) for count in config.students.answers})
        copies = [(count, _copy(run, config, silo, images[:count], answers[:count])) for count in counts]
        curve = stealing_curve(silo.own(run.held_out.images), copies, run.held_out.labels, _epsilon_of(silo))
        for point in curve:
            found.append(
                {"silo": silo.name, "answers": point.answers, "epsilon": point.epsilon, **asdict(point.likeness)}
            )
    return found


def _copy(run: FinishedRun, config: AuditConfig, silo: SiloUnderAudit, images: Any, answers: Any) -> Any:
    net, seed = net_of(config.students, run.held_out), derive_seed(config.seed, "steal", silo.name)
    return predict_shadows(
        net, distil_students(net, images, answers[np.newaxis], config.students, [seed]), run.held_out.images
    )[0]


def _epsilon_of(silo: SiloUnderAudit) -> Callable[[int], float] | None:
    """What so many answers cost: nothing beyond the training's epsilon, or what the ledger charges."""
    claim, cost = silo.claim, silo.mechanism.cost()
    if claim is None:
        return None
    return (lambda answers: answers_epsilon(answers, cost, silo.delta)) if cost else (lambda _: claim)
