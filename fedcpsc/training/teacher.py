# SPDX-License-Identifier: Apache-2.0
"""Training a teacher by kind; two kinds let a guarantee be built on it: DP-SGD, and K teachers on disjoint shards.

All return the weights and the proof that goes into the manifest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fedcpsc.data.images import ImageSet
from fedcpsc.data.units import unit_numbers
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.training.canaries import draw_canaries, planted
from fedcpsc.training.dp_sgd import train_dp_sgd
from fedcpsc.training.outliers import make_outliers
from fedcpsc.training.plain import Progress, TrainedTeacher, train_classifier, trained
from fedcpsc.training.plan import DpSgdTraining, ShardsTraining, public_units, training_plan
from fedcpsc.training.sharding import unit_of
from fedcpsc.training.shards import train_shards

__all__ = ["train_teacher"]


def train_teacher(
    images: ImageSet,
    config: TeachersConfig,
    seed: int,
    architecture: str,
    progress: Progress,
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    public_size: bool = False,
    weights: Pretrained | None = None,
) -> TrainedTeacher:
    """A teacher of the kind that `teachers.training` names, with canaries among its images where that asks for them.

    Args:
        images: the private images.
        config: epochs, batch size, learning rate, kind of training and so on.
        seed: seed of whatever need not be secret.
        architecture: name of the network.
        progress: function that is called with how far it is. For the owner alone.
        folder: folder of the silo, where its secrets lie.
        device: device to train on.
        public_size: whether the silo's policy makes its number of units public: a DP-SGD plan may then follow from it.
        weights: public weights that the network starts from; None where it starts at random.

    Raises:
        ConfigError: where the kind and the architecture do not fit, the plan cannot be kept, there are too many
            canaries, or DP-SGD has no public number of records.
        DataError: where there are too few images.
        TeacherError: where training diverges.
    """
    plan = training_plan(config)
    if isinstance(plan, ShardsTraining):
        return train_shards(images, config, plan, seed, architecture, progress, folder, device, weights)
    units = int(unit_numbers(images).max(initial=-1)) + 1
    if isinstance(plan, DpSgdTraining):  # from here on the true number has no part in what the proof says
        units = public_units(plan, units, public_size=public_size)
    canaries = draw_canaries(images, plan.canaries, units) if plan.canaries else None
    if canaries is not None:
        progress(f"{len(canaries)} {unit_of(images)}s are canaries, where {plan.canaries} were expected")
        images = planted(images, canaries)
    if isinstance(plan, DpSgdTraining):
        made = train_dp_sgd(images, config, plan, units, seed, architecture, progress, device, weights)
    else:
        outliers = make_outliers(config, images.image_shape, seed)
        network = train_classifier(images, config, seed, architecture, progress, device, plan, outliers, weights)
        made = trained(network, architecture, None)
    return replace(made, canaries=canaries)
