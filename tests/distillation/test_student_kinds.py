# SPDX-License-Identifier: Apache-2.0
"""Whole runs with students of a library: from pretrained weights, stopped and resumed, by two processes, exported."""

import json

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config

from fedcpsc.distillation import loop
from fedcpsc.distillation.fitting import fitting
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, RunError
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import Format
from fedcpsc.report.sections.repeat import public_config
from fedcpsc.report.sections.summary import what_was_run
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.runs.read import gather

CPU = torch.device("cpu")
KIND = {
    "architecture": "torchvision/resnet18",
    "normalisation": "imagenet",
    "fellows": "convnet",
    "optimiser": "sgd",
    "learning_rate": 1e-3,
    "mixup": 0.2,
}


def config(weights=None, processes=1, **student):
    given = {**KIND, **({} if weights is None else {"weights": str(weights)}), **student}
    return tiny_config(runtime__processes=processes, **{f"student__{key}": value for key, value in given.items()})


def run(folder, settings, resume=False, silos=None):
    silos = silos or [FakeSilo("silo-0"), FakeSilo("silo-1")]
    return distill(settings, LocalTransport(silos), folder, resume=resume, evaluation=evaluation())


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        save_file(torchvision.models.resnet18(num_classes=20).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "kind"
    return folder, run(folder, config(weights))


def test_the_result_says_what_the_student_is_and_what_it_started_from(finished, weights):
    folder, result = finished
    student = result["student"]
    assert student["architecture"] == "torchvision/resnet18"
    assert "width" not in student
    assert student["optimiser"] == "sgd, momentum 0.9, learning rate 0.001, cosine schedule, mixup 0.2"
    began = student["weights"]
    assert (began["file"], began["tensors"], began["left"]) == ("resnet18.safetensors", 120, ["fc.weight", "fc.bias"])
    assert began["note"] == "starts from weights made with other data"
    plain = torchvision.models.resnet18(num_classes=3)
    plain.load_state_dict(load_file(folder / "student.safetensors"))
    moved = (plain.layer4[1].conv2.weight - load_file(weights)["layer4.1.conv2.weight"]).abs().max()
    assert 0 < moved < 0.05, "it was fitted, from the weights of the file"


def test_the_report_tells_it_and_leaves_the_machines_path_out(finished, weights):
    facts = gather(finished[0])
    (block,) = what_was_run(facts).blocks
    told = dict(block.items)["student"]
    for words in ("torchvision/resnet18, committee of 2 (beside it convnet)", "made with other data", "SHA-256", "sgd"):
        assert words in told
    text, left_out = public_config(facts.config)
    assert str(weights) not in text
    assert left_out == ["student.weights"]
    teachers = facts.config.teachers.model_copy(update={"weights": str(weights)})
    text, left_out = public_config(facts.config.model_copy(update={"teachers": teachers}))
    assert str(weights) not in text
    assert left_out == ["teachers.weights", "student.weights"]


@pytest.mark.parametrize("file_format", list(Format))
def test_each_format_holds_the_normalisation_and_the_card_says_how_it_began(finished, tmp_path, file_format):
    pytest.importorskip("onnxscript")
    export_run(finished[0], file_format, tmp_path)
    check = json.loads((tmp_path / "export.json").read_text())["formats"][file_format.value]
    assert check["max_difference"] <= check["tolerance"]
    card = (tmp_path / "README.md").read_text()
    for words in (
        "**It starts from weights made with other data**: `resnet18.safetensors`, SHA-256 `",
        "| starts from | 120 tensors of `resnet18.safetensors`, all but fc.weight, fc.bias |",
        "| normalisation, inside the network | mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225, of pixels",
        "| fitted by | sgd, momentum 0.9,",
    ):
        assert words in card
    assert json.loads((tmp_path / "config.json").read_text())["fedcpsc"]["normalisation"]["std"] == [
        0.229,
        0.224,
        0.225,
    ]


def test_the_cards_lines_make_the_same_network(finished, tmp_path, monkeypatch):
    export_run(finished[0], Format.SAFETENSORS, tmp_path)
    export_run(finished[0], Format.TORCH_EXPORT, tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {"images": np.random.default_rng(3).integers(0, 256, (7, 1, 8, 8)).astype(np.uint8), "torch": torch}
    logits = []
    for part in (tmp_path / "README.md").read_text().split("```python\n")[1:]:
        exec(part.partition("```")[0], names)
        if "logits" in names:
            logits.append(names.pop("logits").detach())
    assert torch.equal(*logits)


def test_a_run_that_was_stopped_ends_with_the_same_student(finished, weights, tmp_path, monkeypatch):
    save = loop.save_checkpoint

    def stops(*args):
        save(*args)
        if args[3].asked == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", config(weights))
    monkeypatch.undo()
    with pytest.raises(RunError, match="began with another configuration: student.optimiser: sgd -> adam"):
        run(tmp_path / "run", config(weights, optimiser="adam"), resume=True)
    run(tmp_path / "run", config(weights), resume=True)
    whole = load_file(finished[0] / "student.safetensors")
    for name, value in load_file(tmp_path / "run/student.safetensors").items():
        assert torch.equal(value, whole[name]), name


def test_a_run_is_not_resumed_with_another_file_in_the_place_of_its_weights(weights, tmp_path):
    own = tmp_path / "weights"
    own.write_bytes(weights.read_bytes())
    run(tmp_path / "run", config(own))
    state = load_file(weights)
    state["conv1.weight"] += 1
    save_file(state, own)
    with pytest.raises(
        RunError, match="began with other weights, SHA-256 [0-9a-f]{64} -> [0-9a-f]{64}; resume it with"
    ):
        run(tmp_path / "run", config(own), resume=True)


def test_weights_of_another_network_are_told_before_anything_is_asked(weights, tmp_path):
    silo = FakeSilo("silo-0")
    with pytest.raises(ConfigError, match=r"student\.weights=.*does not hold the weights of torchvision/resnet34"):
        run(tmp_path / "run", config(weights, architecture="torchvision/resnet34"), silos=[silo, FakeSilo("silo-1")])
    assert silo.queries == []
    assert not (tmp_path / "run").exists()


@pytest.fixture
def bank(tmp_path):
    bank = AnswerBank(tmp_path / "bank", (1, 8, 8), 3, ["a"])
    images = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8)).astype(np.uint8)
    bank.set_targets(bank.add_batch(0, images, np.zeros(80, np.int64)), brightness_probabilities(images, 3))
    return bank


def test_two_processes_fit_a_librarys_student_as_one_does(bank):
    """With SGD's momentum, mixing, a norm over the whole batch, and the rates of the final fit."""

    def losses(settings, how):
        (member, *_) = make_committee(settings.student, 3, (1, 8, 8), 1, CPU)
        none = np.zeros(0, np.int64)
        given = (member, settings.student, BankReader(bank, CPU), np.arange(80), none, 4)
        return torch.cat([how(*given, seed, cosine_from=(seed, 8)) for seed in (0, 4)])

    student = {"architecture": "torchvision/resnet18", "precision": "float32", "cutmix": 1.0}
    student |= {"schedule": "step", "contrastive_weight": 0.1}
    alone = losses(config(**student), fit)
    with fitting(config(None, 2, **student), bank, CPU) as shared:
        together = losses(config(None, 2, **student), shared)
    assert (alone - together).abs().max().item() < 2e-3
    assert alone.std() > 0.01


def test_a_frozen_student_keeps_all_but_its_head(weights, tmp_path):
    result = run(tmp_path / "frozen", config(weights, frozen=True, committee=1, shift=0))
    given, fitted = load_file(weights), load_file(tmp_path / "frozen" / "student.safetensors")
    assert set(fitted) == set(given)
    assert [name for name in fitted if not torch.equal(fitted[name], given[name])] == ["fc.bias", "fc.weight"]
    assert result["student"]["weights"]["left"] == ["fc.weight", "fc.bias"]
    export_run(tmp_path / "frozen", Format.TORCH_EXPORT, tmp_path / "exported")
    check = json.loads((tmp_path / "exported" / "export.json").read_text())["formats"][Format.TORCH_EXPORT.value]
    assert check["max_difference"] <= check["tolerance"]


def test_a_contrast_of_frozen_features_is_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="contrasts features that are learnt, and those of .* are frozen"):
        run(tmp_path / "contrast", config(weights, frozen=True, committee=1, contrastive_weight=0.1))


def test_a_frozen_student_needs_weights():
    with pytest.raises(ConfigError, match=r"keeps the weights that student.weights names.*set student.weights"):
        config(frozen=True)
