# SPDX-License-Identifier: Apache-2.0
"""Teacher training: it learns, the seed alone decides, and what cannot work says so."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcpsc.data.images import ImageSet, to_pixels
from fedcpsc.data.sources import load_evaluation, load_train
from fedcpsc.errors import ConfigError, DataError, TeacherError
from fedcpsc.silo_config import DataConfig, TeachersConfig
from fedcpsc.training import plain as training
from fedcpsc.training.plain import train_classifier
from fedcpsc.training.plan import PlainTraining, training_plan


def some(count: int, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(rng.integers(0, 256, (count, 1, 8, 8), np.uint8), rng.integers(0, 3, count), 3)


def quick(**changes) -> TeachersConfig:
    return TeachersConfig(**({"width": 4, "epochs": 1, "batch_size": 32} | changes))


def accuracy(network, images: ImageSet) -> float:
    with torch.inference_mode():
        predicted = network(to_pixels(torch.from_numpy(images.images))).argmax(1).numpy()
    return float((predicted == images.labels).mean())


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({}, 0.93),
        ({"architecture": "convnet_gn"}, 0.85),
        ({"training": {"optimiser": "sgd"}, "learning_rate": 0.05}, 0.93),
    ],
)
def test_a_teacher_learns_the_digits(changes, least):
    data = DataConfig()
    config = TeachersConfig(**({"width": 12, "epochs": 10} | changes))
    network = train_classifier(load_train(data, 1), config, 1, config.architecture)
    assert accuracy(network, load_evaluation(data, 1)) > least
    assert not network.training
    assert all(p.is_contiguous() and p.device.type == "cpu" for p in network.state_dict().values())


def test_the_seed_alone_decides_the_weights():
    before = torch.random.get_rng_state()
    config = quick(flip=True)
    a, b, c = (train_classifier(some(70), config, seed, "convnet").state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


@pytest.mark.parametrize(
    "field", [{"shift": 0}, {"flip": True}, {"weight_decay": 0.5}, {"learning_rate": 1e-4}, {"epochs": 2}]
)
def test_every_knob_turns_something(field):
    plain, other = (train_classifier(some(40), quick(**f), 1, "convnet").state_dict() for f in ({}, field))
    assert not torch.equal(plain["head.weight"], other["head.weight"])


@pytest.mark.parametrize("count", [2, 33])
def test_few_images_and_a_lone_last_one(count):
    # ResNet's last map is 1x1 here: batch norm would fail on a batch of one
    network = train_classifier(some(count), quick(), 1, "resnet18_narrow")
    assert all(torch.isfinite(p).all() for p in network.parameters())


@given(st.integers(2, 300), st.integers(1, 64))
def test_an_epoch_shows_every_image_once(count, size):
    batches = training._batches(count, size, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    if size > 1:
        assert min(len(batch) for batch in batches) > 1


@given(st.integers(1, 2000))
def test_the_learning_rate_rises_once_and_falls(steps):
    rates = [training._rate(step, steps) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[peak] == 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if steps >= 200:
        assert rates[0] < 0.2
        assert rates[-1] < 0.01


def test_who_waits_is_told(monkeypatch):
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    train_classifier(some(40), quick(epochs=3), 1, "convnet", lines.append)
    assert lines == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]


def test_one_image_is_too_few():
    with pytest.raises(DataError, match="train_size=1: a teacher needs at least 2 images"):
        train_classifier(some(1), quick(), 1, "convnet")


def test_divergence_is_an_error():
    with pytest.raises(TeacherError, match="learning_rate=1e\\+30: training diverged; lower it"):
        train_classifier(
            some(40), quick(learning_rate=1e30, epochs=3), 1, "convnet", plan=PlainTraining(optimiser="sgd")
        )


@pytest.mark.parametrize(
    ("given_training", "message"),
    [
        ({"kind": "plane"}, "kind='plane'"),
        ({"optimizer": "sgd"}, "optimizer: unknown key; the nearest valid one is 'optimiser'"),
        ({"optimiser": "lion"}, "optimiser='lion'"),
    ],
)
def test_unknown_training_is_a_config_error(given_training, message):
    with pytest.raises(ConfigError, match=message):
        training_plan(quick(training=given_training))
