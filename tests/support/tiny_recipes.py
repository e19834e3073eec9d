# SPDX-License-Identifier: Apache-2.0
"""Small recipes."""

from __future__ import annotations

import numpy as np

from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.protocol.messages import AnswerForm, Query, RecipeQuery
from fedcpsc.protocol.recipe import Pool, Recipe
from fedcpsc.recipes.drawing import draw_images
from fedcpsc.recipes.weights import pack_weights

MIXTURE = (("smooth", 1.0), ("strokes", 0.5))


def weights(shape=(1, 4, 4), classes=5, latent=3, width=2) -> np.ndarray:
    """uint16 [1, W] of an untrained generator."""
    return pack_weights(ConditionalGenerator(latent, classes, shape, width))[np.newaxis]


def a_recipe(shape=(1, 4, 4), candidates=(20, 30), count=6, seed=1) -> Recipe:
    """`count` of the candidates of one pool: some of the prior, some of a generator."""
    from_prior, from_generator = candidates
    chosen = np.zeros(sum(candidates), bool)
    chosen[np.random.default_rng(seed).choice(len(chosen), count, replace=False)] = True
    rows = weights(shape) if from_generator else np.zeros((0, 0), np.uint16)
    return Recipe(shape, 5, 3, 2, (Pool(seed, from_prior, from_generator, MIXTURE, -0.2),), rows, np.packbits(chosen))


def both_ways(recipe: Recipe, query_id="a" * 32, form=AnswerForm.PROBABILITIES) -> tuple[Query, RecipeQuery]:
    """The same question with its images and by its recipe."""
    query = Query(query_id, form, draw_images(recipe))
    return query, RecipeQuery(query_id, form, query.payload_hash, recipe)
