# SPDX-License-Identifier: Apache-2.0
"""A student that learns to tell the priors' images apart before any silo is asked."""

import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo
from support.tiny_runs import tiny_config

from fedcpsc.config import SynthesisConfig
from fedcpsc.data.images import to_pixels
from fedcpsc.data.random_views import random_view
from fedcpsc.distillation import bank_fit, pretraining
from fedcpsc.distillation.pretraining import pretrain
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.student_check import check_student
from fedcpsc.runs.timeline import read_timeline

CPU = torch.device("cpu")
SHAPE = (3, 16, 16)


def pretrained(network, steps=30, **changes):
    options = {"seed": 1, "device": CPU} | changes
    return pretrain(network, steps, SynthesisConfig(), **options)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(pretraining, "_IMAGES", 300)
    monkeypatch.setattr(pretraining, "_BATCH", 48)


def found_again(network):
    """Share of images whose second view is nearest to their first, of 100 that the network has not seen."""
    stream = torch.Generator().manual_seed(9)
    images = to_pixels(pretraining._images(SynthesisConfig(), SHAPE, 77, None)[:100])
    with torch.no_grad():
        features = [network.eval().forward_with_features(random_view(images, stream))[1] for _ in range(2)]
    one, other = (torch.nn.functional.normalize(each - each.mean(0)) for each in features)
    return ((one @ other.T).argmax(1) == torch.arange(100)).float().mean().item()


def test_views_of_an_image_come_nearer_to_each_other_than_to_other_images():
    network, untrained = (build_classifier("convnet", 3, SHAPE, 8, seed=1) for _ in range(2))
    losses = pretrained(network, 80)
    assert losses.shape == (80,)
    assert losses[-10:].mean() < losses[:10].mean() - 0.5
    assert found_again(network) > 1.5 * found_again(untrained)


def test_the_head_stays_and_all_else_learns():
    network = build_classifier("convnet", 3, SHAPE, 8, seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pretrained(network)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert set(before) - changed == {"head.weight", "head.bias"}
    assert network.training


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_s_random_state():
    torch.manual_seed(5)
    state, found = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        network = build_classifier("convnet", 3, SHAPE, 8, seed=1)
        pretrained(network, 3, seed=seed)
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_images_that_are_large_are_fewer(monkeypatch):
    monkeypatch.setattr(pretraining, "_BYTES", 2**22)
    count = len(pretraining._images(SynthesisConfig(prior={"smooth": 1}), (3, 128, 128), 1, None))
    assert count == 2**22 // (3 * 128 * 128)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_shape_and_range_and_differ(channels):
    x = torch.rand(200, channels, 9, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    one, same, other = (random_view(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape
    assert one.abs().max() <= 1
    assert torch.equal(one, same)
    assert ((one - other).abs().amax((1, 2, 3)) > 0.01).all()
    if channels == 3:
        plain = ((one - one.mean((2, 3), keepdim=True)).std(1).amax((1, 2)) < 1e-5).float().mean()
        assert 0.1 < plain < 0.35  # a fifth lose their colours, all but the tint


def test_what_cannot_be_pre_trained_is_refused():
    config = tiny_config(student__architecture="scattering", student__pretraining_steps=5)
    with pytest.raises(ConfigError, match=r"student.pretraining_steps.*5.*learnt.*scattering.*set it to 0"):
        check_student(config, 3, (1, 8, 8))


def test_a_run_pre_trains_once_one_that_goes_on_not_again_and_a_refit_as_it_did(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(bank_fit, "pretrain", lambda *given, **options: calls.append(1) or pretrain(*given, **options))
    config = tiny_config(student__pretraining_steps=5)

    def dies_once(query, so_far):
        if len(calls) == 1 and so_far >= 2:
            calls.append(0)
            raise KeyboardInterrupt

    silos = [FakeSilo("a", misbehave=dies_once), FakeSilo("b")]
    with pytest.raises(KeyboardInterrupt):
        distill(config, LocalTransport(silos), tmp_path / "run")
    distill(config, LocalTransport(silos), tmp_path / "run", resume=True)
    assert sum(calls) == 1
    spans = [span for span in read_timeline(tmp_path / "run" / "timeline.jsonl") if span.what == "pretraining"]
    assert [span.round for span in spans] == [0]
    refit(tmp_path / "run", config, tmp_path / "again")
    assert sum(calls) == 2
    student, again = (load_file(tmp_path / name / "student.safetensors") for name in ("run", "again"))
    for name, value in student.items():
        assert torch.equal(value, again[name]), name
