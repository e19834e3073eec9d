# SPDX-License-Identifier: Apache-2.0
"""Shadow teachers and shadow students, all trained in one batch.

Every shadow draws from streams of its own seeds, so that it does not matter which others are in the batch: 64 together
are what each would be alone, up to float rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fedcpsc.audit.plan import DpSgdAudit, ShadowsPlan, StudentsPlan
from fedcpsc.audit.shadow_nets import Parameters, ShadowNet
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.errors import DataError, explain
from fedcpsc.privacy.accounting import dp_sgd_epsilon, least_noise_multiplier
from fedcpsc.seeding import derive_seed, numpy_generator

__all__ = [
    "distil_students",
    "draw_membership",
    "noise_multiplier_of",
    "predict_shadows",
    "proven_epsilon",
    "train_private_shadows",
    "train_shadows",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_PREDICTED_AT_ONCE = 256


def draw_membership(seed: int, shadows: int, pool: int) -> Bools:
    """Independent fair coins: bool [S, N], which records each shadow is trained on."""
    return np.stack([numpy_generator(seed, "member", shadow).random(pool) < 0.5 for shadow in range(shadows)])


def train_shadows(net: ShadowNet, pool: ImageSet, member: Bools, plan: ShadowsPlan, seeds: Sequence[int]) -> Parameters:
    """One classifier for each row of `member`: Adam, cross-entropy, the learning rate falling to 0 by a cosine.

    All take the same number of steps, `epochs` of half the pool; one with more members sees each less often.

    Args:
        net: the architecture.
        pool: N images, labels as trained on.
        member: bool [S, N].
        plan: epochs, batch size, learning rate, weight decay.
        seeds: one a shadow.

    Raises:
        DataError: where a shadow has no member.
    """
    steps = plan.epochs * math.ceil(len(pool) / 2 / plan.batch_size)
    order = np.stack([_order(own, steps * plan.batch_size, seed) for own, seed in zip(member, seeds, strict=True)])
    pixels = to_pixels(torch.from_numpy(pool.images))
    wanted = F.one_hot(torch.from_numpy(pool.labels), pool.classes).float()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, steps * plan.batch_size, plan.batch_size):
            rows = torch.from_numpy(order[:, first : first + plan.batch_size].astype(np.int64))
            yield pixels[rows], wanted[rows]

    return _fitted(net, net.initial(_initial_seeds(seeds)), batches(), steps, plan.learning_rate, plan.weight_decay)


def distil_students(
    net: ShadowNet, queries: npt.NDArray[np.uint8], targets: Floats, plan: StudentsPlan, seeds: Sequence[int]
) -> Parameters:
    """One student for each shadow teacher, fitted to its answers by soft cross-entropy on noisy pixels.

    A run's final fit without what a run has around it: no generator, no selection, no rounds, no second silo.

    Args:
        net: the students' architecture.
        queries: uint8 [Q, C, H, W], the same for all.
        targets: decoded answers [S, Q, K].
        plan: steps, batch size, learning rate, noise.
        seeds: one a student.
    """
    pixels, answers = to_pixels(torch.from_numpy(queries)), torch.from_numpy(targets)
    streams = [torch.Generator().manual_seed(derive_seed(seed, "student")) for seed in seeds]
    mine = torch.arange(len(seeds))[:, None]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(plan.steps):
            rows = torch.stack([torch.randint(len(pixels), (plan.batch_size,), generator=s) for s in streams])
            noise = torch.stack([torch.randn(plan.batch_size, *pixels.shape[1:], generator=s) for s in streams])
            yield pixels[rows] + plan.noise * noise, answers[mine, rows]

    first = net.initial(_initial_seeds(seeds, "student"))
    return _fitted(net, first, batches(), plan.steps, plan.learning_rate, 0.0)


def train_private_shadows(
    net: ShadowNet, pool: ImageSet, member: Bools, plan: DpSgdAudit, seeds: Sequence[int]
) -> Parameters:
    """As `train_shadows` by DP-SGD (Abadi et al. 2016, arXiv 1607.00133), for auditing only: its noise has seeds.

    Each step takes every member with the same probability, clips each image's own gradient, and adds Gaussian noise to
    the sum; Adam uses the noisy mean. The sample rate depends on the size of the pool, not on who is a member.

    Args:
        net: the architecture.
        pool: N images, labels as trained on.
        member: bool [S, N].
        plan: the claim, and how it is trained for.
        seeds: one a shadow.
    """
    rate, steps = _schedule(plan, len(pool))
    noise = noise_multiplier_of(plan, len(pool)) if plan.noise_multiplier is None else plan.noise_multiplier
    pixels, labels = to_pixels(torch.from_numpy(pool.images)), torch.from_numpy(pool.labels)
    flips = [torch.Generator().manual_seed(derive_seed(seed, "sampling")) for seed in seeds]
    noises = [torch.Generator().manual_seed(derive_seed(seed, "noise")) for seed in seeds]
    parameters = net.initial(_initial_seeds(seeds))
    optimiser = torch.optim.Adam(parameters, lr=plan.learning_rate, fused=True)
    own = torch.from_numpy(member)
    for _ in range(steps):
        drawn = torch.stack([torch.rand(len(pool), generator=stream) for stream in flips]) < rate
        counted, rows = _padded(drawn & own)
        logits, taps = net.tapped(parameters, pixels[rows])
        loss = F.cross_entropy(logits.flatten(0, 1), labels[rows].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss, [tap.given for tap in taps])
        with torch.no_grad():
            sums = net.clipped_sum(taps, gradients, plan.max_grad_norm, counted)
            for parameter, total in zip(parameters, sums, strict=True):
                drawn_noise = torch.stack([torch.randn(total.shape[1:], generator=stream) for stream in noises])
                parameter.grad = (total + noise * plan.max_grad_norm * drawn_noise) / (rate * len(pool) / 2)
        optimiser.step()
    return [parameter.detach() for parameter in parameters]


def noise_multiplier_of(plan: DpSgdAudit, pool: int) -> float:
    """The least noise multiplier, up to 0.1 %, for which Opacus' PRV accountant proves the claim; as a silo's teacher.

    Args:
        plan: the claim and its schedule.
        pool: N.
    """
    return least_noise_multiplier(plan.epsilon, plan.delta, *_schedule(plan, pool))


def proven_epsilon(plan: DpSgdAudit, pool: int) -> float:
    """What the accountant says of the training as it is, epsilon at the plan's delta; infinite without noise."""
    rate, steps = _schedule(plan, pool)
    noise = noise_multiplier_of(plan, pool) if plan.noise_multiplier is None else plan.noise_multiplier
    return dp_sgd_epsilon([(noise, rate, steps)], plan.delta) if noise > 0 else math.inf


def predict_shadows(net: ShadowNet, parameters: Parameters, images: npt.NDArray[np.uint8]) -> Floats:
    """Each shadow's class probabilities of the same images: float32 [S, N, K].

    Args:
        images: uint8 [N, C, H, W].
    """
    shadows = len(parameters[0])
    with torch.inference_mode():
        parts = [
            net.logits(parameters, to_pixels(part).expand(shadows, *part.shape)).softmax(2)
            for part in torch.split(torch.from_numpy(images), _PREDICTED_AT_ONCE)
        ]
    return torch.cat(parts, 1).numpy()


def _fitted(
    net: ShadowNet,
    parameters: Parameters,
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    learning_rate: float,
    weight_decay: float,
) -> Parameters:
    """Soft cross-entropy on (x [S, B, C, H, W], targets [S, B, K]) in turn."""
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    for step, (x, targets) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        losses = -(targets * F.log_softmax(net.logits(parameters, x), 2)).sum(2).mean(1)  # [S]
        optimiser.zero_grad()
        torch.autograd.backward(losses.sum())
        optimiser.step()
    return [parameter.detach() for parameter in parameters]


def _initial_seeds(seeds: Sequence[int], *names: str) -> list[int]:
    return [derive_seed(seed, *names, "initialisation") for seed in seeds]


def _order(member: Bools, count: int, seed: int) -> npt.NDArray[np.int32]:
    """`count` members, one shuffled deck after another."""
    own, rng = np.flatnonzero(member).astype(np.int32), numpy_generator(seed, "order")
    if len(own) == 0:
        raise DataError(explain("pool", len(member), "a shadow has no member", "use a larger pool"))
    decks = [rng.permutation(own) for _ in range(math.ceil(count / len(own)))]
    return np.concatenate(decks)[:count]


def _schedule(plan: DpSgdAudit, pool: int) -> tuple[float, int]:
    """Sample rate and steps: `epochs` of half the pool."""
    rate = min(1.0, 2 * plan.batch_size / pool)
    return rate, math.ceil(plan.epochs / rate)


def _padded(drawn: Tensor) -> tuple[Tensor, Tensor]:
    """bool [S, N] as row numbers int64 [S, B], B the largest draw, and which of them count, bool [S, B]."""
    most = max(1, int(drawn.sum(1).max()))
    counted, rows = drawn.to(torch.uint8).topk(most, dim=1)
    return counted.bool(), rows
