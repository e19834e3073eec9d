# SPDX-License-Identifier: Apache-2.0
"""The engine on a device that is not there: nothing lies on the wrong one, and no step waits for it."""

import copy

import numpy as np
import pytest
import torch
from support.fakes import brightness_probabilities
from support.pretended_gpu import PRETENDED, pretended_gpu
from support.tiny_runs import tiny_config

from fedcpsc.choices import PRIORS
from fedcpsc.data.unlabelled import PublicPictures
from fedcpsc.distillation import selection, synthesis
from fedcpsc.distillation.bank_fit import BankFit
from fedcpsc.distillation.bank_reader import BankReader
from fedcpsc.distillation.by_recipe import synthesise_by_recipe
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.round_schedule import RoundSchedule
from fedcpsc.distillation.selection import select
from fedcpsc.distillation.steps import fit, make_committee
from fedcpsc.distillation.synthesis import synthesise, train_generator
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.priors.tones import Tones
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.round_plan import RoundPlan
from fedcpsc.runs.timeline import Timeline
from fedcpsc.transfers import downloaded, uploaded

SHAPE, CLASSES = (3, 8, 8), 3
NONE = np.zeros(0, np.int64)
EVERYTHING = {  # that a step of the fit may do
    "contrastive_weight": 0.1, "mixup": 0.2, "cutmix": 0.2, "noise": 0.1, "flip": True, "average": 0.9,
}  # fmt: skip


def config(**changes):
    return tiny_config(synthesis__width=4, synthesis__steps=3, synthesis__contrastive_weight=0.1, **changes)


def committee(settings):
    return make_committee(settings.student, CLASSES, SHAPE, 1, PRETENDED)


def networks(settings):
    return [member.network for member in committee(settings)]


@pytest.fixture
def bank(tmp_path):
    bank = AnswerBank(tmp_path / "bank", SHAPE, CLASSES, ["a"])
    for number in range(2):
        add(bank, number)
    return bank


def add(bank, number, count=40):
    images = np.random.default_rng(number).integers(0, 256, (count, *SHAPE)).astype(np.uint8)
    batch = bank.add_batch(number, images, np.zeros(count, np.int64))
    bank.add_answers(batch.query_id, "a", brightness_probabilities(images, CLASSES))
    bank.set_targets(batch, brightness_probabilities(images, CLASSES))
    return batch


def test_the_count_sees_each_kind_of_wait_and_tensors_of_two_devices():
    values, here = torch.zeros(4, device=PRETENDED), torch.zeros(4)
    waits_for = {
        "scalar": [values[0].item, lambda: bool(values[0] > 0), lambda: 1 / values[0].item()],
        "download": [values.cpu, values.tolist, lambda: here.copy_(values)],
        "upload": [
            lambda: here.to(PRETENDED),
            lambda: here.to(PRETENDED, non_blocking=True),
            lambda: values[torch.tensor([1, 2])],
        ],
        "size": [values.nonzero, lambda: values[values > 0], lambda: torch.equal(values, values)],
    }
    free = [lambda: values + 1, lambda: uploaded(here, PRETENDED), lambda: values[0], values[:2].mean]
    for kind, calls in waits_for.items():
        for number, call in enumerate(calls):
            with pretended_gpu() as waits:
                call()
            assert waits.counts == {kind: 1}, f"{kind} {number}: {waits.counts}"
    for number, call in enumerate(free):
        with pretended_gpu() as waits:
            call()
        assert waits.total == 0, f"{number}: {waits.where}"
    with pretended_gpu() as waits:
        assert [len(each) for each in downloaded([values, values, values])] == [4, 4, 4]
    assert waits.counts == {"download": 1}, "of several, the last is waited for"
    with pretended_gpu(), pytest.raises(AssertionError, match="two devices"):
        _ = values + here


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"optimiser": "sgd", "batch_size": 8, "contrastive_weight": 0.1}])
def test_no_step_of_the_fit_waits_for_the_device(bank, changes):
    settings = config(**{f"student__{name}": value for name, value in changes.items()})
    reader, pool, fresh = BankReader(bank, PRETENDED), np.arange(80), np.arange(40, 80)
    with pretended_gpu() as waits:
        member = committee(settings)[0]
        average = copy.deepcopy(member.network) if "average" in changes else None
        reader.refresh()
        waits.forget()
        for seed in (1, 2):
            losses = fit(member, settings.student, reader, pool, fresh, 5, seed, fresh_share=0.3, average=average)
    assert losses.device == PRETENDED
    assert waits.total == 0, waits.where
    assert waits.uploads.count((80,)) == waits.uploads.count((40,)) == 1, "rows are uploaded once, not at every call"


def test_a_generator_is_trained_without_a_wait():
    settings = config()
    with pretended_gpu() as waits:
        nets = networks(settings)
        waits.forget()
        made = train_generator(settings.synthesis, nets, CLASSES, SHAPE, 1, PRETENDED)
    assert {parameter.device for parameter in made.parameters()} == {PRETENDED}
    assert waits.total == 0, waits.where


def public_pictures():
    images = np.zeros((30, *SHAPE), np.uint8)
    return PublicPictures(images, zoom=1, name="public", digest="", report=None)


@pytest.mark.parametrize("public", [False, True])
def test_a_rounds_images_take_one_wait_a_source(public):
    settings = config(synthesis__public={"source": "folder", "path": "public"}) if public else config()
    pictures = public_pictures() if public else None
    with pretended_gpu() as waits:
        nets = networks(settings)
        waits.forget()
        made = synthesise(
            settings.synthesis, nets, 40, round_index=3, rounds=4, classes=CLASSES, image_shape=SHAPE, seed=1,
            device=PRETENDED, public=pictures,
        )  # fmt: skip
    assert made.images.shape == (40, *SHAPE)
    assert waits.counts == {"download": 3 if public else 2}, waits.where
    assert not [shape for shape in waits.uploads if shape[1:] == SHAPE] or public, "candidates are drawn on the device"


def test_candidates_that_would_fill_the_device_take_one_wait_a_chunk(monkeypatch):
    monkeypatch.setattr(selection, "_ON_DEVICE", 1000)
    settings = config(synthesis__prior_share=0.0)
    with pretended_gpu() as waits:
        nets = networks(settings)
        waits.forget()
        synthesise(
            settings.synthesis, nets, 100, round_index=3, rounds=4, classes=CLASSES, image_shape=SHAPE, seed=1,
            device=PRETENDED,
        )  # fmt: skip
    chunks = -(-100 * settings.synthesis.candidates // 256)
    assert waits.counts == {"download": chunks + 1}, waits.where  # and one for those that were chosen


def test_images_by_recipe_take_one_wait_a_source_and_one_for_the_weights():
    settings = config()
    with pretended_gpu() as waits:
        nets = networks(settings)
        waits.forget()
        made, _ = synthesise_by_recipe(
            settings.synthesis, nets, 40, round_index=3, rounds=4, classes=CLASSES, image_shape=SHAPE, seed=1,
            device=PRETENDED,
        )  # fmt: skip
    assert made.images.shape == (40, *SHAPE)
    assert waits.counts == {"download": 3}, waits.where


def test_choosing_waits_for_nothing():
    settings = config()
    with pretended_gpu() as waits:
        nets = networks(settings)
        waits.forget()
        chosen = select(torch.zeros(1200, *SHAPE, dtype=torch.uint8), nets, 100, PRETENDED)
    assert (chosen.device, len(chosen)) == (PRETENDED, 100)
    assert waits.total == 0, waits.where


def test_sorts_choose_what_going_through_the_classes_chooses():
    """Ties in entropy, classes of no candidate and of few, and every count."""
    random = np.random.default_rng(3)
    guess = torch.from_numpy(random.choice([0, 2, 3], 60, p=[0.7, 0.25, 0.05]))
    entropy = torch.from_numpy(random.choice(np.linspace(0, 2, 9, dtype=np.float32), 60))
    ranked = []
    for k in range(5):
        own = sorted((i for i in range(60) if guess[i] == k), key=lambda i: (-entropy[i].item(), i))
        ranked += [(place - entropy[i].item() / (1 + entropy.max().item()), i) for place, i in enumerate(own)]
    order = [i for _, i in sorted(ranked)]
    for count in range(1, 61):
        assert selection._least_sure_of_each(guess, entropy, 5, count).tolist() == sorted(order[:count])


@pytest.mark.parametrize("prior", [name for name in PRIORS.built_in() if PRIOR_KINDS.get(name).on_device])
@pytest.mark.parametrize("shape", [SHAPE, (1, 5, 9)])
def test_a_prior_draws_on_the_device_without_a_wait(prior, shape):
    with pretended_gpu() as waits:
        images = PRIOR_KINDS.get(prior).images(6, shape, torch.Generator(PRETENDED))
    assert (images.device, images.shape) == (PRETENDED, (6, *shape))
    assert waits.total == 0, waits.where


def test_a_prior_of_the_cpu_alone_is_drawn_there_from_the_cpus_stream_and_uploaded():
    settings = config(synthesis__prior={"photographs": 1, "smooth": 1})
    kinds = []
    with pretended_gpu() as waits:
        chunks = synthesis._prior_chunks(settings.synthesis, 20, SHAPE, torch.Generator(), kinds, PRETENDED, Tones(0.0))
        ((images, y),) = chunks
    assert images.device == y.device == PRETENDED
    assert (int((kinds[0] == 0).sum()), *SHAPE) in waits.uploads
    assert waits.total == 0, waits.where


def test_measuring_on_held_out_images_waits_once():
    settings = config()
    with pretended_gpu() as waits:
        network = networks(settings)[0]
        waits.forget()
        assert predict(network, np.zeros((130, *SHAPE), np.uint8), 50).shape == (130, CLASSES)
    assert waits.counts == {"download": 1}, waits.where


def test_the_rounds_fit_waits_once_a_network_and_the_final_one_once_a_part(bank, tmp_path):
    """To see that the loss is finite."""
    settings = config()
    keeper = TargetKeeper(bank, settings.aggregation, None)
    timeline = Timeline(tmp_path / "timeline.jsonl", resumed=False)
    schedule = RoundSchedule(0).after(range(1)).after(range(1, 2))
    with pretended_gpu() as waits, fitting(settings, bank, PRETENDED) as how:
        fitted = BankFit(
            RoundPlan.of(settings, None), bank, keeper, timeline, fit=how, device=PRETENDED,
            networks=settings.student.committee,
        )  # fmt: skip
        waits.forget()
        fitted.fit_rounds(range(2, 4), schedule)
        of_rounds = dict(waits.counts)
        waits.forget()
        fitted.fit_student_to_all(schedule, lambda before: np.arange(80), lambda done: None)
    assert of_rounds == {"scalar": 2 * settings.student.committee}
    assert waits.counts == {"scalar": settings.student.final_steps}, waits.where  # eight parts of one step


def test_of_a_growing_bank_only_what_is_new_is_uploaded(bank):
    reader = BankReader(bank, PRETENDED)
    with pretended_gpu() as waits:
        reader.refresh()
        assert waits.uploads == [(80, *SHAPE), (80, CLASSES)]
        waits.forget()
        reader.refresh()
        assert waits.uploads == []
        batch = add(bank, 2, count=10)
        reader.refresh()
        assert waits.uploads == [(10, *SHAPE), (10, CLASSES)]
        waits.forget()
        bank.set_targets(batch, np.zeros((10, CLASSES), np.float32))
        reader.refresh()
        assert waits.uploads == [(10, CLASSES)]
        pixels, targets = reader.batch(torch.zeros(7, dtype=torch.int64, device=PRETENDED))
    assert (pixels.shape, targets.shape) == ((7, *SHAPE), (7, CLASSES))
    assert waits.total == 0, waits.where


def test_nothing_reseeds_the_global_streams(bank, monkeypatch):
    """Neither the CPU's, which is given back as it was, nor those of every GPU."""

    def refuse(*_, **__):
        raise AssertionError("a global stream is seeded")

    for module, name in ((torch, "manual_seed"), (torch.cuda, "manual_seed_all"), (torch.cuda, "manual_seed")):
        monkeypatch.setattr(module, name, refuse)
    settings = config()
    before = torch.get_rng_state()
    with pretended_gpu():
        members = committee(settings)
        reader = BankReader(bank, PRETENDED)
        reader.refresh()
        fit(members[0], settings.student, reader, np.arange(80), NONE, 2, 1)
        synthesise(
            settings.synthesis, [member.network for member in members], 20, round_index=3, rounds=4, classes=CLASSES,
            image_shape=SHAPE, seed=1, device=PRETENDED,
        )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)
