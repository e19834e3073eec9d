# SPDX-License-Identifier: Apache-2.0
"""Ways in which a label enters the generator: the published one, and two to compare it with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcpsc.models.dcgan import build_generator
from fedcpsc.models.generator import ConditionalNorm
from fedcpsc.models.seeded import seeded
from fedcpsc.white_box.plan import GeneratorPlan

__all__ = ["LabelBesideZ", "PlainNorm", "build_conditioned"]


class PlainNorm(nn.Module):
    """Batch norm with one scale and shift for all classes, in the place of a CFE norm.

    Args:
        channels: number of channels of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-3)  # eps of the CFE norm

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, C, H, W], labels [B], which nothing depends on -> [B, C, H, W]."""
        normed: Tensor = self.norm(x)
        return normed


class LabelBesideZ(nn.Module):
    """A generator that sees the label only in its input: an embedding as long as z, beside z.

    Source: conditional GANs, Mirza and Osindero 2014, arXiv 1411.1784.

    Args:
        generator: generator of z of twice the length, whose norms ignore the label.
        classes: K.
        nz: length of z.
    """

    def __init__(self, generator: nn.Module, classes: int, nz: int) -> None:
        super().__init__()
        self.generator = generator
        self.embedding = nn.Embedding(classes, nz)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """z [B, nz], labels [B] -> images [B, C, H, W]."""
        images: Tensor = self.generator(torch.cat([z, self.embedding(y)], dim=1), y)
        return images


def build_conditioned(
    plan: GeneratorPlan,
    classes: int,
    image_shape: tuple[int, int, int],
    *,
    seed: int,
    reference_order: bool = False,
    small_form: bool = False,
) -> nn.Module:
    """The generator of a plan, (z [B, nz], y [B]) -> images [B, C, H, W].

    Args:
        plan: `condition` says how the label enters it.
        classes: K.
        image_shape: (C, H, W).
        seed: seed of the initialisation; torch's global generators are left alone.
        reference_order, small_form: arguments of `build_generator`.
    """
    nz = 2 * plan.nz if plan.condition == "input" else plan.nz
    generator: nn.Module = build_generator(
        nz, classes, image_shape, plan.ngf, seed=seed, reference_order=reference_order, small_form=small_form
    )
    if plan.condition == "cfe":
        return generator
    for parent in list(generator.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConditionalNorm):
                setattr(parent, name, PlainNorm(child.norm.num_features))
    if plan.condition == "none":
        return generator
    with seeded(seed):
        return LabelBesideZ(generator, classes, plan.nz)
