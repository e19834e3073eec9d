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

__all__ = ["Chosen", "choose", "select"]

_BLOCK = 2**27  # bytes of large candidates that lie in memory together


@dataclass(frozen=True, eq=False)
class Chosen:
    """Images of one source that are asked about.

    Attributes:
        images: the images, uint8 [n, C, H, W].
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
    precision: Precision = "float32",
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
    images, labels, among = [], [], np.zeros(total, bool)
    for pool, y in _blocks(chunks):
        stop = first + len(pool)
        wanted = stop * count // total - first * count // total
        if candidates == 1:
            chosen = torch.arange(len(pool))
        else:
            chosen = select(pool, committee, wanted, device, precision) if wanted else torch.zeros(0, dtype=torch.int64)
        images.append(pool[chosen])
        labels.append(y[chosen])
        among[first + chosen.numpy()] = True
        first = stop
    return Chosen(torch.cat(images), torch.cat(labels), among)


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
    precision: Precision = "float32",
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
        int64 [count], ascending indices into `pool`.
    """
    channels, height, width = pool.shape[1:]
    chunk = images_a_pass((channels, height, width), on_gpu=device.type == "cuda")
    guesses, entropies = [], []
    with for_inference(committee) as networks, torch.no_grad():
        for part in torch.split(pool, chunk):
            pixels = to_pixels(part.to(device))
            mean = torch.stack(
                [torch.softmax(forward_float32(net, pixels, precision)[0], dim=1) for net in networks]
            ).mean(0)
            entropies.append(-(mean * mean.clamp_min(1e-9).log()).sum(1).cpu())
            guesses.append(mean.argmax(1).cpu())
    guess, entropy = torch.cat(guesses), torch.cat(entropies)
    rank = torch.empty(len(pool))
    for k in torch.unique(guess):
        rows = (guess == k).nonzero()[:, 0]
        rank[rows[entropy[rows].argsort(descending=True, stable=True)]] = torch.arange(len(rows), dtype=torch.float32)
    # every class's first, then every class's second, ...; among equals the less sure
    order = (rank - entropy / (1 + entropy.max())).argsort(stable=True)
    return order[:count].sort().values
