# SPDX-License-Identifier: Apache-2.0
"""Which of many candidate images are worth an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedcpsc.config import Precision
from fedcpsc.data.images import to_pixels
from fedcpsc.models.device import forward_float32
from fedcpsc.models.frozen import frozen
from fedcpsc.models.registry import Classifier

__all__ = ["select", "select_of_each"]

# images a forward pass: on a CPU the feature maps of more fall out of its cache, and every layer then waits for memory
_CPU_CHUNK, _GPU_CHUNK = 64, 512


def select_of_each(
    pool: Tensor,
    candidates: int,
    counts: Sequence[int],
    committee: Sequence[Classifier],
    device: torch.device,
    precision: Precision = "float32",
) -> Tensor:
    """As `select`, but of each source its own number: the less sure of all would mostly be the generator's.

    Args:
        pool: candidates, uint8 [candidates * sum(counts), C, H, W], one source after the other.
        counts: number of images of each source that are asked about.
    """
    chosen, first = [], 0
    for count in counts:
        part = pool[first : first + candidates * count]
        if count:
            chosen.append(first + select(part, committee, count, device, precision))
        first += len(part)
    return torch.cat(chosen)


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
    guesses, entropies = [], []
    with frozen(committee), torch.no_grad():
        for part in torch.split(pool, _CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK):
            pixels = to_pixels(part.to(device))
            mean = torch.stack(
                [torch.softmax(forward_float32(net, pixels, precision)[0], dim=1) for net in committee]
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
