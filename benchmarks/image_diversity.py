# SPDX-License-Identifier: Apache-2.0
"""How well a generator keeps to its labels, and how unlike each other its images are, as the teacher sees them.

No network from outside is asked (LPIPS would be one): distances are those of the teacher's own features, and the same
figure of real images stands beside them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.models.registry import Classifier
from fedcpsc.seeding import derive_seed

__all__ = ["diversity", "seen_by", "within_class_distance"]

_BATCH = 200


def seen_by(teacher: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Classes that the teacher sees, int64 [N], and its features of unit length, [N, D].

    Args:
        teacher: in evaluation mode.
        images: float32 [N, C, H, W] in the range that the teacher takes.
    """
    with torch.inference_mode():
        passes = [teacher.forward_with_features(part) for part in images.split(_BATCH)]
    features = torch.cat([features for _, features in passes])
    return torch.cat([logits for logits, _ in passes]).argmax(1), nn.functional.normalize(features, dim=1)


def within_class_distance(classes: Tensor, features: Tensor) -> float:
    """Mean over classes of `1 - cosine`, averaged over pairs of images of a class; in [0, 2].

    With unit vectors f_1 .. f_n the mean cosine over pairs is `(|sum f|^2 - n) / (n (n - 1))`.

    Args:
        classes: class of each image, int64 [N]; a class with fewer than two images is passed over.
        features: vectors of unit length, [N, D].
    """
    distances = []
    for k in classes.unique().tolist():
        ours = features[classes == k].double()
        n = len(ours)
        if n > 1:
            distances.append(1 - (ours.sum(0).square().sum().item() - n) / (n * (n - 1)))
    return sum(distances) / len(distances) if distances else 0.0


def diversity(
    teacher: Classifier,
    generator: nn.Module,
    nz: int,
    real: ImageSet,
    seed: int,
    *,
    labelled: bool,
    per_class: int = 200,
) -> dict[str, Any]:
    """Figures of images made for as many labels of each class.

    Args:
        teacher: in evaluation mode.
        generator: in training mode, as it makes images for the student: its batch norms normalise by the batch. Their
            running statistics move.
        nz: length of z.
        real: held-out images to compare with.
        seed: seed of z and of the order of labels.
        labelled: whether the generator makes images for a label.
        per_class: number of images for each label.

    Returns:
        `recall` and `least_recall`, shares of a label's images that the teacher calls so, mean over classes and the
        worst class (None without labels); `entropy` of the classes that the teacher sees, 1 where they are balanced;
        `distance` within a class, and `real_distance`, the same of real images.
    """
    k = teacher.classes
    stream = torch.Generator().manual_seed(derive_seed(seed, "diversity"))
    y = torch.arange(k).repeat_interleave(per_class)[torch.randperm(k * per_class, generator=stream)]
    z = torch.randn(len(y), nz, generator=stream)
    with torch.no_grad():
        images = torch.cat([generator(*part) for part in zip(z.split(_BATCH), y.split(_BATCH), strict=True)])
    classes, features = seen_by(teacher, images)
    recalls = [(classes[y == label] == label).float().mean().item() for label in range(k)]
    shares = torch.bincount(classes, minlength=k).double() / len(y)
    real_seen = seen_by(teacher, to_pixels(torch.from_numpy(real.images)))
    return {
        "recall": round(sum(recalls) / k, 4) if labelled else None,
        "least_recall": round(min(recalls), 4) if labelled else None,
        "entropy": round(-torch.special.xlogy(shares, shares).sum().item() / math.log(k), 4),
        "distance": round(within_class_distance(classes, features), 4),
        "real_distance": round(within_class_distance(*real_seen), 4),
    }
