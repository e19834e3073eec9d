"""Accuracy on held-out real images, where a run has any. Nothing read here steers training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.distillation.aggregation import Rule, aggregate
from fedcpsc.distillation.teachers import SiloId
from fedcpsc.models.registry import Classifier

__all__ = ["SiloFacts", "accuracy", "evaluate_ensemble", "predict", "predicted_classes"]

Predict: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class SiloFacts:
    """What only a simulation knows of a silo: its measuring instrument, outside protocol and budget.

    Attributes:
        train_size: private images its teacher was trained on.
        predict: the teacher itself, uint8 [N, C, H, W] -> float32 [N, K].
    """

    train_size: int
    predict: Predict


def predict(network: Classifier, images: npt.NDArray[np.uint8], batch_size: int) -> npt.NDArray[np.float32]:
    """Class probabilities float32 [N, K]; leaves the network's mode as it was."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [
            torch.softmax(network(to_pixels(torch.from_numpy(images[i : i + batch_size]).to(device))), dim=1).cpu()
            for i in range(0, len(images), batch_size)
        ]
    network.train(training)
    return torch.cat(parts).numpy()


def predicted_classes(network: Classifier, evaluation: ImageSet, batch_size: int) -> npt.NDArray[np.int64]:
    """Most probable class of each image, int64 [N]."""
    return np.asarray(predict(network, evaluation.images, batch_size).argmax(1), np.int64)


def accuracy(predicted: npt.NDArray[np.int64], evaluation: ImageSet) -> float:
    """Share of images classified rightly, in [0, 1]."""
    return float((predicted == evaluation.labels).mean())


def evaluate_ensemble(
    facts: Mapping[SiloId, SiloFacts],
    silos: Sequence[SiloId],
    evaluation: ImageSet,
    rule: Rule,
    weights: npt.NDArray[np.float32] | None,
    smoothing: float,
) -> tuple[dict[SiloId, float], float]:
    """Each teacher's accuracy, and that of their aggregate under the run's own rule and weights."""
    answers = np.stack([facts[silo].predict(evaluation.images) for silo in silos])
    given = np.ones(answers.shape[:2], bool)
    combined = aggregate(answers, given, rule, counts=weights, smoothing=smoothing)
    each = {silo: accuracy(answers[i].argmax(1), evaluation) for i, silo in enumerate(silos)}
    return each, accuracy(combined.argmax(1), evaluation)
