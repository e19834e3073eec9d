# SPDX-License-Identifier: Apache-2.0
"""Supervised contrastive loss over several views, the seed's third innovation.

Source: Khosla et al. 2020 (arXiv 2004.11362, eq. 2, "out" form); CPSC-DFKD (arXiv 2510.03375) takes teacher and student
features as the two views. Inference-only teachers give no features: there the views are two of the student's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["supervised_contrastive"]


def supervised_contrastive(views: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """Pulls images of one class together, over all views, and pushes the other classes away.

    For each of the V*B anchors a, the mean over its positives p (same label, another index or another view) of
    `-log( exp(a.p / tau) / sum_{j != a} exp(a.j / tau) )`; then the mean over anchors that have a positive.

    Args:
        views: features [V, B, D]; L2-normalised here.
        labels: class of each image, int64 [B].
        temperature: tau > 0.

    Returns:
        Scalar >= 0; 0 where no anchor has a positive.
    """
    v, b, _ = views.shape
    features = F.normalize(views, dim=2).reshape(v * b, -1)  # [VB, D]
    classes = labels.repeat(v)  # [VB]
    itself = torch.eye(v * b, dtype=torch.bool, device=views.device)
    similarity = (features @ features.T / temperature).masked_fill(itself, float("-inf"))
    log_probability = F.log_softmax(similarity, dim=1).masked_fill(itself, 0.0)
    positive = (classes[:, None] == classes[None, :]) & ~itself
    count = positive.sum(1)
    per_anchor = -(log_probability * positive).sum(1) / count.clamp_min(1)
    return per_anchor.sum() / (count > 0).sum().clamp_min(1)
