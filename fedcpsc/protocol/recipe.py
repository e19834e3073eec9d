# SPDX-License-Identifier: Apache-2.0
"""What a query's images are made from, where they are not sent themselves: seeds, a mixture, a generator's weights.

A query's images are chosen from one or several pools (one for each round whose images it asks about); `fedcpsc.recipes`
makes them. Everything here is a number within bounds: a recipe names no code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fedcpsc.errors import ProtocolError, explain

__all__ = ["CANDIDATES_PER_IMAGE", "Pool", "Recipe", "Scalars", "check_sizes"]

Scalars: TypeAlias = dict[str, object]
"""Fields of a message that are no arrays, by name: values that JSON can hold."""

CANDIDATES_PER_IMAGE = 16
"""Candidates that a silo makes at most, for each image that a query to it may carry."""

_MOST_POOLS, _MOST_NAMES, _MOST_IMAGES = 256, 16, 2**22
_LARGEST_NUMBER = 1e300  # finite, and within what every float holds
# what a silo needs to make a chunk of images stays below some 1.5 GB: of larger images a chunk has fewer, see
# fedcpsc.recipes.drawing
_MOST_PIXELS, _MOST_ACTIVATIONS = 2**20, 2**23
_LARGEST = {"side": 1024, "classes": 2**16, "latent": 1024, "width": 128}


@dataclass(frozen=True)
class Pool:
    """One round's candidate images: those of the prior, then the generator's.

    Attributes:
        seed: seed of all that is random in it, in [0, 2**63).
        from_prior, from_generator: how many images, >= 0, not both 0.
        mixture: names of priors and their weights.
        mean: mean of the domain's pixels, in [-1, 1]; None leaves the priors' tones as they are.
        spread, anywhere: further fields of `priors.tones.Tones`, without meaning where there is no mean.
    """

    seed: int
    from_prior: int
    from_generator: int
    mixture: tuple[tuple[str, float], ...]
    mean: float | None = None
    spread: float = 0.2
    anywhere: float = 0.0

    def __post_init__(self) -> None:
        whole = all(type(n) is int and n >= 0 for n in (self.seed, self.from_prior, self.from_generator))
        good = whole and self.seed < 2**63 and 0 < self.from_prior + self.from_generator <= _MOST_IMAGES
        good = good and len(self.mixture) <= _MOST_NAMES
        good = good and all(type(name) is str and _number(weight) and weight >= 0 for name, weight in self.mixture)
        good = good and _number(self.spread) and 0 < self.spread <= 1
        good = good and _number(self.anywhere) and 0 <= self.anywhere <= 1
        if not good or not (self.mean is None or (_number(self.mean) and -1 <= self.mean <= 1)):
            raise ProtocolError(explain("pool", self, "is out of bounds", "make recipes with fedcpsc.recipes"))

    @property
    def size(self) -> int:
        """Candidate images."""
        return self.from_prior + self.from_generator


@dataclass(frozen=True, eq=False)
class Recipe:
    """The images of one query.

    Attributes:
        image_shape: (C, H, W).
        classes: K of the generator's condition.
        latent: length of its noise vector.
        width: its channels.
        pools: pools of images, at least one.
        weights: uint16 [G, W], the bits of float16 numbers: a row for each pool that has images of a generator.
        chosen: uint8 [ceil(M / 8)], a bit for each of the M candidates of all pools, `np.packbits` order; what is asked
            about keeps their order.
    """

    image_shape: tuple[int, int, int]
    classes: int
    latent: int
    width: int
    pools: tuple[Pool, ...]
    weights: npt.NDArray[np.uint16]
    chosen: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        check_sizes(self.image_shape, self.classes, self.latent, self.width)
        if not 1 <= len(self.pools) <= _MOST_POOLS or self.candidates > _MOST_IMAGES:
            got = (len(self.pools), self.candidates)
            raise ProtocolError(explain("pools", got, "too few, too many or too large", "ask about fewer images"))
        generators = sum(pool.from_generator > 0 for pool in self.pools)
        if self.weights.dtype != np.uint16 or self.weights.ndim != 2 or len(self.weights) != generators:
            shown = f"{self.weights.dtype}{list(self.weights.shape)}"
            raise ProtocolError(
                explain("weights", shown, f"must be uint16 [{generators}, W]", "a row for each generator")
            )
        if self.chosen.dtype != np.uint8 or self.chosen.shape != (math.ceil(self.candidates / 8),):
            shown = f"{self.chosen.dtype}{list(self.chosen.shape)}"
            raise ProtocolError(explain("chosen", shown, f"must be {self.candidates} bits", "pack with np.packbits"))
        if self.count == 0 or np.unpackbits(self.chosen)[self.candidates :].any():
            raise ProtocolError(explain("chosen", self.count, "must name candidates, at least one", "choose some"))

    @property
    def candidates(self) -> int:
        """M, the images of all pools."""
        return sum(pool.size for pool in self.pools)

    @cached_property
    def count(self) -> int:
        """N, the images asked about."""
        return int(np.unpackbits(self.chosen)[: self.candidates].sum())

    @property
    def nbytes(self) -> int:
        """Number of bytes of its arrays."""
        return self.weights.nbytes + self.chosen.nbytes

    def part(self, start: int, stop: int) -> Recipe:
        """The recipe of images [start, stop) of these, without the pools and weights that none of them needs."""
        chosen = np.unpackbits(self.chosen)[: self.candidates].astype(bool)
        number = np.cumsum(chosen) - 1
        wanted = chosen & (number >= start) & (number < stop)
        pools, masks, rows = [], [], []
        first, row = 0, 0
        for pool in self.pools:
            mask = wanted[first : first + pool.size]
            first += pool.size
            if mask.any():
                pools.append(pool)
                masks.append(mask)
                rows += [row] if pool.from_generator else []
            row += pool.from_generator > 0
        packed = np.packbits(np.concatenate(masks)) if masks else np.zeros(0, np.uint8)
        return replace(self, pools=tuple(pools), weights=self.weights[rows], chosen=packed)

    def to_fields(self) -> tuple[Scalars, dict[str, npt.NDArray[Any]]]:
        """JSON-able scalars and named arrays."""
        names = ("image_shape", "classes", "latent", "width")
        scalars: Scalars = {name: getattr(self, name) for name in names}
        scalars["pools"] = [vars(pool) for pool in self.pools]
        return scalars, {"weights": self.weights, "chosen": self.chosen}

    @classmethod
    def of_fields(cls, scalars: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Recipe:
        """Inverse of `to_fields`.

        Raises:
            ProtocolError: a value out of bounds. TypeError, KeyError, ValueError: not the fields of a recipe.
        """
        channels, height, width = scalars["image_shape"]
        pools = []
        for given in scalars["pools"][: _MOST_POOLS + 1]:
            mixture = tuple((name, weight) for name, weight in given["mixture"])
            pools.append(Pool(**{**given, "mixture": mixture}))
        numbers = {name: scalars[name] for name in ("classes", "latent", "width")}
        weights, chosen = arrays["weights"], arrays["chosen"]
        return cls((channels, height, width), pools=tuple(pools), weights=weights, chosen=chosen, **numbers)


def check_sizes(image_shape: tuple[int, int, int], classes: int, latent: int, width: int) -> None:
    """Does nothing where a recipe may make images of this shape, by such a generator.

    Args:
        image_shape, classes, latent, width: fields of `Recipe`.

    Raises:
        ProtocolError: a size is out of bounds, or takes too much memory.
    """
    sizes = {"classes": classes, "latent": latent, "width": width}
    for name, size in (*sizes.items(), *(("side", side) for side in image_shape)):
        if type(size) is not int or not 1 <= size <= _LARGEST[name]:
            raise ProtocolError(explain(name, size, f"must be in [1, {_LARGEST[name]}]", "make it smaller"))
    area = image_shape[1] * image_shape[2]
    if area > _MOST_PIXELS or width * area > _MOST_ACTIVATIONS:
        constraint = f"take too much memory to make: at most {_MOST_PIXELS:,} pixels, {_MOST_ACTIVATIONS:,} times width"
        remedy = "lower synthesis.width, or ask with images (queries.recipes: false)"
        raise ProtocolError(explain("image_shape, latent, width", (image_shape, latent, width), constraint, remedy))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER
