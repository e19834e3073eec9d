# SPDX-License-Identifier: Apache-2.0
"""Stands for what organisations have: three plain torch modules, each trained on its own handwritten digits.

Nothing here is of fedcpsc. The digits come with scikit-learn; each organisation sees most images of some classes and
few of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

__all__ = ["CLASSES", "Labelled", "Organisations", "organisations"]

CLASSES = [str(digit) for digit in range(10)]

Labelled = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Organisations:
    """What there is.

    Attributes:
        models: module of each organisation: float32 [N, 1, 8, 8] with pixels in [0, 1] -> logits [N, 10].
        private: private images uint8 [N, 1, 8, 8] and labels of each organisation, which its module was trained on.
        held_out: images and labels that no module has seen.
    """

    models: list[nn.Module]
    private: list[Labelled]
    held_out: Labelled


def organisations(count: int = 3, seed: int = 0) -> Organisations:
    """Deals the digits to organisations, and trains a module for each; some seconds.

    Args:
        count: number of organisations, >= 1.
        seed: seed of the deal and of the trainings.
    """
    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)[:, None]  # [1797, 1, 8, 8]
    labels = digits.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    held_out, rest = order[:360], order[360:]
    likely = rng.dirichlet([0.5] * count, size=10)[labels[rest]]  # [N, count], by class
    owner = (likely.cumsum(1) > rng.random((len(rest), 1))).argmax(1)
    private = [(images[rest[owner == i]], labels[rest[owner == i]]) for i in range(count)]
    models = [_train(*own, seed=seed + i) for i, own in enumerate(private)]
    return Organisations(models, private, (images[held_out], labels[held_out]))


def _train(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: int) -> nn.Module:
    stream = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48 * 16, 10),
    )  # fmt: skip
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(400):
        rows = torch.randint(len(x), (64,), generator=stream)
        optimiser.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()
