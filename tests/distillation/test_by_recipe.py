# SPDX-License-Identifier: Apache-2.0
"""Runs whose queries carry recipes: the same images, far fewer bytes, and images again where a silo makes others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config as config

from fedcpsc.config import SynthesisConfig
from fedcpsc.data.images import to_uint8
from fedcpsc.distillation.by_recipe import cut_recipe, synthesise_by_recipe
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RefusalCode
from fedcpsc.models.registry import build_classifier
from fedcpsc.priors.mixture import draw_kinds, sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.protocol.codec import to_bytes
from fedcpsc.protocol.messages import Query, RecipeQuery, Refusal
from fedcpsc.recipes.drawing import draw_images, prior_kinds
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.origins import GENERATOR
from fedcpsc.seeding import derive_seed

SHAPE = (1, 8, 8)


class Cook(FakeSilo):
    """A silo that takes recipes, and keeps count of what it was sent."""

    def __init__(self, name="silo-0", *, refuses=None, **options):
        super().__init__(name, **options)
        self.description = replace(self.description, recipes=True)
        self.refuses = refuses
        self.sent = []

    def answer(self, query):
        self.sent.append(query)
        if isinstance(query, RecipeQuery):
            if self.refuses:
                return Refusal(self.refuses, query.query_id)
            made = Query(query.query_id, query.form, draw_images(query.recipe), query.run)
            assert made.payload_hash == query.payload
            query = made
        return super().answer(query)


def run(tmp_path, silo, **changes):
    changes = {"synthesis__width": 2, "queries__deadline_s": 60.0, **changes}  # a silo draws images, which takes time
    settings = config(silos__count=1, queries__recipes=True, synthesis__candidates=4, **changes)
    told = []
    result = distill(settings, LocalTransport([silo]), tmp_path, tell=told.append)
    return result, told, np.concatenate([query.images for query in silo.queries])


def made(round_index, count=30, candidates=4):
    settings = SynthesisConfig(width=4, latent=8, batch_size=32, steps=2, candidates=candidates, moments=(0.0, 0.5))
    (images, y, generator, _), source = synthesise_by_recipe(
        settings,
        [build_classifier("convnet", 4, SHAPE, 4, seed=i) for i in range(2)],
        count,
        round_index=round_index,
        rounds=10,
        classes=4,
        image_shape=SHAPE,
        seed=7,
        device=torch.device("cpu"),
        tones=Tones(0.0, 0.3, 0.25),
    )
    return settings, images, y, generator, source


def test_every_cut_of_several_rounds_makes_its_images_again():
    rounds = [made(index) for index in (0, 4, 5)]  # the first is all prior
    assert rounds[0][3] is None
    assert (rounds[0][2] == -1).all()
    assert (rounds[1][2] == -1).sum() == 27  # prior_share of 30
    images = np.concatenate([one[1] for one in rounds])
    sources = [one[4] for one in rounds]
    for start, stop in ((0, 90), (0, 30), (10, 35), (25, 65), (60, 61), (89, 90)):
        recipe = cut_recipe(sources, start, stop, rounds[0][0], 4, SHAPE)
        assert recipe.count == stop - start
        np.testing.assert_array_equal(draw_images(recipe), images[start:stop])
    assert len(cut_recipe(sources, 60, 61, rounds[0][0], 4, SHAPE).pools) == 1


def test_one_candidate_an_image_is_all_of_them():
    settings, images, _, _, source = made(4, candidates=1)
    np.testing.assert_array_equal(draw_images(cut_recipe([source], 0, 30, settings, 4, SHAPE)), images)


def test_a_run_by_recipes_is_the_same_run_in_fewer_bytes(tmp_path):
    silo = Cook()
    result, told, asked = run(tmp_path / "recipes", silo)
    assert all(isinstance(query, RecipeQuery) for query in silo.sent)
    assert silo.left == 10_000 - 120, "every image is counted"
    images = FakeSilo()  # takes no recipes
    in_images, _, same = run(tmp_path / "images", images)
    np.testing.assert_array_equal(asked, same)
    assert result["student"] == in_images["student"]
    assert sum(len(to_bytes(query)) for query in silo.sent) < sum(len(to_bytes(query)) for query in images.queries)
    assert told == []


@pytest.mark.parametrize("code", [RefusalCode.RECIPE, RefusalCode.MALFORMED, RefusalCode.TOO_MANY_IMAGES])
def test_a_silo_that_makes_other_images_is_asked_with_images(tmp_path, code):
    silo = Cook(refuses=code)
    result, told, asked = run(tmp_path, silo)
    assert [isinstance(query, RecipeQuery) for query in silo.sent].count(True) == 1, "asked once, not again and again"
    assert len(asked) == 120
    assert result["silos"][0]["answers"] == 120
    assert told == [f"silo-0 is asked with images from now on: it refused a recipe ({code.value})"]


class OtherDecoder(Cook):
    """A silo on whose machine the photographs of scikit-learn come out one level brighter in a pixel."""

    def answer(self, query):
        if isinstance(query, RecipeQuery):
            self.sent.append(query)
            images = draw_images(query.recipe)
            images[0, 0, 0, 0] ^= 1
            made = Query(query.query_id, query.form, images, query.run)
            assert made.payload_hash != query.payload
            return Refusal(RefusalCode.RECIPE, query.query_id)  # as the gatekeeper does, uncharged
        return super().answer(query)


def test_photographs_are_drawn_by_a_silo_and_asked_about_as_images_where_its_decoder_gives_others(tmp_path):
    mixture = {"photographs": 1.0, "smooth": 1.0}
    silo = Cook()
    result, told, asked = run(tmp_path / "recipes", silo, synthesis__prior=mixture)
    assert all(isinstance(query, RecipeQuery) for query in silo.sent)
    assert told == []
    other, other_told, other_asked = run(tmp_path / "other", OtherDecoder(), synthesis__prior=mixture)
    np.testing.assert_array_equal(other_asked, asked)
    assert other["student"] == result["student"]
    assert other_told == ["silo-0 is asked with images from now on: it refused a recipe (recipe)"]


def test_origins_of_images_by_recipe_name_the_prior_that_drew_each(tmp_path):
    mixture = {"photographs": 1.0, "smooth": 3.0}
    run(tmp_path, Cook(), synthesis__prior=mixture, synthesis__prior_share=0.8)
    bank = read_bank(tmp_path / "bank")
    assert bank.origin_names[3:] == ("prior:photographs", "prior:smooth")
    pseudo = np.asarray(bank.pseudo_labels)
    assert ((bank.origins == GENERATOR) == (pseudo >= 0)).all()
    assert set(np.unique(bank.origins)) == {GENERATOR, 3, 4}
    settings, images, _, _, source = made(4)
    kinds = prior_kinds(source.pool, SHAPE)
    stream = torch.Generator().manual_seed(derive_seed(source.pool.seed, "prior", 0))
    first = to_uint8(
        sample_prior(
            dict(source.pool.mixture),
            len(kinds),
            SHAPE,
            stream,
            Tones(source.pool.mean, source.pool.spread, source.pool.anywhere),
        )
    ).numpy()
    chosen = source.chosen[: len(kinds)]
    np.testing.assert_array_equal(first[chosen], images[: chosen.sum()])
    stream.manual_seed(derive_seed(source.pool.seed, "prior", 0))
    np.testing.assert_array_equal(draw_kinds(settings.prior, len(kinds), stream).numpy(), kinds)


def test_a_recipe_that_is_more_than_its_images_is_not_sent(tmp_path):
    silo = Cook()
    run(tmp_path, silo, synthesis__width=32)
    warm_up, *later = silo.sent
    assert isinstance(warm_up, RecipeQuery), "no generator yet"
    assert all(isinstance(query, Query) for query in later)
