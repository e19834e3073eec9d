# SPDX-License-Identifier: Apache-2.0
"""The folder of a run that was cut short, with a bank of every kind of row, made without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from support.tiny_runs import tiny_config

from fedcpsc.config import RunConfig
from fedcpsc.label_sets import SiloClasses, unite
from fedcpsc.protocol.messages import AnswerForm, ClassReport, Description, DpClaim
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_view import BankView, read_bank
from fedcpsc.runs.descriptions import write_descriptions
from fedcpsc.runs.layout import BANK_FOLDER, CONFIG_FILE
from fedcpsc.typed_yaml import save_config

ANIMALS, BIRDS = ("cat", "dog", "eel"), ("dog", "owl")
SHAPE = (3, 4, 5)
NORTH, SOUTH, EAST = "clinic north/ä.x", "south", "east"


@dataclass(frozen=True)
class SharedRun:
    """A run's folder, and what was put into it."""

    folder: Path
    descriptions: dict[str, Description]
    config: RunConfig

    @property
    def bank(self) -> BankView:
        return read_bank(self.folder / BANK_FOLDER)

    def say(self, silo: str, **changes: object) -> None:
        """Lets a silo describe itself otherwise."""
        self.descriptions[silo] = replace(self.descriptions[silo], **changes)
        write_descriptions(self.folder, self.descriptions)


def described(silo: str, names: Sequence[str], *, none_class: bool = False, **more: object) -> Description:
    fields = {"forms": (AnswerForm.PROBABILITIES,), "images_per_query": 64, "answers_total": 999, "answers_left": 900}
    fields |= {"class_names": tuple(names), "none_class": none_class, "share_answers": True, **more}
    return Description(silo, len(names) + none_class, SHAPE, **fields)


def three_silos() -> dict[str, Description]:
    """Two that know the same three classes, and one that knows another, can say "none of these", and is private."""
    claim = DpClaim(True, 2.0, 1e-5, "record", "add_remove", "shard_votes")
    return {
        NORTH: described(NORTH, ANIMALS, class_report=ClassReport((5.0, 6.0, 7.0))),
        EAST: described(EAST, BIRDS, none_class=True, claim=claim, noise_sigma=0.1),
        SOUTH: described(SOUTH, ANIMALS),
    }


def shared_run(
    folder: Path,
    descriptions: Mapping[str, Description] | None = None,
    *,
    rounds: int = 4,
    images: int = 12,
    seed: int = 0,
    seeds: Mapping[str, int] | None = None,
    shape: tuple[int, int, int] = SHAPE,
    **config: object,
) -> SharedRun:
    """A run of some rounds, of each of which the first silo answered all, the others parts, and nobody the last row.

    Args:
        seeds: seeds of silos' answers where they are to differ from what follows from `seed`.
        config: changes of the configuration, as `tiny_config` takes them.
    """
    said = dict(sorted((descriptions or three_silos()).items()))
    made = tiny_config(silos__count=len(said), queries__rounds=rounds, **config)
    sets = unite(
        {
            name: SiloClasses(own.classes - own.none_class, own.class_names, own.none_class)
            for name, own in said.items()
        },
        made.aggregation.aliases,
    )
    folder.mkdir(parents=True)
    save_config(made, folder / CONFIG_FILE)
    write_descriptions(folder, said)
    bank = AnswerBank(folder / BANK_FOLDER, shape, sets.classes, list(said), sets)
    random = np.random.default_rng(seed)
    own_random = {name: np.random.default_rng((seeds or {}).get(name, 100 + seed)) for name in said}
    for number in range(rounds):
        pixels = random.integers(0, 256, (images, *shape)).astype(np.uint8)
        batch = bank.add_batch(number, pixels, random.integers(-1, sets.classes, images))
        for place, (name, own) in enumerate(said.items()):
            answers = own_random[name].dirichlet(np.ones(own.classes), images).astype(np.float32)
            for first, stop in [(0, images - 1)] if place == 0 else [(number, number + 2), (6, 6 + place)]:
                rows = slice(batch.first + first, batch.first + stop)
                bank.add_answers(batch.query_id, name, answers[first:stop], rows)
    return SharedRun(folder, said, made)
