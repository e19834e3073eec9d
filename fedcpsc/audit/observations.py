# SPDX-License-Identifier: Apache-2.0
"""What an attacker has learnt of models: a few numbers for each model and image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Evidence", "Observations"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Observations:
    """What is observed of M models on N images.

    Attributes:
        statistic: nearly Gaussian number, higher for members [M, N]: the logit of the confidence, or the share of the
            views that are labelled rightly.
        likelihood: probability of the true class, or that share, in (0, 1] [M, N].
        loss: log-likelihood of the true class [M, N]; None where only labels are out.
    """

    statistic: Floats
    likelihood: Floats
    loss: Floats | None

    @property
    def labels_only(self) -> bool:
        """Whether only labels are out."""
        return self.loss is None

    def of_images(self, images: Bools) -> Observations:
        """The same models on some of the images.

        Args:
            images: mask of the images to keep [N].
        """
        return self._part(slice(None), images)

    def of_models(self, models: Bools) -> Observations:
        """Some of the models on the same images.

        Args:
            models: mask of the models to keep [M].
        """
        return self._part(models, slice(None))

    def of_model(self, model: int) -> Observations:
        """One model alone on the same images: M is 1.

        Args:
            model: index of the model, in [0, M).
        """
        return self._part(slice(model, model + 1), slice(None))

    def _part(self, models: Bools | slice, images: Bools | slice) -> Observations:
        loss = None if self.loss is None else self.loss[models, images]
        return Observations(self.statistic[models, images], self.likelihood[models, images], loss)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an attack on one model uses. The population is P images that no model was trained on.

    Attributes:
        target: observations of the attacked model [1, N].
        references: observations of the attacker's own S models, its shadows [S, N].
        member: whether shadow s was trained with image i [S, N].
        target_population: observations of the attacked model on the population [1, P].
        reference_population: observations of the shadows on the population [S, P].
    """

    target: Observations
    references: Observations
    member: Bools
    target_population: Observations
    reference_population: Observations

    def of_images(self, images: Bools) -> Evidence:
        """The same on some of the images, with the whole population.

        Args:
            images: mask of the images to keep [N].
        """
        return replace(
            self,
            target=self.target.of_images(images),
            references=self.references.of_images(images),
            member=self.member[:, images],
        )
