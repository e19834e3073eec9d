# SPDX-License-Identifier: Apache-2.0
"""K teachers on disjoint shards: each unit's records go, together, where a keyed hash of the unit sends them.

They are not private: only mechanisms that noise their votes are (`privacy.votes`). A person's records lie in one shard,
so that a person more or less changes one vote, as a record does where nobody names persons.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from fedcpsc.data.images import ImageSet
from fedcpsc.data.units import unit_ids, unit_numbers
from fedcpsc.errors import DataError, explain
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.models.device import torch_threads
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.seeding import derive_seed
from fedcpsc.silo_config import TeachersConfig
from fedcpsc.teachers.proof import ShardsProof
from fedcpsc.teachers.shard_teacher import stacked
from fedcpsc.training.network import begun
from fedcpsc.training.outliers import Outliers, make_outliers
from fedcpsc.training.plain import Progress, TrainedTeacher, train_classifier
from fedcpsc.training.plan import PlainTraining, ShardsTraining
from fedcpsc.training.sharding import read_or_make_key, shards_of, unit_of

__all__ = ["train_shards"]

_SECONDS_BETWEEN_LINES = 10.0


def train_shards(
    images: ImageSet,
    config: TeachersConfig,
    plan: ShardsTraining,
    seed: int,
    architecture: str,
    progress: Progress,
    folder: Path,
    device: torch.device | str = "cpu",
    weights: Pretrained | None = None,
) -> TrainedTeacher:
    """K classifiers on disjoint shards. They are not private: only mechanisms that noise their votes are.

    Args:
        images: the private images; persons, where they are named, are dealt as a whole.
        config: epochs, batch size, learning rate and so on, of each teacher.
        plan: number of teachers and their optimiser.
        seed: seed of initialisation, order and augmentation; never of the dealing.
        architecture: name of an architecture in `models.registry`.
        progress: function that is called with how far it is.
        folder: folder of the silo, where its secret key lies.
        device: device to train on.
        weights: public weights that every network starts from; None where each starts at random.

    Raises:
        DataError: where there are fewer than two units a shard on average.
    """
    units, unit = int(unit_numbers(images).max(initial=-1)) + 1, unit_of(images)
    if units < 2 * plan.shards:
        called = "images" if unit == "record" else "persons"
        raise DataError(
            explain("teachers.training.shards", plan.shards, f"is too many for {units} {called}", "use fewer")
        )
    dealt = shards_of(unit_ids(images), read_or_make_key(folder), plan.shards)
    outliers = make_outliers(config, images.image_shape, seed)
    networks, said = [], time.monotonic()
    with torch_threads(1):
        for shard in range(plan.shards):
            own = images.subset((dealt == shard).nonzero()[0])
            its_seed = derive_seed(seed, "shard", shard)
            networks.append(_of_shard(own, config, plan, its_seed, architecture, device, outliers, weights))
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                progress(f"shard {shard + 1} of {plan.shards}")
    proof = ShardsProof(shards=plan.shards, unit=unit).model_dump(mode="json")
    return TrainedTeacher("shards", architecture, stacked(networks), proof)


def _of_shard(
    images: ImageSet,
    config: TeachersConfig,
    plan: ShardsTraining,
    seed: int,
    architecture: str,
    device: torch.device | str,
    outliers: Outliers | None,
    weights: Pretrained | None,
) -> HeadedClassifier:
    """A shard's teacher; one with too few images to train on votes for all classes alike, and for none of them."""
    if len(images) >= 2:
        optimiser = PlainTraining(optimiser=plan.optimiser)
        return train_classifier(images, config, seed, architecture, None, device, optimiser, outliers, weights)
    outputs = images.classes + (outliers is not None)
    network = begun(config, architecture, outputs, images.image_shape, seed, weights)
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    return network.eval()
