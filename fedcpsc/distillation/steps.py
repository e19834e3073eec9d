# SPDX-License-Identifier: Apache-2.0
"""Fitting the committee to the answer bank: one member, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedcpsc.config import StudentConfig
from fedcpsc.data.augment import random_flip, random_shift
from fedcpsc.data.mixing import Blend, Mixing, blended, draw_blend
from fedcpsc.distillation.bank_reader import BankReader
from fedcpsc.distillation.data_parallel import Networks, Passes
from fedcpsc.distillation.fixed_features import may_be_kept
from fedcpsc.distillation.optimisers import learning_rate, make_optimiser
from fedcpsc.errors import RunError, explain
from fedcpsc.losses.contrastive import supervised_contrastive
from fedcpsc.losses.distillation import soft_cross_entropy
from fedcpsc.models.adapted import Adapted
from fedcpsc.models.device import to_device
from fedcpsc.models.registry import Classifier
from fedcpsc.models.seeded import seeded
from fedcpsc.models.students import Start, build_fellow, build_student
from fedcpsc.seeding import derive_seed

__all__ = ["BankReader", "Member", "check_finite", "fit", "make_committee", "make_member", "student_loss"]


@dataclass
class Member:
    """A committee network and its optimiser.

    Attributes:
        network: the network.
        optimiser: optimiser of its weights.
        index: number in the committee; 0 is the student.
    """

    network: Classifier
    optimiser: torch.optim.Optimizer
    index: int = 0


def make_committee(
    config: StudentConfig,
    classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    device: torch.device,
    start: Start | None = None,
) -> list[Member]:
    """The student and its fellows, each with an initialisation of its own.

    Args:
        config: section `student` of the run's configuration.
        classes: K.
        image_shape: (C, H, W) of the federation's images.
        seed: seed of the run.
        device: device of the networks.
        start: what the student begins as; None for what the configuration alone says.
    """
    return [make_member(config, classes, image_shape, seed, device, start, index) for index in range(config.committee)]


def make_member(
    config: StudentConfig,
    classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    device: torch.device,
    start: Start | None,
    index: int,
) -> Member:
    """One network of the committee; arguments as for `make_committee`, and its number."""
    build, own_seed = build_fellow if index else build_student, derive_seed(seed, "member", index)
    network = to_device(build(config, classes, image_shape, own_seed, start), device)
    return Member(network, make_optimiser(config, network), index)


def fit(
    member: Member,
    config: StudentConfig,
    reader: BankReader,
    pool: npt.NDArray[np.int64],
    fresh: npt.NDArray[np.int64],
    steps: int,
    seed: int,
    *,
    fresh_share: float = 0.0,
    cosine_from: tuple[int, int] | None = None,
    average: Classifier | None = None,
    networks: Networks | None = None,
) -> Tensor:
    """`steps` optimiser steps on random batches of the bank; returns the loss at each, float32 [steps].

    Args:
        pool: rows to draw from, int64 [n >= 1].
        fresh: newest rows, int64 [m]; a share `fresh_share` of each batch is drawn from them where there are any.
        seed: seed of all randomness of these steps.
        cosine_from: (done, total): these are steps of a final fit of `total` steps, of which `done` lie behind, and the
            learning rate follows `config.schedule`, by default a cosine; None keeps it constant.
        average: running average of the network's weights, with decay `config.average`; None where none is kept.
        networks: how batches are passed through networks; None: by this process alone. Processes that share every
            batch must all make the same call.
    """
    networks = networks or Networks()
    device = reader.device
    stream = torch.Generator(device).manual_seed(seed)
    rows, newest = reader.rows_on_device(pool), reader.rows_on_device(fresh)
    from_newest = round(config.batch_size * fresh_share) if len(fresh) else 0
    member.network.train()
    losses = torch.zeros(steps, device=device)
    mixing, random = Mixing(config.mixup, config.cutmix), np.random.default_rng(derive_seed(seed, "mixing"))
    drops = derive_seed(
        seed, "network", networks.rank.index
    )  # every process passes other images: so others are dropped out
    foreign = isinstance(member.network, Adapted)  # it may drop out; networks of this project draw nothing
    streams = seeded(drops, device) if foreign else nullcontext()
    kept = _kept_features(member.network, config, reader, networks)
    with streams, networks.passes(member.network, config.precision) as passes:
        for step in range(steps):
            rate = config.learning_rate
            if cosine_from is not None:
                rate = learning_rate(config, cosine_from[0] + step, cosine_from[1])
            for group in member.optimiser.param_groups:
                group["lr"] = rate
            chosen = _draw(rows, config.batch_size - from_newest, stream)
            if from_newest:
                chosen = torch.cat([_draw(newest, from_newest, stream), chosen])
            member.optimiser.zero_grad(set_to_none=True)
            if kept is not None:
                head, features = kept
                loss = soft_cross_entropy(head(features[chosen].float()), reader.targets(chosen))
            else:
                pixels, targets = reader.batch(chosen)
                blend = draw_blend(mixing, pixels.shape, random) if mixing.is_on else None
                loss = student_loss(passes, config, pixels, targets, stream, blend)
            (loss * networks.rank.world_size).backward()  # type: ignore[no-untyped-call]
            member.optimiser.step()
            losses[step] = loss.detach()
            if average is not None:
                _move_average(average, member.network, config.average)
    return losses


def _kept_features(
    network: Classifier, config: StudentConfig, reader: BankReader, networks: Networks
) -> tuple[nn.Linear, Tensor] | None:
    """What learns, and the banked images' features, where each step would compute the same ones.

    Several processes compute their parts of a batch at each step instead.
    """
    if networks.rank.world_size > 1 or not may_be_kept(network, config):
        return None
    features = reader.fixed_features(network)
    return None if features is None else (network.head, features)


def check_finite(tensors: Sequence[Tensor], name: str) -> None:
    """Does nothing where every number is finite. On a GPU it waits for what makes them.

    Args:
        tensors: tensors of any shapes.
        name: name of what they are, for the message.

    Raises:
        RunError: a number is NaN or infinite, as where the optimiser diverges.
    """
    bad = next((float(t[~torch.isfinite(t)][0]) for t in tensors if not bool(torch.isfinite(t).all())), None)
    if bad is None:
        return
    remedy = "begin anew with a lower student.learning_rate, or with student.precision: float32"
    raise RunError(explain(name, bad, "must be finite: the fit has diverged, and no student can come of it", remedy))


def _move_average(average: Classifier, network: Classifier, decay: float) -> None:
    moved: set[int] = set()  # layers that share their weights have several names for them
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.data_ptr() in moved:
                continue
            moved.add(mean.data_ptr())
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def student_loss(
    passes: Passes,
    config: StudentConfig,
    pixels: Tensor,
    targets: Tensor,
    stream: torch.Generator,
    blend: Blend | None = None,
) -> Tensor:
    """Soft cross-entropy to the answers on a random view of each image (+ contrast between two such views).

    The generator's y is not used: inference-only it agrees with the teachers by chance. The contrastive term takes the
    answers' own classes. A blended image has no class of its own: then the contrast takes views that are not blended,
    which costs a third pass.

    Args:
        passes: function that passes views through the student.
        config: section `student` of the run's configuration.
        pixels: banked images, float32 [B, C, H, W] in [-1, 1].
        targets: what the silos' answers to them came to, float32 [B, K].
        stream: random generator of the views, on the pixels' device.
        blend: how the batch is mixed for the cross-entropy; None does not mix it.
    """
    views, wanted = [_view(pixels, config, stream) for _ in range(2 if config.contrastive_weight else 1)], targets
    if blend is not None:
        mixed, wanted = blended(views[0], targets, blend)
        views = [mixed, *views] if config.contrastive_weight else [mixed]
    outputs = passes(views)
    loss = soft_cross_entropy(outputs[0][0], wanted)
    if config.contrastive_weight == 0:
        return loss
    (_, features), (_, again) = outputs[-2:]
    contrast = supervised_contrastive(torch.stack([features, again]), targets.argmax(1), config.contrastive_temperature)
    return loss + config.contrastive_weight * contrast


def _view(pixels: Tensor, config: StudentConfig, stream: torch.Generator) -> Tensor:
    view = random_shift(pixels, config.shift, stream)
    if config.flip:
        view = random_flip(view, stream)
    if config.noise > 0:
        view = view + config.noise * torch.randn(view.shape, generator=stream, device=view.device)
    return view


def _draw(rows: Tensor, count: int, stream: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (count,), generator=stream, device=rows.device)]
