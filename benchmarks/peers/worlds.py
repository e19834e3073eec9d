# SPDX-License-Identifier: Apache-2.0
"""The federations that all methods meet: silos made by fedcpsc itself, and what fedcpsc makes of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.peers.pictures import public_pictures
from benchmarks.peers.silos import CountedSilos, Silo, open_silo
from benchmarks.peers.task import Task
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.data.sources import load_evaluation
from fedcpsc.simulated.one_process import run_local
from fedcpsc.sweep.made_silos import copy_made, make_once, silos_key

__all__ = ["SKEWS", "Setting", "World", "load"]

SKEWS = {
    "Dirichlet 0.1": "silos.partition.alpha=0.1",
    "Dirichlet 0.5": "silos.partition.alpha=0.5",
    "IID": "silos.partition={kind: iid}",
}
_DATA = {
    "digits": ("configs/digits.yaml", ["data.validation=300"]),
    "MNIST": (
        "configs/mnist.yaml",
        ["data.path={data}/mnist", "data.image_size=16", "data.train_limit=12000", "data.validation=2000"],
    ),
}
_SMALL = [
    "student.width=16",
    "student.final_steps=2000",
    "evaluation.every=20",
]  # of all methods alike: minutes, not days
_TOGETHER = 500


@dataclass(frozen=True)
class Setting:
    """One kind of federation.

    Attributes:
        data: `digits`, or `MNIST` at 16x16 pixels.
        skew: name in `SKEWS`.
        silos: number of silos.
    """

    data: str
    skew: str
    silos: int = 5

    @property
    def name(self) -> str:
        """As rows are found by."""
        return f"{self.data}, {self.silos} silo{'s' * (self.silos > 1)}, {self.skew}"

    @property
    def config(self) -> str:
        """Path of the configuration."""
        return _DATA[self.data][0]

    @property
    def overrides(self) -> list[str]:
        """What is set over the configuration; `{data}` stands for the folder of the data sets."""
        return [*_DATA[self.data][1], f"silos.count={self.silos}", SKEWS[self.skew], *_SMALL]


@dataclass(frozen=True, eq=False)
class World:
    """A federation of one seed.

    Attributes:
        config: configuration of the run that peers are compared with.
        made: folder of the silos' folders as they were made.
        silos: silos, opened.
        evaluation: validation images, which no silo holds.
        data: folder of the data sets.
    """

    config: RunConfig
    made: Path
    silos: Sequence[Silo]
    evaluation: ImageSet
    data: Path

    def task(self, public: str | None = None, pictures: int = 0) -> Task:
        """What a peer is given.

        Args:
            public: name of the folder of the server's own pictures; None: it has none.
            pictures: number of them.
        """
        shape = self.evaluation.image_shape
        own = None if public is None else public_pictures(public, self.config, self.data, pictures, shape)
        return Task(self.config, shape, self.evaluation.classes, own)

    def sum_of_answers(self) -> dict[str, float]:
        """Accuracy in percent of the best silo's teacher, and of all under two rules: what no student is behind."""
        silos, parts = CountedSilos(self.silos), []
        for first in range(0, len(self.evaluation), _TOGETHER):
            parts.append(silos.measured(to_pixels(torch.from_numpy(self.evaluation.images[first : first + _TOGETHER]))))
        answers, labels = torch.cat(parts, 1), torch.from_numpy(self.evaluation.labels)

        def reached(probabilities: torch.Tensor) -> float:
            return 100 * float((probabilities.argmax(1) == labels).float().mean())

        return {
            "best teacher": max(reached(own) for own in answers),
            "ensemble, mean logits": reached(answers.clamp_min(1e-12).log().mean(0)),
            "ensemble, class counts": reached(silos.pooled(answers)),
        }

    def fedcpsc(self, calls: int) -> float:
        """Accuracy in percent of fedcpsc's own student after so many answers of each silo."""
        with tempfile.TemporaryDirectory() as place:
            copy_made(self.made, Path(place) / "silos", len(self.silos))
            queries = self.config.queries.model_copy(update={"answers_per_silo": calls})
            config = self.config.model_copy(update={"queries": queries})
            run = run_local(config, Path(place) / "run", Path(place) / "silos", resume=False, on_line=lambda line: None)
        assert all(silo["answers"] == calls for silo in run["silos"])
        return 100 * (run["student"]["accuracy"] or 0.0)


def load(setting: Setting, seed: int, data: Path, silos_root: Path, *, answers_alone: bool = False) -> World:
    """Trains the silos of a setting, where `silos_root` does not hold them, and opens them.

    Args:
        answers_alone: whether the silos keep their weights.
    """
    overrides = [item.replace("{data}", str(data)) for item in setting.overrides]
    config = load_config(setting.config, [*overrides, f"seed={seed}"])
    made = silos_root / silos_key(config)
    make_once(config, made, lambda line: None)
    evaluation = load_evaluation(config.data, config.seed)
    assert evaluation is not None
    silos = [open_silo(made / str(number), answers_alone=answers_alone) for number in range(setting.silos)]
    return World(config, made, silos, evaluation, data)
