# SPDX-License-Identifier: Apache-2.0
"""Student features at the teacher's width, so that the two are views of one image for the contrastive loss."""

from __future__ import annotations

from torch import nn

from fedcpsc.models.seeded import seeded

__all__ = ["build_adapter"]


def build_adapter(student_size: int, teacher_size: int, seed: int) -> nn.Module:
    """A two-layer MLP, [B, student_size] -> [B, teacher_size]; the identity where the sizes are equal.

    It occurs in L_SCL alone, hence it learns with the generator.

    Args:
        student_size, teacher_size: features of each.
        seed: seed of the initialisation; torch's global generators are left alone.
    """
    if student_size == teacher_size:
        return nn.Identity()
    with seeded(seed):
        return nn.Sequential(nn.Linear(student_size, teacher_size), nn.ReLU(), nn.Linear(teacher_size, teacher_size))
