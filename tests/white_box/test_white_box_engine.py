# SPDX-License-Identifier: Apache-2.0
"""One white-box round: who learns in which phase, at what rate, and what the reference does otherwise."""

import itertools

import pytest
import torch
from support.tiny_white_box import tiny

from fedcpsc.errors import ConfigError
from fedcpsc.models.dcgan import DcganGenerator, build_generator
from fedcpsc.models.generator import ConditionalGenerator
from fedcpsc.models.registry import build_classifier
from fedcpsc.typed_yaml import load_as
from fedcpsc.white_box.engine import Engine, generator_rate, student_rate
from fedcpsc.white_box.plan import WhiteBoxConfig
from fedcpsc.white_box.quirks import Quirks
from fedcpsc.white_box.teacher import check_teacher


def engine(quirks=None, **changed):
    config = tiny(**changed)
    teacher = build_classifier("convnet", 10, (1, 8, 8), 4, seed=7)
    return Engine(config, teacher, torch.device("cpu"), quirks)


def stream():
    return torch.Generator().manual_seed(5)


def snapshot(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(before, network):
    return all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_in_the_generator_phase_only_generator_adapter_and_z_learn():
    made = engine()
    teacher, student, generator = (snapshot(n) for n in (made.teacher, made.student, made.generator))
    adapter = snapshot(made.adapter)
    made.generator_phase(stream())
    assert same(teacher, made.teacher)  # statistics of batch norm too
    assert same(student, made.student)
    assert not same(generator, made.generator)
    assert adapter
    assert not same(adapter, made.adapter)  # 12 features of the student are brought to the teacher's 16
    assert all(p.grad is None for network in (made.teacher, made.student) for p in network.parameters())
    undisturbed = torch.empty_like(made.z)
    draw = stream()
    torch.randint(0, 10, (8,), generator=draw)  # the labels come first
    assert not torch.equal(made.z, undisturbed.normal_(generator=draw))


def test_in_the_student_phase_only_the_student_learns():
    made = engine()
    teacher, student, weights = snapshot(made.teacher), snapshot(made.student), snapshot(made.generator)
    made.student_phase(stream())
    assert same(teacher, made.teacher)
    assert not same(student, made.student)
    learnt = dict(made.generator.named_parameters())
    assert all(torch.equal(weights[name], parameter) for name, parameter in learnt.items())
    assert all(parameter.grad is None for parameter in learnt.values())


def test_a_round_is_decided_by_its_stream():
    first, again = engine(), engine()
    for made in (first, again):
        made.set_rates(1)
        made.round(stream())
    assert same(snapshot(first.student), again.student)
    assert same(snapshot(first.generator), again.generator)


def test_in_bfloat16_a_round_has_the_losses_of_float32_but_for_rounding():
    exact, rounded = engine(precision="float32"), engine(precision="bfloat16")
    for made in (exact, rounded):
        made.set_rates(1)
    for plain, near in zip(exact.round(stream()), rounded.round(stream()), strict=True):
        assert near.dtype == torch.float32
        assert not torch.equal(plain, near)
        torch.testing.assert_close(near, plain, rtol=0.1, atol=0.05)
    assert all(p.dtype == torch.float32 for p in rounded.student.parameters())


def test_rates_follow_the_paper():
    config = tiny(epochs=12, student={"warm_up": 2, "learning_rate": 0.1})
    assert [student_rate(config, epoch) for epoch in (0, 1, 2)] == pytest.approx([0.05, 0.1, 0.1])
    assert student_rate(config, 7) == pytest.approx(0.05)
    assert 0 < student_rate(config, 11) < 0.01
    assert [generator_rate(config, epoch) for epoch in (0, 2, 3)] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_weight_gradients_are_wasted_only_as_a_quirk():
    made = engine(Quirks(unused_gradients=True))
    made.generator_phase(stream())
    assert all(p.grad is not None for p in made.teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in made.student.parameters())
    without = engine(Quirks())
    without.generator_phase(stream())
    assert all(p.grad is None for p in without.teacher.parameters())
    for ours, theirs in zip(without.generator.parameters(), made.generator.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)  # wasted: nothing else differs


def test_adam_begins_anew_at_each_generator_step_only_as_a_quirk():
    for quirks, steps in ((Quirks(), 4), (Quirks(adam_anew=True), 1)):
        made = engine(quirks)
        made.set_rates(3)
        for _ in range(2):
            made.generator_phase(stream())
        optimiser = made.generator_optimiser
        counted = {int(optimiser.state[p]["step"]) for p in made.generator.parameters() if p in optimiser.state}
        assert counted == {steps}
        # which makes the milestones inert
        assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 if quirks.adam_anew else 1e-5)
        assert int(optimiser.state[made.z]["step"]) == min(steps, 2)  # z is another in each round


def test_z_and_labels_are_drawn_anew_at_each_generator_step_only_as_a_quirk(monkeypatch):
    for quirks, draws in ((Quirks(), 1), (Quirks(draws_anew=True), 2)):
        made, drawn, seen = engine(quirks), [], []
        draw, images = made._draws, made._images
        monkeypatch.setattr(made, "_draws", lambda stream, d=draw, to=drawn: to.append(d(stream)) or to[-1])
        monkeypatch.setattr(made, "_images", lambda z, y, i=images, to=seen: to.append((z.clone(), y)) or i(z, y))
        made.generator_phase(stream())
        assert len(drawn) == draws
        assert all(torch.equal(y, drawn[min(step, draws - 1)][1]) for step, (_, y) in enumerate(seen))
        assert torch.equal(seen[1][0], drawn[-1][0]) == quirks.draws_anew  # else it is the z that a step has moved
        assert int(made.generator_optimiser.state[made.z]["step"]) == 3 - draws


def test_the_student_is_in_training_mode_during_generator_steps_only_as_a_quirk():
    for quirks in (Quirks(), Quirks(student_in_training=True)):
        made = engine(quirks)
        before = snapshot(made.student)
        made.generator_phase(stream())
        changed = {name for name, tensor in made.student.state_dict().items() if not torch.equal(before[name], tensor)}
        statistics = {name for name in before if "running_" in name or "num_batches" in name}
        assert changed == (statistics if quirks.student_in_training else set())
        assert made.student.training
        assert all(parameter.requires_grad for parameter in made.student.parameters())


def test_the_last_norm_stands_behind_tanh_only_as_a_quirk():
    for quirks in (Quirks(), Quirks(norm_after_tanh=True)):
        generator = engine(quirks).generator
        assert generator.reference_order == quirks.norm_after_tanh
        with torch.no_grad():
            largest = generator(torch.randn(64, 8), torch.arange(64) % 10).abs().max()
        assert (largest > 1) == quirks.norm_after_tanh


def test_all_quirks_come_with_the_one_switch():
    assert engine(reference_quirks=True).quirks == Quirks(**dict.fromkeys(Quirks.names(), True))
    assert engine().quirks == Quirks()


def test_the_authors_generator_for_cifar_100_has_the_parameters_counted_by_hand():
    generator = build_generator(256, 100, (3, 32, 32), 64, seed=1)
    linear, embeddings = 257 * 128 * 64, 2 * 100 * (128 + 128 + 64 + 3)
    convolutions = 128 * (128 * 9 + 1) + 64 * (128 * 9 + 1) + 3 * (64 * 9 + 1)
    assert linear + embeddings + convolutions == 2_393_051
    assert sum(p.numel() for p in generator.parameters()) == 2_393_051


def test_large_images_get_the_dcgan_form():
    assert isinstance(build_generator(8, 10, (3, 32, 32), 4, seed=1), ConditionalGenerator)
    large = build_generator(8, 10, (3, 64, 64), 4, seed=1)
    assert isinstance(large, DcganGenerator)
    with torch.no_grad():
        x = large(torch.randn(2, 8), torch.tensor([0, 9]))
    assert x.shape == (2, 3, 64, 64)
    assert x.abs().max() <= 1
    # linear, four doublings of 4x4 kernels, 3x3 to pixels, and two embeddings for each norm
    widths = [32, 16, 8, 4, 4]
    kernels = sum(a * b * 16 + b for a, b in itertools.pairwise(widths))
    wanted = 9 * 32 * 16 + kernels + (4 * 3 * 9 + 3) + 2 * 10 * sum(widths)
    assert sum(p.numel() for p in large.parameters()) == wanted


def test_large_images_get_the_small_form_only_as_a_quirk():
    for quirks, kind in ((Quirks(), DcganGenerator), (Quirks(small_form=True), ConditionalGenerator)):
        teacher = build_classifier("convnet", 10, (1, 64, 64), 4, seed=7)
        assert isinstance(Engine(tiny(), teacher, torch.device("cpu"), quirks).generator, kind)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("student.warmup=3", "unknown key; the nearest valid one is 'warm_up'"),
        ("batch_size=1", "batch_size=1"),
        ("student.warm_up=40", "must be < epochs=40"),
        ("loss.alpha=-1", "alpha=-1"),
    ],
)
def test_what_the_configuration_refuses(override, said):
    with pytest.raises(ConfigError, match=said):
        load_as(WhiteBoxConfig, "configs/white_box_digits.yaml", [override])


def test_the_batch_norm_prior_needs_batch_norms():
    without = build_classifier("convnet_gn", 10, (1, 8, 8), 4, seed=1)
    with pytest.raises(ConfigError, match=r"loss.beta=1.0: needs a teacher with batch norm.*set loss.beta=0"):
        check_teacher(tiny(), without)
    check_teacher(tiny(loss={"beta": 0}), without)
