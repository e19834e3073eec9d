# SPDX-License-Identifier: Apache-2.0
"""Which of many candidate images are worth an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcpsc.config import Precision
from fedcpsc.data.images import to_pixels
from fedcpsc.large_images import are_large, images_a_pass
from fedcpsc.models.device import forward_float32
from fedcpsc.models.folded import for_inference
from fedcpsc.models.registry import Classifier
from fedcpsc.transfers import downloaded, uploaded

__all__ = ["Chosen", "choose", "select"]

_BLOCK = 2**27  # bytes of large candidates that lie in memory together
_ON_DEVICE = 2**32  # bytes of a source's candidates that may lie on a GPU together


@dataclass(frozen=True, eq=False)
class Chosen:
    """Images of one source that are asked about.

    Attributes:
        images: the images, uint8 [n, C, H, W], on the CPU.
        y: classes that they were made for, int64 [n]; -1 where they were made for none.
        among: mask of them among the source's candidates, bool [M].
    """

    images: Tensor
    y: Tensor
    among: npt.NDArray[np.bool_]


def choose(
    chunks: Iterable[tuple[Tensor, Tensor]],
    candidates: int,
    count: int,
    committee: Sequence[Classifier],
    device: torch.device,
    precision: Precision | None = "float32",
) -> Chosen:
    """Which of one source's candidates are asked about, as `select` says; large images in blocks that fit into memory.

    Each source is chosen from by itself: the less sure of all would mostly be the generator's. Of small images all
    candidates are one block; of large ones a block holds some 128 MB, and each gives its share of the images.

    Args:
        chunks: candidates uint8 [m, C, H, W] and their y int64 [m], chunk by chunk, candidates * count in all.
        candidates: number of candidates for each image that is asked about, >= 1.
        count: number of images that are asked about, >= 1.
        committee, device, precision: arguments of `select`.
    """
    total, first = candidates * count, 0
    images, labels, among = [], [], []
    for pool, y in _blocks(_held(chunks, total, device)):
        stop = first + len(pool)
        wanted = stop * count // total - first * count // total
        if candidates > 1:
            chosen = uploaded(select(pool, committee, wanted, device, precision), pool.device) if wanted else None
        else:
            chosen = torch.arange(len(pool), device=pool.device)
        if chosen is not None:
            images.append(pool[chosen])
            labels.append(y[chosen])
            among.append(first + chosen)
        first = stop
    taken, y, rows = downloaded([torch.cat(images), torch.cat(labels), torch.cat(among)])
    mask = np.zeros(total, bool)
    mask[rows.numpy()] = True
    return Chosen(taken, y, mask)


def _held(chunks: Iterable[tuple[Tensor, Tensor]], total: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The chunks on the device, or, where all candidates together would fill much of it, in this machine's memory."""
    for images, y in chunks:
        if images[0].nbytes * total <= _ON_DEVICE:
            yield uploaded(images, device), uploaded(y, device)
        else:
            brought, labels = downloaded([images, y])
            yield brought, labels


def _blocks(chunks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The chunks put together: all of small images, of large ones some `_BLOCK` bytes."""
    held: list[tuple[Tensor, Tensor]] = []
    for images, y in chunks:
        held.append((images, y))
        channels, height, width = images.shape[1:]
        if are_large((channels, height, width)) and sum(part.nbytes for part, _ in held) >= _BLOCK:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([images for images, _ in held]), torch.cat([y for _, y in held])


def select(
    pool: Tensor,
    committee: Sequence[Classifier],
    count: int,
    device: torch.device,
    precision: Precision | None = "float32",
) -> Tensor:
    """The candidates to ask about: the committee's guessed classes evenly, of each those it is least sure of.

    Off-domain images collapse into few classes; asking evenly by the committee's guess brings the rare ones up (on
    MNIST the bank's class entropy rises from 0.87 to 0.97), and costs nothing but the student's own inference. Near
    relations: DisGUIDE and CaBaGE select by disagreement and by class balance.

    Args:
        pool: candidates, uint8 [N >= count, C, H, W].
        committee: networks whose mean prediction is the guess.
        precision: number format of their passes.

    Returns:
        int64 [count], ascending indices into `pool`, on the device.
    """
    channels, height, width = pool.shape[1:]
    chunk = images_a_pass((channels, height, width), on_gpu=device.type == "cuda")
    guesses, entropies = [], []
    with for_inference(committee) as networks, torch.no_grad():
        for part in torch.split(pool, chunk):
            pixels = to_pixels(uploaded(part, device))
            mean = torch.stack(
                [torch.softmax(forward_float32(net, pixels, precision)[0], dim=1) for net in networks]
            ).mean(0)
            entropies.append(-(mean * mean.clamp_min(1e-9).log()).sum(1))
            guesses.append(mean.argmax(1))
    return _least_sure_of_each(torch.cat(guesses), torch.cat(entropies), mean.shape[1], count)


def _least_sure_of_each(guess: Tensor, entropy: Tensor, classes: int, count: int) -> Tensor:
    """Of every class's candidates those with the highest entropy: ascending indices, int64 [count].

    Args:
        guess: class of each candidate, int64 [N >= count] in [0, classes).
        entropy: entropy of the committee's prediction for it, float32 [N].
    """
    # sorts alone: to take the rows of one class after the other, a GPU would be waited for at each
    by_entropy = entropy.argsort(descending=True, stable=True)
    by_class = by_entropy[guess[by_entropy].argsort(stable=True)]  # class by class, the least sure first
    sizes = torch.zeros(classes, dtype=torch.int64, device=guess.device).scatter_add_(0, guess, torch.ones_like(guess))
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(guess), device=guess.device) - first[guess[by_class]]
    rank = torch.empty_like(entropy).index_copy_(0, by_class, place.to(entropy.dtype))
    # every class's first, then every class's second, ...; among equals the less sure
    order = (rank - entropy / (1 + entropy.max())).argsort(stable=True)
    return order[:count].sort().values
