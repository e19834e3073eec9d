# SPDX-License-Identifier: Apache-2.0
"""Images of photographs' size: what is worked on together stays small, and small images are as they were."""

import dataclasses

import numpy as np
import pytest
import torch
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from fedcpsc.config import SynthesisConfig
from fedcpsc.distillation import evaluate, selection, synthesis
from fedcpsc.distillation.by_recipe import cut_recipe, synthesise_by_recipe
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.selection import choose, select
from fedcpsc.distillation.synthesis import synthesise
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, ProtocolError
from fedcpsc.large_images import together
from fedcpsc.models.registry import build_classifier
from fedcpsc.priors.mixture import sample_kinds, sample_prior
from fedcpsc.recipes import drawing
from fedcpsc.recipes.drawing import draw_images, generator_batch
from fedcpsc.runs.bank_view import read_bank

CPU, LARGE, SMALL = torch.device("cpu"), (1, 72, 60), (1, 64, 64)


def settings(**changes):
    return SynthesisConfig(
        **{"width": 4, "latent": 8, "batch_size": 16, "steps": 1, "candidates": 4, "moments": (0.0, 0.5), **changes}
    )


def committee(shape):
    return [build_classifier("convnet", 3, shape, 2, seed=i) for i in range(2)]


def make(shape, count=20, function=synthesise):
    return function(
        settings(), committee(shape), count, round_index=5, rounds=10, classes=3, image_shape=shape, seed=7, device=CPU
    )


def test_small_images_are_worked_on_in_the_usual_numbers_and_large_ones_in_fewer():
    assert [together(500, (3, side, side)) for side in (8, 64, 65, 128, 224, 1024)] == [500, 500, 124, 32, 10, 1]
    assert together(3, (3, 224, 224)) == 3
    assert [generator_batch(64, (3, side, side), 16) for side in (64, 128, 224, 512)] == [64, 24, 7, 1]


@pytest.mark.parametrize(("shape", "most"), [(SMALL, 72), (LARGE, 5)])
def test_of_large_images_few_are_drawn_at_once(monkeypatch, shape, most):
    monkeypatch.setattr(synthesis, "PRIOR_PIXELS", 5 * 72 * 60)
    drawn = []

    def counting(mixture, kinds, *rest):
        drawn.append(len(kinds))
        return sample_kinds(mixture, kinds, *rest)

    monkeypatch.setattr(synthesis, "sample_kinds", counting)
    images, y, _, _ = make(shape)
    assert sum(drawn) == 72
    assert max(drawn) == most
    assert (images.shape, (y == -1).sum()) == ((20, *shape), 18)
    assert len({image.tobytes() for image in images}) == 20
    np.testing.assert_array_equal(images, make(shape)[0])


def candidates(shape, count=40):
    images = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return images, torch.arange(count)


def test_of_small_images_all_candidates_compete_in_whatever_chunks_they_come(monkeypatch):
    monkeypatch.setattr(selection, "_BLOCK", 1)
    pool, y = candidates(SMALL)
    nets = committee(SMALL)
    wanted = select(pool, nets, 10, CPU)
    for size in (40, 7):
        chosen = choose(zip(pool.split(size), y.split(size), strict=True), 4, 10, nets, CPU)
        assert torch.equal(chosen.images, pool[wanted])
        assert torch.equal(chosen.y, wanted)
        assert chosen.among.nonzero()[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_large_candidates_compete_in_blocks_that_give_their_share(monkeypatch, size):
    monkeypatch.setattr(selection, "_BLOCK", 8 * 72 * 60)
    pool, y = candidates(LARGE)
    chosen = choose(zip(pool.split(size), y.split(size), strict=True), 4, 10, committee(LARGE), CPU)
    assert chosen.among.sum() == 10
    assert torch.equal(chosen.images, pool[torch.from_numpy(chosen.among)])
    assert chosen.y.tolist() == chosen.among.nonzero()[0].tolist()
    if size < 40:
        assert all(chosen.among[: 4 * n].sum() >= n - 3 for n in range(1, 11)), "no block takes all"


def test_large_images_come_again_from_a_recipe(monkeypatch):
    monkeypatch.setattr(drawing, "PRIOR_PIXELS", 7 * 150 * 140)
    monkeypatch.setattr(drawing, "_MOST_ACTIVATIONS", 2**10)
    monkeypatch.setattr(drawing, "_ACTIVATIONS", 3 * 4 * 150 * 140)
    drawn = []

    def counting(mixture, count, *rest):
        drawn.append(count)
        return sample_prior(mixture, count, *rest)

    monkeypatch.setattr(drawing, "sample_prior", counting)
    shape = (3, 150, 140)
    (images, y, _, _), source = make(shape, 20, synthesise_by_recipe)
    assert (max(drawn), sum(drawn)) == (7, 72)
    assert (y == -1).sum() == 18
    recipe = cut_recipe([source], 0, 20, settings(), 3, shape)
    np.testing.assert_array_equal(draw_images(recipe), images)
    np.testing.assert_array_equal(draw_images(recipe.part(5, 20)), images[5:])
    np.testing.assert_array_equal(draw_images(recipe.part(19, 20)), images[19:])


def test_measuring_takes_few_large_images_at_once(monkeypatch):
    network = build_classifier("convnet", 3, (1, 128, 128), 2, seed=1)
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    images = np.random.default_rng(0).integers(0, 256, (70, 1, 128, 128)).astype(np.uint8)
    found = evaluate.predict(network, images, 500)
    assert seen == [32, 32, 6]
    np.testing.assert_allclose(found, evaluate.predict(network, images, 7), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 100), (1, 37, 5), (3, 224, 224)])
def test_a_run_over_images_of_any_shape(tmp_path, shape):
    changes = {
        "queries__deadline_s": 1e3,
        "queries__answers_per_silo": 8,
        "queries__rounds": 2,
        "synthesis__candidates": 2,
    }
    more = {"student__width": 2, "student__steps_per_round": 1, "student__final_steps": 1, "student__batch_size": 4}
    result = distill(
        tiny_config(silos__count=1, queries__max_megabytes=0.5, **changes, **more),
        LocalTransport([FakeSilo("silo-0", image_shape=shape)]),
        tmp_path,
    )
    assert result["silos"][0]["answers"] == 8
    assert result["image_shape"] == list(shape)
    assert read_bank(tmp_path / "bank").images.shape == (8, *shape)
    assert (tmp_path / "samples.png").stat().st_size > 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 50), (1, 50, 3)])
def test_images_too_small_for_any_student_are_refused_before_a_silo_is_asked(tmp_path, shape):
    silo = FakeSilo("silo-0", image_shape=shape)
    with pytest.raises(ConfigError, match=r"image_shape.*at least \(1, 4, 4\)"):
        distill(tiny_config(silos__count=1), LocalTransport([silo]), tmp_path / "run")
    assert silo.queries == []
    assert not (tmp_path / "run").exists()


def test_images_too_large_for_recipes_are_refused_before_a_silo_is_asked(tmp_path):
    silo = FakeSilo("silo-0", image_shape=(1, 1024, 1024))
    silo.description = dataclasses.replace(silo.description, recipes=True)
    with pytest.raises(ProtocolError, match=r"lower synthesis\.width, or ask with images"):
        distill(
            tiny_config(silos__count=1, queries__recipes=True, synthesis__width=16),
            LocalTransport([silo]),
            tmp_path / "run",
        )
    assert silo.queries == []
