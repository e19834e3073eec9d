# SPDX-License-Identifier: Apache-2.0
"""A round group's query images: made against the committee, committed to the bank in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedcpsc.config import SynthesisConfig
from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.distillation.by_recipe import Source, cut_recipe, synthesise_by_recipe
from fedcpsc.distillation.synthesis import Synthesised, synthesise
from fedcpsc.distillation.targets import class_entropy
from fedcpsc.distillation.tones import find_tones, tones_in_words, tones_of_round
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.registry import Classifier
from fedcpsc.priors.tones import Tones
from fedcpsc.protocol.recipe import Recipe
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.bank_journal import Batch
from fedcpsc.runs.origins import origin_table, translated
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.seeding import derive_seed

__all__ = ["GroupImages", "QueryImages"]


@dataclass(frozen=True)
class GroupImages:
    """A round group's images, as the bank holds them.

    Attributes:
        batches: batches of its images.
        recipes: recipe of each batch's images, by query id; empty where they cannot be made again.
        generator: last generator that was trained for them; None where the prior made them all.
    """

    batches: list[Batch]
    recipes: dict[str, Recipe] = field(default_factory=dict)
    generator: ConditionalGenerator | None = None


class QueryImages:
    """Makes the images of round groups. Nothing is remembered between groups but what the bank holds.

    Args:
        plan: rounds of the run, with its configuration.
        bank: answer bank that images are committed to.
        images_per_batch: most images of a batch, >= 1.
        device: device of the committee.
        public: the server's own pictures; None: it has none.
        tell: function called with one line for each event an operator should know.
    """

    def __init__(
        self,
        plan: RoundPlan,
        bank: AnswerBank,
        images_per_batch: int,
        device: torch.device,
        public: PublicPictures | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._public, self._tell = public, tell
        self._said = False
        self._plan = plan
        self._config = plan.config
        self._bank = bank
        self._device = device
        self.images_per_batch = images_per_batch

    def make(self, group: range, committee: Sequence[Classifier], seen: int) -> GroupImages:
        """Synthesises the group's images and commits them to the bank, under the group's last round.

        Where a crash left the first batches in the bank, only the rest is added: images once committed stay.

        Args:
            group: rounds that the images are for.
            committee: networks that guide the generator.
            seen: number of the first round whose answers may not be used yet.
        """
        synthesis = self._synthesis_config(seen)
        found = find_tones(self._plan, self._bank, seen)
        if found is not None and not self._said:
            self._said = True
            self._tell(tones_in_words(self._config.synthesis, found))
        made = [self._make_round(synthesis, committee, round_index, found) for round_index in group]
        images = np.concatenate([one.images for one, _ in made])
        pseudo_labels = np.concatenate([one.y for one, _ in made])
        codes = np.concatenate([one.origins for one, _ in made])
        sources = [source for _, source in made if source is not None]
        origins = translated(codes, origin_table(synthesis.prior), self._bank.origin_names)
        bank, label, step = self._bank, group.stop - 1, self.images_per_batch
        recipes: dict[str, Recipe] = {}
        for i in range(sum(batch.count for batch in bank.round_batches(label)), len(images), step):
            rows = slice(i, i + step)
            batch = bank.add_batch(label, images[rows], pseudo_labels[rows], origins[rows])
            if sources:
                recipe = cut_recipe(sources, i, i + batch.count, synthesis, bank.classes, bank.image_shape)
                recipes[batch.query_id] = recipe
        generator = next((one.generator for one, _ in reversed(made) if one.generator is not None), None)
        return GroupImages(bank.round_batches(label), recipes, generator)

    def _synthesis_config(self, seen: int) -> SynthesisConfig:
        """The configured synthesis; with a larger share of the prior where the generator has gone astray."""
        config, bank = self._config, self._bank
        answered = bank.answered_rows(range(seen))
        if len(answered) == 0 or class_entropy(bank.targets[answered]) >= config.output.alarm_entropy:
            return config.synthesis
        # the teachers call nearly everything one class: ask about the prior instead
        share = min(1.0, 2 * config.synthesis.prior_share + 0.2)
        return config.synthesis.model_copy(update={"prior_share": share})

    def _make_round(
        self, synthesis: SynthesisConfig, committee: Sequence[Classifier], round_index: int, found: Tones | None
    ) -> tuple[Synthesised, Source | None]:
        """One round's images, and what they can be made from again."""
        config, bank = self._config, self._bank
        tones = tones_of_round(self._plan, round_index, found)
        if tones is not None and synthesis.moments is not None:  # the generator's moments are those of the domain, too
            synthesis = synthesis.model_copy(update={"moments": (tones.mean, synthesis.moments[1])})
        count, rounds = self._plan.images_of(round_index), self._plan.rounds
        seed = derive_seed(config.seed, "synthesis")
        if config.queries.recipes:
            return synthesise_by_recipe(
                synthesis, committee, count, round_index=round_index, rounds=rounds, classes=bank.classes,
                image_shape=bank.image_shape, seed=seed, device=self._device, tones=tones,
            )  # fmt: skip
        made = synthesise(
            synthesis, committee, count, round_index=round_index, rounds=rounds, classes=bank.classes,
            image_shape=bank.image_shape, seed=seed, device=self._device, public=self._public, tones=tones,
        )  # fmt: skip
        return made, None
