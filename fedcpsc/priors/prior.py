# SPDX-License-Identifier: Apache-2.0
"""What a prior is: images that need no teacher, and, but for those that say so, no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fedcpsc.choices import PRIORS
from fedcpsc.errors import ConfigError, explain
from fedcpsc.registry import Entry, Registry

__all__ = ["PRIOR_KINDS", "Draw", "Prior"]

Draw: TypeAlias = Callable[[int, tuple[int, int, int], torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior(Entry):
    """One kind of image that can be drawn without end.

    Attributes:
        real_data: real pictures that the images come from, a noun phrase; empty where they are purely procedural. A run
            that draws from such a prior is no longer free of all data, and says so.
        draw: function of a count N, an image shape (C, H, W) and a random stream, on which all of its randomness must
            depend and nothing else may; it returns float32 [N, C, H, W] in [-1, 1], on the CPU.
        on_device: whether `draw` may be given the random stream of another device. It is then called with that device
            as torch's default, so that what it makes lies there, and must neither read a number from the device nor
            keep a tensor for the next call.
    """

    draw: Draw
    real_data: str = ""
    on_device: bool = False

    def images(self, count: int, image_shape: tuple[int, int, int], stream: torch.Generator) -> Tensor:
        """`draw`, with what it gives checked: on another device its shape and type alone, which need no wait.

        Raises:
            ConfigError: the prior, one of the user's own, gave something else than such images.
        """
        with stream.device:
            images = self.draw(count, image_shape, stream)
        good = images.shape == (count, *image_shape) and images.dtype == torch.float32
        on_cpu = images.device.type == "cpu"
        if not good or (
            on_cpu and (not images.isfinite().all() or images.abs().amax() > 1.001)
        ):  # rounding is no error
            shown = f"{images.dtype} {list(images.shape)}"
            constraint = f"must draw float32 {[count, *image_shape]} in [-1, 1], drew {shown}"
            raise ConfigError(explain("prior", self.name, constraint, "fix its draw()"))
        return images


PRIOR_KINDS = Registry(PRIORS, Prior)
