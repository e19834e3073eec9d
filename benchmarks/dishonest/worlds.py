# SPDX-License-Identifier: Apache-2.0
"""The federations that are lied to: silos' honest answers to prior images, and to images kept from every silo."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.aggregation import ask_silos
from benchmarks.dishonest.attacks import Attack, View, told
from fedcpsc.aggregation.rule import Floats
from fedcpsc.config import RunConfig, load_config
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.seeding import numpy_generator

__all__ = ["MOST_CLAIMED", "Setting", "World", "banked", "groups", "lie", "load", "views"]

MOST_CLAIMED = 1e12  # images of a class: the most that a description may say
_BATCHES = 8  # in which the prior images are asked
_SKEWS = {
    "Dirichlet 0.1": "silos.partition.alpha=0.1",
    "Dirichlet 0.3": "silos.partition.alpha=0.3",
    "IID": "silos.partition={kind: iid}",
}
_DATA = {
    "digits": ("configs/digits.yaml", 2000, ["data.validation=300"]),
    "MNIST": (
        "configs/mnist.yaml",
        3000,
        ["data.path={data}/mnist", "data.validation=2000", "data.image_size=16", "data.train_limit=12000"],
    ),
}


@dataclass(frozen=True)
class Setting:
    """One kind of federation.

    Attributes:
        data: `digits`, or `MNIST` at 16x16 pixels.
        silos: number of silos.
        skew: `Dirichlet 0.1`, `Dirichlet 0.3` or `IID`.
    """

    data: str
    silos: int
    skew: str

    @property
    def name(self) -> str:
        """As rows are found by."""
        return f"{self.data}, {self.silos} silos, {self.skew}"

    @property
    def config(self) -> str:
        """Path of the configuration."""
        return _DATA[self.data][0]

    @property
    def images(self) -> int:
        """Prior images that are answered."""
        return _DATA[self.data][1]

    @property
    def overrides(self) -> list[str]:
        """What is set over the configuration; `{data}` stands for the folder of the data sets."""
        return [*_DATA[self.data][2], f"silos.count={self.silos}", _SKEWS[self.skew]]


@dataclass(frozen=True, eq=False)
class World:
    """A federation of one seed, all honest. N images: those of the bank, the held-out, and these with the trigger.

    Attributes:
        config: configuration.
        said: answers of every silo, float32 [S, N, K].
        images: uint8 [N, C, H, W].
        asked: number of images in the bank.
        labels: classes of the held-out images, int64 [V].
        counts: class counts of every silo, float32 [S, K].
    """

    config: RunConfig
    said: Floats
    images: npt.NDArray[np.uint8]
    asked: int
    labels: npt.NDArray[np.int64]
    counts: Floats

    @property
    def held_out(self) -> slice:
        """Rows of the held-out images."""
        return slice(self.asked, self.asked + len(self.labels))

    @property
    def triggered(self) -> slice:
        """Rows of the held-out images with the trigger."""
        return slice(self.asked + len(self.labels), None)


def load(setting: Setting, seed: int, data: str, silos_root: Path) -> World:
    """Trains the silos of a setting, where `silos_root` does not hold them, and asks them."""
    overrides = [item.format(data=data) if "{data}" in item else item for item in setting.overrides]
    config = load_config(setting.config, [*overrides, f"seed={seed}"])
    evaluation, manifests, teachers, asked = ask_silos(config, setting.images, silos_root)
    painted = evaluation.images.copy()
    painted[:, :, : painted.shape[2] // 4, : painted.shape[3] // 4] = 255
    images = np.concatenate([asked, evaluation.images, painted])
    said = np.stack([teacher.predict(images) for teacher in teachers]).astype(np.float32)
    counts = np.array([manifest.private_class_counts for manifest in manifests], np.float32)
    return World(config, said, images, len(asked), evaluation.labels, counts)


def groups(silos: int, together: int, most: int) -> list[tuple[int, ...]]:
    """Which silos lie, one group after the other: all groups of that size, or `most` of them, drawn."""
    every = list(itertools.combinations(range(silos), together))
    if len(every) <= most:
        return every
    chosen = numpy_generator(0, "benchmark liars", silos, together).choice(len(every), most, replace=False)
    return [every[i] for i in sorted(chosen)]


def views(world: World, liars: Sequence[int], seed: int) -> Iterator[View]:
    """What each liar knows."""
    silos = len(world.said)
    honest = [s for s in range(silos) if s not in liars]
    for liar in liars:
        after = next((liar + step) % silos for step in range(1, silos) if (liar + step) % silos in honest)
        yield View(
            own=world.said[liar],
            together=world.said[list(liars)],
            honest=world.said[honest],
            neighbour=world.said[after],
            images=world.images,
            asked=world.asked,
            rng=numpy_generator(seed, "benchmark lies"),
        )


def lie(world: World, attack: Attack, form: str, liars: Sequence[int], seed: int) -> tuple[Floats, Floats]:
    """Answers and class counts of all silos while some lie, [S, N, K] and [S, K]."""
    said, counts = world.said.copy(), world.counts.copy()
    for liar, view in zip(liars, views(world, liars, seed), strict=True):
        said[liar] = told(view.own, attack.claim(view), form)
        if attack.lies_of_counts:
            counts[liar] = MOST_CLAIMED
    return said, counts


@contextmanager
def banked(world: World, said: Floats) -> Iterator[AnswerBank]:
    """An answer bank of the world's prior images with the given answers, in a scratch folder.

    Args:
        world: world whose images are asked.
        said: answers of the silos that take part, [S', N, K].
    """
    memory = Path("/dev/shm")  # noqa: S108 - scratch alone; the bank syncs every write
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        names = [f"silo-{s}" for s in range(len(said))]
        bank = AnswerBank(Path(scratch), world.images.shape[1:], said.shape[2], names)
        for number, rows in enumerate(np.array_split(np.arange(world.asked), _BATCHES)):
            batch = bank.add_batch(number, world.images[rows], np.full(len(rows), -1))
            for name, own in zip(names, said, strict=True):
                bank.add_answers(batch.query_id, name, own[rows])
        yield bank
