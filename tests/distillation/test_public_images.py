# SPDX-License-Identifier: Apache-2.0
"""Query images from the server's own pictures: how many, how varied, from which, and what a run says of them."""

import json

import numpy as np
import pytest
import torch
from support.fakes import FakeSilo
from support.picture_sources import pictures, png
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.config import SynthesisConfig
from fedcpsc.data.reading import ReadingReport
from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.distillation.public_images import check_enough, crops, public_candidates
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.synthesis import synthesise
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, DataError, RunError
from fedcpsc.models.registry import build_classifier
from fedcpsc.runs.bank_view import read_bank
from fedcpsc.runs.origins import GENERATOR, PUBLIC

SHAPE = (1, 8, 8)


def own(count=40, zoom=2):
    """Pictures of one level each, the i-th of level 5 i: what is made of them tells which it was."""
    level = (5 * np.arange(count)).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(level, (count, 1, 8 * zoom, 8 * zoom)).copy()
    report = ReadingReport("here", "own", (), False, (count,), images.shape[1:], (), "squash")
    return PublicPictures(images, zoom, "here", "0" * 64, report)


def settings(share=0.5, augment=True, **changes):
    usual = {"width": 4, "batch_size": 32, "steps": 2, "candidates": 4, "moments": None}
    return SynthesisConfig(**usual | {"public": {"path": "x", "augment": augment}, "public_share": share} | changes)


def make(config, public, count=40, round_index=5, rounds=10):
    return synthesise(
        config,
        [build_classifier("convnet", 4, SHAPE, 4, seed=i) for i in range(2)],
        count,
        round_index=round_index,
        rounds=rounds,
        classes=4,
        image_shape=SHAPE,
        seed=7,
        device=torch.device("cpu"),
        public=public,
    )


def test_public_pictures_have_their_share_and_prior_and_generator_share_the_rest():
    made = make(settings(share=0.3, prior_share=0.75), own())
    assert np.bincount(made.origins)[[GENERATOR, PUBLIC]].tolist() == [7, 12]
    assert (made.origins > PUBLIC).sum() == 21
    assert (made.y[made.origins == GENERATOR] >= 0).all()
    assert (made.y[made.origins != GENERATOR] == -1).all()
    warm_up = make(settings(share=0.3), own(), round_index=0)
    assert (warm_up.origins == PUBLIC).sum() == 12
    assert (warm_up.origins != GENERATOR).all()
    alone = make(settings(share=1.0), own())
    assert (alone.origins == PUBLIC).all()
    assert alone.generator is None


def test_without_public_pictures_images_are_what_they_were_and_origins_name_each_prior():
    mixture = {"smooth": 1.0, "dead_leaves": 1.0}
    config = SynthesisConfig(width=4, batch_size=32, steps=2, candidates=4, prior_share=0.9, prior=mixture)
    made = make(config, None, count=200)
    from_prior = made.origins[:180]
    assert sorted(set(from_prior)) == [3, 4]  # dead_leaves, smooth
    assert (made.origins[180:] == GENERATOR).all()
    pictures_of = made.images[:180].reshape(180, -1)
    flat = (pictures_of[:, 1:] == pictures_of[:, :-1]).mean(1)  # leaves have flat patches, smooth noise none
    assert flat[from_prior == 3].mean() > flat[from_prior == 4].mean() + 0.2
    beside = make(config.model_copy(update={"public": settings().public, "public_share": 0.0}), own(), count=200)
    np.testing.assert_array_equal(beside.images, made.images)


def test_few_pictures_make_many_candidates_of_which_no_two_are_alike():
    stream = np.random.default_rng(1)
    public = PublicPictures(stream.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8), 2, "x", "0" * 64, own().report)
    each, chunks = public_candidates(public, settings(), 100, 8, round_index=0, rounds=1, seed=1)
    images = torch.cat([part for part, _ in chunks])
    assert (each, images.shape, images.dtype) == (8, (800, 3, 16, 16), torch.uint8)
    assert len(torch.unique(images.flatten(1), dim=0)) == 800


def test_rounds_make_other_candidates_and_the_same_round_the_same():
    def made(round_index, seed=1):
        _, chunks = public_candidates(own(), settings(), 20, 2, round_index=round_index, rounds=9, seed=seed)
        return torch.cat([part for part, _ in chunks])

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert not torch.equal(made(1), made(1, seed=2))


def test_a_crop_is_of_the_picture_and_of_half_its_side_at_least():
    height, width, zoom = 12, 20, 2
    y = (((torch.arange(height * zoom) + 0.5) / (height * zoom)) * 2 - 1)[:, None].expand(-1, width * zoom)
    x = (((torch.arange(width * zoom) + 0.5) / (width * zoom)) * 2 - 1)[None, :].expand(height * zoom, -1)
    cut = crops(torch.stack([y, x]).expand(500, -1, -1, -1), zoom, torch.Generator().manual_seed(0))
    assert cut.shape == (500, 2, height, width)
    tall, wide = cut[:, 0, -1, 0] - cut[:, 0, 0, 0], cut[:, 1, 0, -1] - cut[:, 1, 0, 0]
    for span, pixels in ((tall, height), (wide, width)):
        share = span / 2 * pixels / (pixels - 1)  # from the middle of the first pixel to that of the last
        assert 0.4 < share.min() < 0.55
        assert 0.9 < share.max() < 1.03
    assert cut[:, 0].std(2).max() < 1e-5, "rows stay rows"
    assert cut[:, 0, 0, 0].min() < -0.9
    assert cut[:, 0, -1, 0].max() > 0.9, "crops lie anywhere"


def test_without_augmentation_every_picture_is_asked_about_once_at_most_as_it_is():
    rounds, asked = 4, []
    for r in range(rounds):
        made = make(settings(augment=False), own(40), count=16, round_index=r, rounds=rounds)
        asked += made.images[made.origins == PUBLIC].tolist()
    levels = [int(np.unique(image).item()) for image in np.array(asked)]
    assert len(set(levels)) == len(levels) == 32
    assert all(level % 5 == 0 for level in levels)


def test_too_few_pictures_for_that_are_refused_with_what_would_do():
    def config(augment):
        return tiny_config(synthesis__public={"path": "x", "augment": augment}, synthesis__public_share=0.5)

    check_enough(config(True), 10)
    check_enough(config(False), 60)
    with pytest.raises(
        ConfigError, match=r"59 pictures are too few to ask about 15 in each of 4 rounds; .*augment: true"
    ):
        check_enough(config(False), 59)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "harbour"
    place.mkdir()
    for i, pixels in enumerate(pictures(12)):
        (place / f"{i}.png").write_bytes(png(pixels))
    return place


def run(tmp_path, folder, silos=None, resume=False, told=None, **changes):
    config = tiny_config(synthesis__public={"path": str(folder)}, synthesis__candidates=2, **changes)
    silos = silos or [FakeSilo(f"silo-{i}") for i in range(2)]
    tell = (told if told is not None else []).append
    return distill(config, LocalTransport(silos), tmp_path / "run", evaluation=evaluation(), resume=resume, tell=tell)


def test_a_run_says_which_real_pictures_it_used_and_the_bank_which_images_came_from_them(tmp_path, folder):
    told = []
    result = run(tmp_path, folder, told=told)
    bank = read_bank(tmp_path / "run/bank")
    assert bank.check_sums()
    assert (bank.origins == PUBLIC).sum() == 60
    (real,) = result["real_pictures"]
    assert (real["kind"], real["name"], real["pictures"], real["images"]) == ("public", "harbour", 12, 60)
    assert len(real["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(result), "the last part of the path alone"
    assert told[0].startswith("the server's own pictures, without labels: 12, from ")
    noted = json.loads((tmp_path / "run/public.json").read_text())
    assert noted == {
        "name": "harbour",
        "pictures": 12,
        "sha256": real["sha256"],
        "reading": told[: len(noted["reading"])],
    }


def test_photographs_and_public_pictures_are_both_named_and_a_procedural_run_names_none(tmp_path, folder):
    result = run(tmp_path, folder, synthesis__prior={"photographs": 1, "smooth": 1}, synthesis__prior_share=1.0)
    prior, public = result["real_pictures"]
    assert (prior["kind"], prior["name"], public["kind"]) == ("prior", "photographs", "public")
    bank = read_bank(tmp_path / "run/bank")
    code = bank.origin_names.index("prior:photographs")
    assert prior["images"] == (bank.origins == code).sum() > 10
    silos = [FakeSilo(f"silo-{i}") for i in range(2)]
    plain = distill(tiny_config(), LocalTransport(silos), tmp_path / "plain", evaluation=evaluation())
    assert "real_pictures" not in plain
    assert not (tmp_path / "plain/public.json").exists()


def test_a_killed_run_goes_on_with_the_same_pictures_to_the_same_student(tmp_path, folder):
    whole = run(tmp_path / "whole", folder)
    silos = [FakeSilo(f"silo-{i}") for i in range(2)]

    def dies(query, count):
        if count == 3:
            raise KeyboardInterrupt

    silos[0].misbehave = dies
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, folder, silos)
    silos[0].misbehave = lambda query, count: None
    again = run(tmp_path, folder, silos, resume=True)
    assert again["student"] == whole["student"]
    assert (tmp_path / "run/student.safetensors").read_bytes() == (
        tmp_path / "whole/run/student.safetensors"
    ).read_bytes()


def test_a_run_is_not_resumed_with_other_pictures(tmp_path, folder):
    run(tmp_path, folder)
    (tmp_path / "run/result.json").unlink()
    (folder / "0.png").write_bytes(png(pictures(1, seed=8)[0]))
    silo = FakeSilo("silo-0")
    with pytest.raises(RunError, match="began with other public pictures"):
        run(tmp_path, folder, [silo, FakeSilo("silo-1")], resume=True)
    (tmp_path / "run/public.json").write_text('{"name": "harbour", "pictures": "12"}')
    with pytest.raises(RunError, match=r"public\.json.*is damaged"):
        run(tmp_path, folder, [silo, FakeSilo("silo-1")], resume=True)
    assert silo.queries == []


def test_pictures_that_cannot_be_used_are_refused_before_any_silo_is_asked(tmp_path, folder):
    silos = [FakeSilo(f"silo-{i}") for i in range(2)]
    with pytest.raises(DataError, match="is not there"):
        run(tmp_path, tmp_path / "nowhere", silos)
    assert [silo.calls for silo in silos] == [0, 0]
    (folder / "0.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"0\.png.*skip_damaged"):
        run(tmp_path, folder, silos)
    assert [silo.queries for silo in silos] == [[], []]
    assert not (tmp_path / "run/config.yaml").exists(), "and nothing is left that --resume would trip over"
