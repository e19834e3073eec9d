"""A mixture of procedural priors, chosen by name and weight."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedcpsc.errors import ConfigError, explain
from fedcpsc.priors.shapes import dead_leaves, strokes
from fedcpsc.priors.smooth import smooth_noise

__all__ = ["PRIORS", "check_mixture", "sample_prior"]

PRIORS: Mapping[str, Callable[[int, tuple[int, int, int], torch.Generator], Tensor]] = {
    "smooth": smooth_noise,
    "dead_leaves": dead_leaves,
    "strokes": strokes,
}


def check_mixture(mixture: Mapping[str, float]) -> None:
    """Raises ConfigError for an unknown prior, or where no weight is positive."""
    for name in mixture:
        if name not in PRIORS:
            near = difflib.get_close_matches(name, list(PRIORS), n=1, cutoff=0.0)[0]
            raise ConfigError(explain("synthesis.prior", name, f"must be one of {sorted(PRIORS)}", f"use {near!r}"))
    if not any(weight > 0 for weight in mixture.values()):
        raise ConfigError(explain("synthesis.prior", dict(mixture), "needs a positive weight", "use {smooth: 1}"))


def sample_prior(
    mixture: Mapping[str, float], count: int, image_shape: tuple[int, int, int], generator: torch.Generator
) -> Tensor:
    """`count` images, each from one prior drawn by weight; float32 [count, C, H, W] in [-1, 1], in random order."""
    check_mixture(mixture)
    names = sorted(mixture)
    weights = torch.tensor([mixture[name] for name in names], dtype=torch.float64)
    which = torch.multinomial(weights, count, replacement=True, generator=generator)
    images = torch.empty(count, *image_shape)
    for index, name in enumerate(names):
        mask = which == index
        if mask.any():
            images[mask] = PRIORS[name](int(mask.sum()), image_shape, generator)
    return images
