# SPDX-License-Identifier: Apache-2.0
"""Accuracy on held-out real images, where a run has any. Nothing read here steers training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.aggregation.reputation import Standing
from fedcpsc.aggregation.rule import AggregationRule
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.transport import SiloId
from fedcpsc.label_sets import LabelSets
from fedcpsc.large_images import images_a_pass, together
from fedcpsc.models.folded import for_inference
from fedcpsc.models.registry import Classifier
from fedcpsc.transfers import uploaded

__all__ = [
    "Ensemble",
    "Matrix",
    "SiloFacts",
    "accuracy",
    "accuracy_of",
    "confusion",
    "evaluate_ensemble",
    "predict",
    "predicted_classes",
]

Matrix: TypeAlias = npt.NDArray[np.int64]
"""Confusion: how many images of each true class (rows) were called each class (columns), [K, K]."""
_TOGETHER = 2000  # images that all teachers are asked about at a time
Predict: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class SiloFacts:
    """What only a simulation knows of a silo: its measuring instrument, outside protocol and budget.

    Attributes:
        train_size: number of private images that its teacher was trained on; None where nobody says.
        predict: the teacher itself, uint8 [N, C, H, W] -> float32 [N, its columns].
    """

    train_size: int | None
    predict: Predict


def predict(
    network: Classifier, images: npt.NDArray[np.uint8], batch_size: int | None = None
) -> npt.NDArray[np.float32]:
    """Class probabilities float32 [N, K]; leaves the network's mode as it was, and draws no random number.

    Args:
        network: network in any mode.
        images: images, uint8 [N, C, H, W].
        batch_size: number of images that go through the network together, of large ones on a CPU fewer; None for
            `images_a_pass`.
    """
    device = next(network.parameters()).device
    size = batch_size or images_a_pass(network.image_shape, on_gpu=device.type == "cuda")
    if device.type == "cpu":
        size = together(size, network.image_shape)
    with for_inference([network]) as (passing,), torch.inference_mode():
        parts = [
            torch.softmax(passing(to_pixels(uploaded(images[i : i + size], device))), dim=1)
            for i in range(0, len(images), size)
        ]
    return torch.cat(parts).cpu().numpy()  # the one wait for the device


def predicted_classes(
    network: Classifier, evaluation: ImageSet, batch_size: int | None = None
) -> npt.NDArray[np.int64]:
    """Most probable class of each image, int64 [N]; `batch_size` as in `predict`."""
    return np.asarray(predict(network, evaluation.images, batch_size).argmax(1), np.int64)


def accuracy(predicted: npt.NDArray[np.int64], evaluation: ImageSet) -> float:
    """Share of images classified rightly, in [0, 1]."""
    return float((predicted == evaluation.labels).mean())


def confusion(predicted: npt.NDArray[np.int64], evaluation: ImageSet, classes: int) -> Matrix:
    """Counts [K', K'], rows the true class, columns the predicted one; K' covers `classes` and the labels' own."""
    size = max(classes, evaluation.classes)
    counts = np.bincount(evaluation.labels * size + predicted, minlength=size * size)
    return counts.reshape(size, size).astype(np.int64)


def accuracy_of(matrix: Matrix) -> float:
    """Share of the images on the diagonal, in [0, 1]."""
    return float(np.trace(matrix) / matrix.sum())


@dataclass(frozen=True)
class Ensemble:
    """What the teachers reach without a student, in a simulation.

    Attributes:
        each: every teacher's confusion.
        together: accuracy of their aggregate under the run's own rule.
    """

    each: Mapping[SiloId, Matrix]
    together: Matrix

    @property
    def accuracy(self) -> float:
        """Of the aggregate, in [0, 1]."""
        return accuracy_of(self.together)

    def teacher_accuracy(self, silo: SiloId) -> float:
        """Of one teacher, in [0, 1]."""
        return accuracy_of(self.each[silo])


def evaluate_ensemble(
    facts: Mapping[SiloId, SiloFacts],
    silos: Sequence[SiloId],
    evaluation: ImageSet,
    rule: AggregationRule,
    counts: npt.NDArray[np.float32] | None,
    smoothing: float,
    label_sets: LabelSets,
    standing: Standing | None = None,
) -> Ensemble:
    """Each teacher alone, and their aggregate under the run's own rule and weights.

    A teacher's word is its most probable class, also where it says that an image is none of them.

    Args:
        facts: facts of each silo, by its name.
        silos: names of the silos, in the order of `counts` and `label_sets`.
        evaluation: held-out images, labelled in the federation's classes.
        rule: rule of the run.
        counts: what the rule weighs silos by, [S, K]; None where it needs nothing such.
        smoothing: number added before logarithms, > 0.
        label_sets: silos' classes.
        standing: how far each silo is believed; None where that is not judged.
    """
    each: dict[SiloId, list[Matrix]] = {silo: [] for silo in silos}
    pooled: list[Matrix] = []
    for first in range(0, len(evaluation), _TOGETHER):
        held_out = evaluation.subset(np.arange(first, min(first + _TOGETHER, len(evaluation))))
        said = [label_sets.federated(i, facts[silo].predict(held_out.images)) for i, silo in enumerate(silos)]
        answers, mass = np.stack([own for own, _ in said]), np.stack([own_mass for _, own_mass in said])
        given, weight = np.ones(answers.shape[:2], bool), label_sets.weights(mass)
        combined = aggregate(answers, given, rule, counts=counts, weight=weight, standing=standing, smoothing=smoothing)
        classes = answers.shape[2]
        for silo, own in zip(silos, answers, strict=True):
            each[silo].append(confusion(own.argmax(1), held_out, classes))
        pooled.append(confusion(combined.argmax(1), held_out, classes))
    return Ensemble({silo: np.sum(parts, axis=0) for silo, parts in each.items()}, np.sum(pooled, axis=0))
