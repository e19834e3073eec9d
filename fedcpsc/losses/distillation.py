# SPDX-License-Identifier: Apache-2.0
"""Matching a student to a teacher's answers (inference-only) or logits (white-box).

Source: Hinton et al. 2015 (arXiv 1503.02531); IKD form: CPSC-DFKD, arXiv 2510.03375.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["kl_divergence", "l2_logits", "log_l2_norm", "soft_cross_entropy"]


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of `-sum_c p_c log softmax(s)_c`.

    Args:
        logits: student logits s, [B, K].
        targets: distributions p, [B, K], rows summing to 1.
        weights: one non-negative weight per image, [B]; the mean becomes weighted. None weighs all alike.

    Returns:
        Scalar. Its minimum over s is the targets' mean entropy, reached at softmax(s) = p.
    """
    each = -(targets * F.log_softmax(logits, dim=1)).sum(1)
    if weights is None:
        return each.mean()
    return (each * weights).sum() / weights.sum().clamp_min(1e-12)


def kl_divergence(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """`L_KD = (1/B) sum_i KL(softmax(t_i) || softmax(s_i))`, both [B, K]; scalar >= 0."""
    teacher_log = F.log_softmax(teacher_logits, dim=1)
    student_log = F.log_softmax(student_logits, dim=1)
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)


def l2_logits(teacher_logits: Tensor, student_logits: Tensor, *, log: bool = False) -> Tensor:
    """`L_2 = MSE(s, t)`, or its logarithm (the form the seed uses on CIFAR-10). Both [B, K]; scalar."""
    mse = F.mse_loss(student_logits, teacher_logits)
    return torch.log(mse + 1e-12) if log else mse


def log_l2_norm(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """`log ||t - s||_2` over the whole batch: the seed's L_2 for the student on CIFAR-10. Both [B, K]; scalar."""
    return torch.log((teacher_logits - student_logits).norm() + 1e-12)
