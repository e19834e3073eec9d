# SPDX-License-Identifier: Apache-2.0
"""What only a GPU can show: the same results but for rounding, no wait where the pretended device saw none, its memory.

`FEDCPSC_GPU_TESTS=cpu` runs them on the CPU, to see that they run (`benchmarks/gpu_check.sh --cpu`).
"""

import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config
from support.tiny_white_box import tiny

from fedcpsc.choices import PRIORS
from fedcpsc.distillation.bank_reader import BankReader
from fedcpsc.distillation.data_parallel import Networks
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.selection import select
from fedcpsc.distillation.steps import fit, make_committee
from fedcpsc.distillation.synthesis import synthesise, train_generator
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.models.arithmetic import gpu_arithmetic
from fedcpsc.models.registry import build_classifier
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.white_box.engine import Engine

ON_CPU = os.environ.get("FEDCPSC_GPU_TESTS") == "cpu"
CPU, DEVICE = torch.device("cpu"), torch.device("cpu" if ON_CPU else "cuda")
SHAPE, CLASSES = (3, 32, 32), 3
NONE = np.zeros(0, np.int64)
pytestmark = pytest.mark.skipif(not (ON_CPU or torch.cuda.is_available()), reason="torch sees no GPU")


@pytest.fixture(autouse=True)
def _precise():
    with gpu_arithmetic(DEVICE):
        yield


@contextmanager
def no_waits():
    """CUDA's own word: an error at every call that waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def bank(tmp_path):
    bank = AnswerBank(tmp_path / "bank", SHAPE, CLASSES, ["a"])
    images = np.random.default_rng(0).integers(0, 256, (160, *SHAPE)).astype(np.uint8)
    bank.set_targets(bank.add_batch(0, images, np.zeros(160, np.int64)), brightness_probabilities(images, CLASSES))
    return bank


def networks(settings, device):
    return [member.network for member in make_committee(settings.student, CLASSES, SHAPE, 1, device)]


def losses(settings, bank, device, networks=None, steps=6):
    member = make_committee(settings.student, CLASSES, SHAPE, 1, device)[0]
    reader = BankReader(bank, device)
    reader.refresh()
    return fit(member, settings.student, reader, np.arange(160), NONE, steps, 1, networks=networks).cpu()


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_a_fit_finds_what_the_cpu_finds(bank, optimiser):
    """Without random views: the two devices' streams differ. Every batch is the whole bank, in some order."""
    settings = tiny_config(student__batch_size=2048, student__shift=0, student__optimiser=optimiser)
    here, there = (losses(settings, bank, device) for device in (CPU, DEVICE))
    assert (here - there).abs().max().item() < 0.05
    assert there[-1] < there[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits(bank, precision):
    settings = tiny_config(
        student__contrastive_weight=0.1, student__mixup=0.2, student__noise=0.1, student__flip=True,
        student__precision=precision, synthesis__precision=precision,
    )  # fmt: skip
    members = make_committee(settings.student, CLASSES, SHAPE, 1, DEVICE)
    reader, pool = BankReader(bank, DEVICE), np.arange(160)
    reader.refresh()
    given = (members[0], settings.student, reader, pool, pool[:40])
    nets, shared = [member.network for member in members], Networks()
    fit(*given, 2, 1, fresh_share=0.3, networks=shared)  # cuDNN times its algorithms, and CUDA loads its kernels
    train_generator(settings.synthesis, nets, CLASSES, SHAPE, 1, DEVICE)
    candidates = torch.zeros(1200, *SHAPE, dtype=torch.uint8)
    select(candidates, nets, 100, DEVICE)
    with no_waits():
        fit(*given, 4, 2, fresh_share=0.3, networks=shared)
        train_generator(settings.synthesis, nets, CLASSES, SHAPE, 2, DEVICE)
        select(candidates, nets, 100, DEVICE)


def test_the_same_candidates_are_chosen_as_on_the_cpu():
    settings = tiny_config()
    pool = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (600, *SHAPE), dtype=np.uint8))
    here, there = (set(select(pool, networks(settings, device), 60, device).tolist()) for device in (CPU, DEVICE))
    assert len(here & there) >= 57, "but for ties within rounding"


def test_measured_accuracies_are_the_cpus():
    images = np.random.default_rng(1).integers(0, 256, (700, *SHAPE), dtype=np.uint8)
    here, there = (predict(networks(tiny_config(), device)[0], images, 256) for device in (CPU, DEVICE))
    np.testing.assert_allclose(there, here, atol=1e-4)


@pytest.mark.parametrize("prior", [name for name in PRIORS.built_in() if PRIOR_KINDS.get(name).on_device])
def test_a_prior_draws_images_of_the_cpus_kind_without_a_wait(prior):
    def drawn(device):
        return PRIOR_KINDS.get(prior).images(400, SHAPE, torch.Generator(device).manual_seed(1))

    drawn(DEVICE)
    with no_waits():
        there = drawn(DEVICE)
    there, here = there.cpu(), drawn(CPU)
    assert there.isfinite().all()
    assert there.abs().max() <= 1.001
    for moment in (torch.mean, torch.std):
        assert abs(moment(there).item() - moment(here).item()) < 0.15


def test_a_round_of_images_repeats_and_the_global_streams_stay():
    settings, made = tiny_config(), []
    nets = networks(settings, DEVICE)
    before = torch.cuda.get_rng_state_all() if DEVICE.type == "cuda" else [torch.get_rng_state()]
    for _ in range(2):
        made.append(
            synthesise(
                settings.synthesis, nets, 40, round_index=3, rounds=4, classes=CLASSES, image_shape=SHAPE, seed=1,
                device=DEVICE,
            ).images
        )  # fmt: skip
    after = torch.cuda.get_rng_state_all() if DEVICE.type == "cuda" else [torch.get_rng_state()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (made[0] == made[1]).mean() > 0.9, "atomic sums may change a choice by rounding"


def test_a_whole_run_ends_with_a_student_above_chance(tmp_path):
    settings = tiny_config(runtime__device=DEVICE.type, student__final_steps=60)
    silos = LocalTransport([FakeSilo("silo-0"), FakeSilo("silo-1")])
    result = distill(settings, silos, tmp_path / "run", evaluation=evaluation())
    assert result["device"].startswith(DEVICE.type)
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run" / "student.safetensors").values())
    assert result["student"]["accuracy"] > 0.4


def test_float32_is_float32_unless_tf32_is_asked_for():
    conv = torch.nn.Conv2d(256, 64, 3).to(DEVICE)
    x = torch.randn(8, 256, 16, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    exact = torch.nn.functional.conv2d(x.double(), conv.weight.double(), conv.bias.double())
    assert ((conv(x) - exact).abs().max() / exact.abs().max()).item() < 1e-5


def test_a_compiled_fit_finds_what_the_plain_one_finds(bank):
    settings = tiny_config(student__batch_size=64)
    plain = losses(settings, bank, DEVICE)
    compiled = losses(settings, bank, DEVICE, Networks(compiled=True, backend="eager" if ON_CPU else "inductor"))
    assert (plain - compiled).abs().max().item() < 0.02


@pytest.mark.skipif(not ON_CPU and torch.cuda.device_count() < 2, reason="torch sees one GPU")
def test_two_gpus_fit_as_one(bank):
    settings = tiny_config(runtime__processes=2)
    alone = losses(settings, bank, DEVICE)
    member = make_committee(settings.student, CLASSES, SHAPE, 1, DEVICE)[0]
    reader = BankReader(bank, DEVICE)
    reader.refresh()
    with fitting(settings, bank, DEVICE) as shared:
        together = shared(member, settings.student, reader, np.arange(160), NONE, 6, 1)
    assert (alone - together.cpu()).abs().max().item() < 1e-3


def test_a_white_box_round_waits_for_nothing_and_its_terms_are_finite():
    teacher = build_classifier("convnet", 10, SHAPE, 8, seed=1)
    engine = Engine(tiny(batch_size=16), teacher, DEVICE)
    stream = torch.Generator(DEVICE).manual_seed(1)
    engine.round(stream)
    with no_waits():
        terms = engine.round(stream)
    assert all(part.isfinite().all() for part in terms)
