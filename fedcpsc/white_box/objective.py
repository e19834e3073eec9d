# SPDX-License-Identifier: Apache-2.0
"""What generator and student are trained towards, and the batch-norm inputs that the generator's part looks at.

    L_G = -L_KD - alpha L_2 + beta L_BN + gamma L_SCL + eta L_CE(teacher, y)      student and teacher frozen
    L_S =  L_KD + alpha L_2                           + eta L_CE(student, y)      teacher and images detached

Source: CPSC-DFKD, arXiv 2510.03375. The CIFAR-10 form takes `log MSE` as the generator's L_2, and as the student's
`log ||t - s||_2`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcpsc.losses.contrastive import supervised_contrastive
from fedcpsc.losses.distillation import kl_divergence, l2_logits, log_l2_norm
from fedcpsc.losses.synthesis import batch_norm_prior
from fedcpsc.white_box.plan import LossPlan
from fedcpsc.white_box.quirks import Quirks

__all__ = ["Terms", "batch_norm_inputs", "batch_norms", "generator_loss", "student_loss"]

_BASE_TEMPERATURE = (
    0.07  # of the supervised contrast's published implementation, which the authors' code has taken over
)
_NO_QUIRKS = Quirks()


@dataclass(frozen=True, eq=False)
class Terms:
    """A loss and its unweighted terms, scalars; a term that has no weight or no place in the loss is 0.

    Attributes:
        total: the loss, with its graph.
        kd, l2, bn, scl, ce: L_KD, L_2 and so on, detached.
    """

    total: Tensor
    kd: Tensor
    l2: Tensor
    bn: Tensor
    scl: Tensor
    ce: Tensor

    def stacked(self) -> Tensor:
        """[6], detached, in the order of `names`."""
        return torch.stack([getattr(self, name).detach() for name in self.names()])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the terms, the total first."""
        return tuple(field.name for field in fields(cls))


def generator_loss(
    plan: LossPlan,
    teacher: tuple[Tensor, Tensor],
    student: tuple[Tensor, Tensor],
    labels: Tensor,
    norms: list[nn.BatchNorm2d],
    norm_inputs: list[Tensor],
    *,
    quirks: Quirks = _NO_QUIRKS,
) -> Terms:
    """L_G.

    Args:
        plan: the weights.
        teacher: its logits [B, K] and features [B, D] of the images.
        student: the same of the student, features adapted to D.
        labels: the pseudo-labels the images were made for, int64 [B].
        norms: the teacher's batch norms.
        norm_inputs: what entered them, [B, C_l, H_l, W_l]; both lists may be empty where beta is 0.
        quirks: departures of the authors' code; of these `softmax_twice`, `l2_detached` and `contrast_scaled` count.
    """
    (t, t_features), (s, s_features) = teacher, student
    nothing = t.new_zeros(())
    kd = kl_divergence(t, s)
    l2 = l2_logits(t.detach() if quirks.l2_detached else t, s, log=plan.log_l2)
    means, variances = [_of(norm.running_mean) for norm in norms], [_of(norm.running_var) for norm in norms]
    bn = batch_norm_prior(norm_inputs, means, variances) if plan.beta else nothing
    views = (s_features, t_features)
    scl = supervised_contrastive(torch.stack(views), labels, plan.temperature) if plan.gamma else nothing
    if quirks.contrast_scaled:
        scl = scl * (plan.temperature / _BASE_TEMPERATURE)
    ce = _cross_entropy(t, labels, quirks.softmax_twice)
    total = -kd - plan.alpha * l2 + plan.beta * bn + plan.gamma * scl + plan.eta * ce
    return Terms(total, kd.detach(), l2.detach(), bn.detach(), scl.detach(), ce.detach())


def student_loss(
    plan: LossPlan, teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, *, quirks: Quirks = _NO_QUIRKS
) -> Terms:
    """L_S.

    Args:
        plan: the weights.
        teacher_logits: detached, [B, K].
        student_logits: [B, K].
        labels: the pseudo-labels the images were made for, int64 [B].
        quirks: departures of the authors' code; of these `softmax_twice` counts.
    """
    nothing = student_logits.new_zeros(())
    kd = kl_divergence(teacher_logits, student_logits)
    l2 = (log_l2_norm if plan.log_l2 else l2_logits)(teacher_logits, student_logits)
    ce = _cross_entropy(student_logits, labels, quirks.softmax_twice)
    return Terms(kd + plan.alpha * l2 + plan.eta * ce, kd.detach(), l2.detach(), nothing, nothing, ce.detach())


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The network's batch norms with running statistics, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@contextmanager
def batch_norm_inputs(norms: list[nn.BatchNorm2d]) -> Iterator[dict[nn.BatchNorm2d, Tensor]]:
    """Inside, the mapping holds what last entered each of `norms`, with its graph; afterwards the hooks are gone."""
    seen: dict[nn.BatchNorm2d, Tensor] = {}

    def look(norm: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - the hook stands on nothing else
        seen[norm] = given[0]

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        seen.clear()


def _cross_entropy(logits: Tensor, labels: Tensor, softmax_twice: bool) -> Tensor:
    return F.cross_entropy(torch.softmax(logits, dim=1) if softmax_twice else logits, labels)


def _of(statistics: Tensor | None) -> Tensor:
    """Running statistics, which `batch_norms` promises: none of the zoo's norms goes without."""
    assert statistics is not None  # noqa: S101
    return statistics
