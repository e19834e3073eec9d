# SPDX-License-Identifier: Apache-2.0
"""Finished runs that a page has trouble with: long names, no held-out images, a hundred classes."""

from pathlib import Path

import numpy as np
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.data.images import ImageSet
from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.protocol.messages import ClassReport

__all__ = ["LONG_CLASSES", "LONG_SILOS", "make_hundred_classes", "make_long_names", "make_without_held_out"]

LONG_SILOS = (
    "university-hospital-north-cardiology",
    "st-mary-of-the-lakes-general-hospital",
    "regional-diagnostics-centre-south-west",
    "klinikum-rechts-der-isar-pathologie",
    "mobile-screening-unit-7",
)
LONG_CLASSES = (
    "adenocarcinoma of the colon",
    "benign squamous epithelium",
    "lymphocytes",
    "mucus",
    "smooth muscle",
    "cancer-associated stroma",
    "debris",
    "normal colon mucosa",
)


def make_long_names(folder: Path) -> None:
    """Five silos and eight classes with long names, 16x16 in colour; one silo's budget ends early."""
    _make(folder, silos=LONG_SILOS, names=LONG_CLASSES, shape=(3, 16, 16), rounds=12, run="tissue-of-five-hospitals")


def make_without_held_out(folder: Path) -> None:
    """Three silos, four classes by number, and nothing to measure on."""
    _make(
        folder,
        silos=("north", "south", "west"),
        names=None,
        shape=(1, 8, 8),
        rounds=6,
        run="unmeasured",
        measured=False,
    )


def make_hundred_classes(folder: Path) -> None:
    """Three silos, a hundred named classes, 8x8."""
    names = tuple(f"glyph {chr(97 + k // 10)}{k % 10}" for k in range(100))
    _make(folder, silos=("north", "south", "west"), names=names, shape=(1, 8, 8), rounds=8, run="glyphs")


def _make(
    folder: Path,
    *,
    silos: tuple[str, ...],
    names: tuple[str, ...] | None,
    shape: tuple[int, int, int],
    rounds: int,
    run: str,
    measured: bool = True,
) -> None:
    classes = 4 if names is None else len(names)
    each = max(40, 4 * classes)
    config = tiny_config(
        silos__count=len(silos),
        queries__rounds=rounds,
        queries__answers_per_silo=each * rounds,
        queries__deadline_s=30.0,
        student__steps_per_round=6,
        student__committee=1,
        student__final_steps=24,
        synthesis__steps=1,
        synthesis__candidates=1,
        evaluation__every=1,
        aggregation__rule="class_prior_log",
        output__name=run,
    )
    fakes = [
        FakeSilo(
            name,
            classes=classes,
            image_shape=shape,
            class_names=names,
            budget=each * rounds // 2 + 1 if i == 3 else 5000 + 1000 * i,
            class_report=ClassReport(tuple(float(1 + (i * k) % 7) for k in range(classes))),
        )
        for i, name in enumerate(silos)
    ]
    facts = {fake.description.silo: SiloFacts(640 + 111 * i, _forgetful(classes, i)) for i, fake in enumerate(fakes)}
    distill(
        config,
        LocalTransport(fakes),
        folder,
        evaluation=_held_out(classes, shape) if measured else None,
        silo_facts=facts,
    )


def _forgetful(classes: int, silo: int):
    """A teacher that knows a few classes less than the truth."""

    def answer(images: np.ndarray) -> np.ndarray:
        p = brightness_probabilities(images, classes)
        p[:, silo::4] *= 0.3
        return p / p.sum(1, keepdims=True)

    return answer


def _held_out(classes: int, shape: tuple[int, int, int]) -> ImageSet:
    grey = evaluation(6 * classes, classes=classes, side=shape[1])
    return ImageSet(np.repeat(grey.images, shape[0], axis=1), grey.labels, classes)
