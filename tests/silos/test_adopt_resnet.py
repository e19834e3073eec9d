# SPDX-License-Identifier: Apache-2.0
"""One network of torchvision in every form that people keep models in: each becomes a silo that answers as it does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.asked import answers_of

from fedcpsc.errors import ManifestError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.silos.adoption.adopt import adopt
from fedcpsc.silos.adoption.wishes import Hints, Wishes

NAMES, SHAPE = ("cat", "dog", "horse"), (3, 64, 64)
IMAGES = np.random.default_rng(2).integers(0, 256, (5, *SHAPE), dtype=np.uint8)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
SAID = Wishes(
    hints=Hints(image_shape=SHAPE),
    class_names=NAMES,
    normalisation="imagenet",
    population="patients",
    policy=Policy.model_validate({"bits": 32, "service": {"batch_size": 3}}),
)
FORMS = {  # file of each form, and what its owner must add
    "model.onnx": {},
    "weights.pth": {"architecture": "resnet18"},
    "weights.safetensors": {"architecture": "resnet18"},
    "program.pt2": {"allow_code": True},
    "program.pt": {"allow_code": True},
}


@pytest.fixture(scope="module")
def network():
    """A resnet18 of three classes whose normalisations have seen images and whose answers differ."""
    torch.manual_seed(1)
    found = torchvision.models.resnet18(num_classes=3)
    with torch.no_grad():
        for _ in range(2):
            found.train()(torch.randn(4, *SHAPE))
        found.fc.weight.mul_(6)
    return found.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory) -> Path:
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("forms")
    one = torch.randn(1, *SHAPE)
    torch.onnx.export(network, (one,), folder / "model.onnx", verbose=False)  # as torch does it by default
    torch.save(network.state_dict(), folder / "weights.pth")
    save_file(network.state_dict(), folder / "weights.safetensors")
    torch.export.save(torch.export.export(network, (one,)), folder / "program.pt2")
    torch.jit.save(torch.jit.trace(network, one), folder / "program.pt")
    return folder


def own_answers(network) -> np.ndarray:
    with torch.inference_mode():
        return torch.softmax(network((torch.from_numpy(IMAGES) / 255 - MEAN) / STD).double(), 1).numpy()


def asked(folder: Path) -> np.ndarray:
    with contextlib.closing(open_gatekeeper(folder, tried=True)) as gatekeeper:
        return answers_of(gatekeeper, IMAGES)


@pytest.mark.filterwarnings("ignore")  # of torch's exporters, about themselves
@pytest.mark.parametrize("form", FORMS)
def test_one_call_makes_a_silo_of_it_that_answers_as_the_model_does(form, network, files, tmp_path):
    wishes = dataclasses.replace(SAID, hints=dataclasses.replace(SAID.hints, **FORMS[form]))
    found = adopt(files / form, tmp_path / "silo", wishes)
    assert found.trial.warnings == ()
    wanted = own_answers(network)
    assert np.ptp(wanted, axis=0).max() > 0.05  # or a constant would do
    assert np.abs(asked(tmp_path / "silo") - wanted).max() < 1e-3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["program.pt2", "program.pt"])
def test_a_program_that_could_run_code_is_not_opened_without_its_owners_word(form, files, tmp_path):
    with pytest.raises(ManifestError, match="--allow-code"):
        adopt(files / form, tmp_path / "silo", SAID)
    assert not (tmp_path / "silo").exists()


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hugging Face folder and its network."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(3)
    config = transformers.ResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    network = transformers.ResNetForImageClassification(config).eval().requires_grad_(False)
    with torch.inference_mode():  # answers that differ from image to image
        logits = network(pixel_values=(torch.from_numpy(IMAGES) / 255 - MEAN) / STD).logits
    last = network.classifier[-1]
    scale = 2 / logits.std(0).mean()
    last.bias.copy_((last.bias - logits.mean(0)) * scale)
    last.weight.mul_(scale)
    network.save_pretrained(folder)
    preparation = {
        "do_resize": True,
        "size": {"height": SHAPE[1], "width": SHAPE[2]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN.flatten().tolist(),
        "image_std": STD.flatten().tolist(),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation))
    return folder, network


def test_a_hugging_face_folder_says_all_but_the_population(hub, tmp_path):
    folder, network = hub
    found = adopt(folder, tmp_path / "silo", Wishes(population="patients", policy=SAID.policy))
    assert found.manifest.class_names == NAMES
    assert found.manifest.image_shape == SHAPE
    wanted = own_answers(lambda pixels: network(pixel_values=pixels).logits)
    assert np.ptp(wanted, axis=0).max() > 0.05
    assert np.abs(asked(tmp_path / "silo") - wanted).max() < 1e-3


SAID_ON_THE_LINE = ["--classes", "names.txt", "--input", "3x64x64", "--normalisation", "imagenet"]
COMMANDS = {  # what the owner types after `fedcpsc adopt FILE SILO`
    "model.onnx": SAID_ON_THE_LINE,
    "weights.pth": [*SAID_ON_THE_LINE, "--architecture", "resnet18"],
    "program.pt2": [*SAID_ON_THE_LINE, "--allow-code"],
    "program.pt": [*SAID_ON_THE_LINE, "--allow-code"],
    "hub": [],
}


@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", COMMANDS)
def test_one_command_makes_it_a_silo_whose_gatekeeper_serves_the_models_own_answers(form, request, tmp_path):
    """The commands themselves, each a process of its own, and the answers as they come over the socket."""
    if form == "hub":
        model, network = request.getfixturevalue("hub")

        def logits(pixels):
            return network(pixel_values=pixels).logits
    else:
        logits, model = request.getfixturevalue("network"), request.getfixturevalue("files") / form
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "policy.yaml").write_text("bits: 32\nservice: {batch_size: 3}\n")
    command = [str(Path(sys.executable).with_name("fedcpsc"))]
    told = ["--population", "patients", "--policy", "policy.yaml", *COMMANDS[form]]
    adopted = subprocess.run(
        [*command, "adopt", model, "silo", *told], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert adopted.returncode == 0, adopted.stdout + adopted.stderr
    path = tmp_path / "s"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "gatekeeper", "serve", "silo", "--socket", "s"], cwd=tmp_path, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with contextlib.closing(SocketGatekeeper(path)) as gatekeeper:
            served = answers_of(gatekeeper, IMAGES)
    finally:
        process.terminate()
        process.wait(30)
    wanted = own_answers(logits)
    assert np.ptp(wanted, axis=0).max() > 0.05
    assert np.abs(served - wanted).max() < 1e-3
    with contextlib.closing(open_gatekeeper(tmp_path / "silo", tried=True)) as gatekeeper:
        assert gatekeeper.ledger.status().spent.answers == len(IMAGES), "the trials of both commands are not charged"
