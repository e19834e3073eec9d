# SPDX-License-Identifier: Apache-2.0
"""Images from recipes: the same wherever they are made, and only what was chosen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_recipes import MIXTURE, a_recipe, weights

from fedcpsc.choices import DEFAULT_MIXTURE, PRIORS
from fedcpsc.errors import ConfigError, ProtocolError
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.protocol.recipe import Pool, Recipe
from fedcpsc.recipes import drawing
from fedcpsc.recipes.drawing import draw_candidates, draw_images
from fedcpsc.recipes.weights import pack_weights, recipe_generator, seed_projection

SHAPE = (3, 8, 8)


def two_pools() -> tuple[Recipe, np.ndarray]:
    """One of the prior alone and one of both, each in several chunks; and which candidates were chosen."""
    everything = tuple((name, 1.0) for name in sorted(DEFAULT_MIXTURE))
    pools = (Pool(3, 700, 0, everything, -0.3), Pool(5, 300, 600, MIXTURE))
    chosen = np.random.default_rng(0).random(1600) < 0.1
    return Recipe(SHAPE, 4, 8, 4, pools, weights(SHAPE, 4, 8, 4), np.packbits(chosen)), chosen


def test_a_silo_makes_the_very_images_that_the_server_chose():
    recipe, chosen = two_pools()
    first, second = recipe.pools
    generator = recipe_generator(8, 4, SHAPE, 4, second.seed, recipe.weights[0])
    images, labels = [], []
    for pool, source in ((first, None), (second, None), (second, generator)):
        for part, y in draw_candidates(pool, SHAPE, 4, 8, source):
            images.append(part)
            labels.append(y)
    y = torch.cat(labels)
    assert (y[:1000] == -1).all()
    assert np.bincount(y[1000:]).tolist() == [150] * 4
    np.testing.assert_array_equal(draw_images(recipe), torch.cat(images).numpy()[chosen])


def test_threads_and_what_else_was_drawn_change_no_bit():
    recipe = a_recipe((1, 28, 28), candidates=(64, 64), count=20)  # enough pixels for more threads to share them
    mixture = (*((name, 1.0) for name in sorted(PRIORS.built_in())),)
    recipe = replace(recipe, pools=tuple(replace(pool, mixture=mixture) for pool in recipe.pools))
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    images = draw_images(recipe)
    assert torch.equal(torch.random.get_rng_state(), state), "torch's global stream is left alone"
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.rand(3)
            np.testing.assert_array_equal(draw_images(recipe), images)
    finally:
        torch.set_num_threads(before)


def test_chunks_of_which_nothing_was_chosen_are_not_made(monkeypatch):
    made = []
    monkeypatch.setattr(
        drawing, "sample_prior", lambda mixture, count, *rest: made.append(count) or torch.zeros(count, 1, 4, 4)
    )
    chosen = np.zeros(1300, bool)
    chosen[[510, 999]] = True
    recipe = Recipe((1, 4, 4), 5, 3, 2, (Pool(1, 1300, 0, MIXTURE),), np.zeros((0, 0), np.uint16), np.packbits(chosen))
    assert len(draw_images(recipe)) == 2
    assert made == [500]


def test_every_part_of_a_recipe_makes_a_difference():
    recipe = a_recipe(candidates=(4, 4), count=8)
    pool = recipe.pools[0]
    images = draw_images(recipe)
    for other in (replace(pool, seed=2), replace(pool, mean=0.5), replace(pool, mixture=(("spectral", 1.0),))):
        changed = draw_images(replace(recipe, pools=(other,)))
        assert (changed != images).any()
    flipped = recipe.weights.copy()
    flipped[0, 0] ^= 0x0200  # one bit of one weight's mantissa
    changed = draw_images(replace(recipe, weights=flipped))
    np.testing.assert_array_equal(changed[:4], images[:4])
    assert (changed[4:] != images[4:]).any()


def test_a_generator_comes_back_with_its_weights_rounded_and_its_projection_from_the_seed():
    generator = ConditionalGenerator(8, 4, SHAPE, 4)
    seed_projection(generator, 9)
    assert not generator.project.weight.requires_grad
    again = recipe_generator(8, 4, SHAPE, 4, 9, pack_weights(generator))
    for (name, one), other in zip(generator.named_parameters(), again.parameters(), strict=True):
        wanted = one if name.startswith("project.") else one.half().float()
        assert torch.equal(other, wanted), name
    bound = 8**-0.5
    assert 0.9 * bound < generator.project.weight.abs().max() <= bound
    assert not torch.equal(
        recipe_generator(8, 4, SHAPE, 4, 10, pack_weights(generator)).project.weight, again.project.weight
    )


@pytest.mark.parametrize("wrong", [np.zeros((1, 3), np.uint16), np.full_like(weights(), 0x7E00)])
def test_weights_of_another_generator_or_not_finite_are_refused(wrong):
    with pytest.raises(ProtocolError, match="finite numbers of its generator"):
        draw_images(replace(a_recipe(), weights=wrong))


def test_an_unknown_prior_is_refused():
    pool = replace(a_recipe().pools[0], mixture=(("os.system", 1.0),))
    with pytest.raises(ConfigError, match="must be one of"):
        draw_images(replace(a_recipe(), pools=(pool,)))
