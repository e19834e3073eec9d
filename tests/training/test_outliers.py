# SPDX-License-Identifier: Apache-2.0
"""Teachers that can say "none of mine": their public pictures, and that no guarantee suffers by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.images import ImageSet
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import ConfigError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.losses.outlier_exposure import outlier_exposure
from fedcpsc.models.registry import build_classifier
from fedcpsc.priors.photograph_crops import photograph_crops
from fedcpsc.protocol.messages import Answer, AnswerForm, Query
from fedcpsc.silo_config import DataConfig, TeachersConfig
from fedcpsc.silos.make import make_silos
from fedcpsc.teachers.manifest import load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.training.dp_sgd import train_dp_sgd
from fedcpsc.training.outliers import make_outliers
from fedcpsc.training.plain import train_classifier
from fedcpsc.training.plan import DpSgdTraining, PlainTraining, ShardsTraining, used_settings
from fedcpsc.training.public_gradient import PublicGradient
from fedcpsc.training.shards import train_shards

SHAPE = (1, 8, 8)
FEW: dict[str, Any] = {"outliers": {"count": 100}}
SMALL: dict[str, Any] = {"architecture": "convnet", "width": 4, "epochs": 1, "batch_size": 40, "shift": 0, **FEW}


def some(count: int = 240) -> ImageSet:
    """Dark and bright images."""
    stream = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = stream.integers(0, 100, (count, *SHAPE)) + 150 * labels[:, None, None, None]
    return ImageSet(images.astype(np.uint8), labels.astype(np.int64), 2)


def outliers_of(shape: tuple[int, int, int] = SHAPE, seed: int = 1, **changes: Any):
    made = make_outliers(TeachersConfig(outliers={"count": 60} | changes), shape, seed)
    assert made is not None
    return made


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 20), (3, 500, 500)])
def test_crops_are_of_the_photographs_at_any_size(shape):
    crops = photograph_crops(30, shape, torch.Generator().manual_seed(1))
    assert crops.shape == (30, *shape)
    assert crops.abs().max() <= 1
    assert len({crop.numpy().tobytes() for crop in crops}) > 20  # places and sizes differ
    again = photograph_crops(30, shape, torch.Generator().manual_seed(1))
    assert torch.equal(crops, again)
    assert photograph_crops(0, shape, torch.Generator()).shape == (0, *shape)


def test_a_crop_as_large_as_the_photograph_is_the_photograph():
    from sklearn.datasets import load_sample_images

    temple, flower = (picture.mean(2) / 127.5 - 1 for picture in load_sample_images().images)
    whole = photograph_crops(200, (1, 427, 640), torch.Generator().manual_seed(0))[:, 0].numpy()
    for crop in whole[:20]:
        assert min(np.abs(crop - temple).max(), np.abs(crop - flower).max()) < 1e-5


def test_outliers_are_of_both_kinds_and_the_seed_alone_decides_them():
    made = outliers_of((3, 16, 16))
    assert made.images.dtype == torch.uint8
    assert made.images.shape == (60, 3, 16, 16)
    assert torch.equal(made.images, outliers_of((3, 16, 16)).images)
    for other in ({"seed": 2}, {"photographs": 0.0}, {"photographs": 1.0}, {"prior": {"smooth": 1}}):
        assert not torch.equal(made.images, outliers_of((3, 16, 16), **other).images)
    crops = outliers_of((3, 16, 16), photographs=1.0, prior={"strokes": 1})
    assert torch.equal(crops.images, outliers_of((3, 16, 16), photographs=1.0, prior={"smooth": 1}).images)
    assert make_outliers(TeachersConfig(), (3, 16, 16), 1) is None


def test_their_share_of_a_batch_and_their_memory_are_what_was_asked(monkeypatch):
    made = outliers_of(share=0.25)
    assert [made.beside(own) for own in (1, 3, 60)] == [1, 1, 20]
    assert made.draw(7, torch.Generator().manual_seed(0)).shape == (7, *SHAPE)
    monkeypatch.setattr("fedcpsc.training.outliers._MOST_BYTES", 10 * 64)
    assert len(outliers_of().images) == 10


@pytest.mark.parametrize(
    ("outliers", "message"),
    [
        ({"share": 0}, "share=0"),
        ({"share": 1}, "share=1"),
        ({"weight": 0}, "weight=0"),
        ({"none": 0.5}, "none=0.5"),
        ({"photographs": 1.5}, "photographs=1.5"),
        ({"prior": {"smoth": 1}}, "smooth"),
        ({"prior": {"smooth": 0}}, "needs a positive weight"),
        ({"count": 0}, "count=0"),
        ({"picture": 1}, "unknown key"),
    ],
)
def test_what_does_not_fit_is_refused(outliers, message, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({"teachers": {"outliers": outliers}}))
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_manifest_and_a_fingerprint_know_of_outliers_only_where_there_are_any():
    assert "outliers" not in used_settings(PlainTraining(), TeachersConfig())
    with_some = used_settings(PlainTraining(), TeachersConfig(outliers={}))
    assert with_some["outliers"]["share"] == 0.33  # type: ignore[index]
    json.dumps(with_some)


def test_without_outliers_a_teacher_is_what_it_was_and_with_them_it_has_one_output_more():
    images, config = some(60), TeachersConfig(**SMALL)
    without = train_classifier(images, config, 1, "convnet")
    assert without.head.out_features == 2
    made = [train_classifier(images, config, 1, "convnet", outliers=outliers_of(none=q)) for q in (0.9, 0.9, 1.0)]
    assert [network.head.out_features for network in made] == [3, 3, 3]
    assert torch.equal(made[0].head.weight, made[1].head.weight)
    assert not torch.equal(made[0].head.weight, made[2].head.weight)


def digits_of(images: ImageSet, first: int) -> ImageSet:
    own = images.subset(np.flatnonzero((images.labels >= first) & (images.labels < first + 5)))
    return ImageSet(own.images, own.labels - first, 5)


def none_of(network, images: npt.NDArray[np.uint8]) -> float:
    with torch.inference_mode():
        pixels = torch.from_numpy(images).float() / 127.5 - 1
        return float(torch.softmax(network(pixels), 1)[:, -1].mean())


def test_a_teacher_of_five_digits_says_none_of_the_others_more_often_than_of_its_own_and_most_of_outliers():
    train, held_out = load_train(DataConfig(), 1), load_evaluation(DataConfig(), 1)
    assert held_out is not None
    config = TeachersConfig(width=12, epochs=20, outliers={"count": 4000})
    for first in (0, 5):
        outliers = make_outliers(config, SHAPE, 1)
        network = train_classifier(digits_of(train, first), config, 1, "convnet", outliers=outliers)
        own, other = digits_of(held_out, first), digits_of(held_out, 5 - first)
        fresh = outliers_of(seed=9, count=500)
        of_own, of_other = none_of(network, own.images), none_of(network, other.images)
        assert of_own < 0.05
        assert of_other > 2 * of_own
        assert 0.7 < none_of(network, fresh.images.numpy()) < 0.95  # 0.9 was asked for
        with torch.inference_mode():
            logits = network(torch.from_numpy(own.images).float() / 127.5 - 1)
        assert (logits[:, :5].argmax(1).numpy() == own.labels).mean() > 0.93


# Guarantees -----------------------------------------------------------------------------------------------------------


def test_what_outliers_add_to_a_private_step_follows_from_weights_and_public_pictures_alone():
    network = build_classifier("convnet_gn", 3, SHAPE, 4, seed=1)
    config, outliers, device = TeachersConfig(**SMALL), outliers_of(share=0.5), torch.device("cpu")
    parameters = list(network.parameters())
    named = dict(network.named_parameters())
    steps = []
    for _ in range(2):
        public = PublicGradient(network, outliers, config, 1e9, 5, device)
        steps.append([public.next(named, parameters) for _ in range(2)])
    assert torch.equal(steps[0][0], steps[1][0])  # the same seed and weights: no secret has a part in it
    assert not torch.equal(steps[0][0], steps[0][1])  # other pictures in each step
    stream = torch.Generator().manual_seed(public._stream.initial_seed())
    x = outliers.draw(40, stream).float() / 127.5 - 1
    loss = 0.2 * outlier_exposure(network(x), 0.9)
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    torch.testing.assert_close(steps[0][0].float(), expected, rtol=1e-4, atol=1e-6)


def test_what_outliers_add_is_no_larger_than_their_weight_times_a_clipped_gradient():
    network = build_classifier("convnet_gn", 3, SHAPE, 4, seed=1)
    named, parameters = dict(network.named_parameters()), list(network.parameters())
    for weight in (1.0, 0.1):
        public = PublicGradient(
            network, outliers_of(weight=weight), TeachersConfig(**SMALL), 1e-3, 5, torch.device("cpu")
        )
        assert public.next(named, parameters).norm().item() == pytest.approx(1e-3 * weight, rel=1e-6)
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("architecture", ["convnet", "scattering"])
def test_a_private_teacher_with_outliers_proves_what_it_proves_without(architecture):
    plan, proofs = DpSgdTraining(epsilon=8.0, delta=1e-4, records=240), []
    for outliers, outputs in ((FEW["outliers"], 3), (None, 2)):
        config = TeachersConfig(**SMALL | {"outliers": outliers})
        for count in (240, 241) if outputs == 3 else (240,):
            made = train_dp_sgd(some(count), config, plan, 240, 1, architecture, lambda line: None)
            proofs.append(json.dumps(made.proof))
            assert made.states["head.bias"].shape == (outputs,)
    assert len(set(proofs)) == 1


def test_a_unit_more_changes_one_shard_alone_with_outliers_too(tmp_path: Path):
    config, plan = TeachersConfig(**SMALL), ShardsTraining(shards=4)
    made = [train_shards(some(count), config, plan, 1, "convnet", print, tmp_path) for count in (80, 81)]
    weights = [one.states["head.weight"] for one in made]
    assert weights[0].shape[:2] == (4, 3)
    changed = [shard for shard in range(4) if not torch.equal(weights[0][shard], weights[1][shard])]
    assert len(changed) == 1


def test_an_empty_shard_votes_for_all_alike_and_none(tmp_path: Path):
    made = train_shards(some(16), TeachersConfig(**SMALL), ShardsTraining(shards=8), 1, "convnet", print, tmp_path)
    assert made.states["head.bias"].shape == (8, 3)


def a_run(**teachers: Any) -> RunConfig:
    mechanism = teachers.pop("mechanism", {"kind": "none"})
    tree = {
        "data": {"train_limit": 120, "test_limit": 20},
        "silos": {"count": 1, "partition": {"kind": "iid"}, "policy": {"mechanism": mechanism}},
        "teachers": {"width": 4, "epochs": 1, **FEW, **teachers},
    }
    return RunConfig.model_validate(tree)


SHARDS = {"kind": "shards", "shards": 4}


@pytest.mark.parametrize(
    ("training", "mechanism"),
    [
        ({"kind": "plain"}, {"kind": "none"}),
        ({"kind": "plain"}, {"kind": "hardening", "temperature": 2.0, "decimals": 2}),
        ({"kind": "plain"}, {"kind": "noise_only", "sigma": 4.0, "epsilon": 8.0}),
        ({"kind": "plain", "canaries": 20}, {"kind": "none"}),
        ({"kind": "dp_sgd", "epsilon": 8.0, "records": 100}, {"kind": "dp_sgd", "epsilon": 8.0}),
        (SHARDS, {"kind": "shard_votes", "sigma": 1.0, "epsilon": 8.0}),
        (SHARDS, {"kind": "gnmax", "sigma": 4.0, "epsilon": 8.0}),
        (
            SHARDS,
            {"kind": "confident_gnmax", "sigma": 4.0, "epsilon": 8.0, "threshold": 3, "threshold_sigma": 4.0},
        ),
    ],
    ids=lambda facts: facts["kind"],
)
def test_every_mechanism_answers_with_one_value_more(training, mechanism, tmp_path):
    config = a_run(training=training, mechanism=mechanism)
    make_silos(config, tmp_path)
    manifest = load_manifest(tmp_path / "0")
    assert (manifest.classes, manifest.none_class, manifest.outputs) == (10, True, 11)
    assert manifest.training["outliers"]["count"] == 100
    gatekeeper = open_gatekeeper(tmp_path / "0")
    answer = gatekeeper.answer(Query("0" * 32, AnswerForm.PROBABILITIES, np.zeros((3, *SHAPE), np.uint8)))
    gatekeeper.close()
    assert isinstance(answer, Answer)
    assert answer.classes == 11
    assert answer.values.shape == (3, 11)
    (report,) = make_silos(config, tmp_path)
    assert report.reused


def test_outliers_make_another_teacher_and_its_accuracy_is_that_of_its_classes(tmp_path):
    config = a_run(epochs=8, width=8)
    (first,) = make_silos(config, tmp_path)
    assert first.accuracy is not None
    held_out = load_evaluation(config.data, config.seed)
    assert held_out is not None
    teacher = open_teacher(tmp_path / "0", load_manifest(tmp_path / "0"))
    own = teacher.predict(held_out.images)[:, :10].argmax(1)
    assert first.accuracy == pytest.approx((own == held_out.labels).mean())
    without = config.model_copy(update={"teachers": config.teachers.model_copy(update={"outliers": None})})
    (second,) = make_silos(without, tmp_path)
    assert not second.reused
    assert not load_manifest(tmp_path / "0").none_class
