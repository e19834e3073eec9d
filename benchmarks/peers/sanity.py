# SPDX-License-Identifier: Apache-2.0
"""Does each peer, as written here, show what its own paper shows? So that none is compared that was built to lose."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.dishonest.rows import Row
from benchmarks.peers.methods import FEDAVG, REFERENCES, measured
from benchmarks.peers.rows import PeerRows, measure_seeds
from benchmarks.peers.silos import Silo
from benchmarks.peers.worlds import Setting, World, load
from fedcpsc.data.silo_images import images_of_silos
from fedcpsc.seeding import derive_seed
from fedcpsc.training.plain import train_classifier

__all__ = ["CHECKS", "SAME_START", "run"]

SAME_START = ", same first weights"
BEST, MEAN_LOGITS, _ = REFERENCES
_ONE = "digits, 1 silo, IID"
_SKEWED = f"digits, 5 silos, Dirichlet 0.5{SAME_START}"
_PICTURES = "MNIST, 5 silos, Dirichlet 0.5"

CHECKS: tuple[tuple[str, str, int], ...] = (
    (_ONE, BEST, 0),
    (_ONE, "DFME", 2_000),
    (_ONE, "DFME", 20_000),
    (_ONE, "DFME", 200_000),
    (_ONE, "IDEAL", 2_000),
    (_ONE, "IDEAL", 20_000),
    (_SKEWED, MEAN_LOGITS, 0),
    (_SKEWED, FEDAVG, 0),
    (_SKEWED, "DENSE", 100_000),
    (_PICTURES, MEAN_LOGITS, 0),
    (_PICTURES, "FedDF, MNIST pictures", 5_000),
    (_PICTURES, "FedDF, CIFAR-10 pictures", 5_000),
    (_ONE, "DFME", 500_000),
)
"""(federation, method, calls) of each row. One round of FedAvg averages networks that began from the same weights, as
in DENSE's paper; the silos of fedcpsc begin each from their own, as organisations do that have not met."""


def run(rows: PeerRows, data: Path, silos: Path, seeds: list[int], only: str = "") -> None:
    """Measures what the file lacks.

    Args:
        rows: file of the rows.
        data: folder of the data sets.
        silos: folder in which teachers are kept.
        seeds: seeds of the federations and of the methods.
        only: words that the federation's name and the method's must contain, with " | " between them.
    """
    for name, method, calls in CHECKS:
        if only not in f"{name} | {method}":
            continue
        setting = _setting(name)
        about: Row = {"setting": name, "method": method, "budget": calls}
        about |= {"config": setting.config, "set": setting.overrides}
        begun = time.process_time()
        row = measure_seeds(rows, about, seeds, _measure(name, method, calls, data, silos))
        brief = {key: row[key] for key in ("mean", "std", "calls") if key in row}
        print(f"{rows.key(about)}: {brief} [{time.process_time() - begun:.0f} core-seconds]", flush=True)


def with_same_start(world: World) -> World:
    """The federation with teachers that all began from the same weights."""
    config = world.config
    seed, counts = derive_seed(config.seed, "benchmark same start"), [silo.class_counts for silo in world.silos]
    trained = [
        Silo.of_network(f"silo-{number}", train_classifier(images, config.teachers, seed, "convnet"), counts[number])
        for number, images in images_of_silos(config, range(len(world.silos)))
    ]
    return replace(world, silos=trained)


def _setting(name: str) -> Setting:
    data, silos, skew = name.removesuffix(SAME_START).split(", ")
    return Setting(data, skew, int(silos.split()[0]))


def _measure(name: str, method: str, calls: int, data: Path, silos: Path) -> Callable[[int], dict[str, float]]:
    def measure(seed: int) -> dict[str, float]:
        world = load(_setting(name), seed, data, silos)
        return figures(with_same_start(world) if name.endswith(SAME_START) else world)

    figures = partial(measured, method=method, calls=calls, fit_answers=False)
    return measure
