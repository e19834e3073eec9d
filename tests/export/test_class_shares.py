# SPDX-License-Identifier: Apache-2.0
"""An export may have its class biases fitted to unlabelled pictures: it says so, and the run stays as it is."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.distillation.evaluate import predict
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, DataError, RunError
from fedcpsc.export.class_shares import read_shares
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import Format
from fedcpsc.models.registry import build_classifier

NAMES = ("dark", "grün", "bright")
runner = CliRunner()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "test"
    silos = [FakeSilo("silo-0", class_names=NAMES), FakeSilo("silo-1", class_names=NAMES)]
    distill(tiny_config(student__final_steps=150), LocalTransport(silos), folder, evaluation=evaluation())
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folder of 60 grey pictures, 20 of each class."""
    folder = tmp_path_factory.mktemp("pictures")
    levels = np.random.default_rng(0).integers(0, 256, 600)
    classes = brightness_probabilities(np.broadcast_to(levels[:, None, None, None], (600, 1, 8, 8))).argmax(1)
    for k in range(3):
        for number, level in enumerate(levels[classes == k][:20]):
            Image.fromarray(np.full((16, 16), level, np.uint8)).save(folder / f"{k}-{number}.png")
    return folder


def lean(run, class_number, by):
    """Makes the run's student predict one class too often."""
    path = run / "student.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    tensors["head.bias"][class_number] += by
    save_file(tensors, path, metadata=about)


def exported_accuracy(folder):
    network = build_classifier("convnet", 3, (1, 8, 8), 4)
    network.load_state_dict(load_file(folder / "student.safetensors"))
    held_out = evaluation(600)
    return float((predict(network.eval(), held_out.images).argmax(1) == held_out.labels).mean())


def test_a_student_that_leans_towards_a_class_is_put_right_and_the_run_stays_as_it_is(run, pictures, tmp_path):
    lean(run, 2, 4.0)
    before = hashlib.sha256((run / "student.safetensors").read_bytes()).hexdigest()
    export_run(run, Format.SAFETENSORS, tmp_path / "plain")
    told = []
    export_run(run, Format.SAFETENSORS, tmp_path / "fitted", unlabelled=pictures, tell=told.append)
    assert exported_accuracy(tmp_path / "fitted") > exported_accuracy(tmp_path / "plain") + 0.1
    assert hashlib.sha256((run / "student.safetensors").read_bytes()).hexdigest() == before
    record = json.loads((tmp_path / "fitted/export.json").read_text())["class_biases"]
    assert (record["pictures"], record["uniform"]) == (60, True)
    assert record["biases"][2] == min(record["biases"])
    assert record["before"][2] > record["after"][2]
    text = "\n".join(told)
    assert "pictures without labels: 60" in text
    assert "assuming that each class is as frequent as every other" in text
    assert "bright: mean probability" in text


def test_the_card_tells_it_and_claims_neither_data_free_nor_the_accuracy_before(run, pictures):
    export_run(run, Format.SAFETENSORS, unlabelled=pictures)
    text = (run / "export-unlabelled/README.md").read_text()
    assert "Class biases were fitted to 60 unlabelled pictures" in text
    assert "no guarantee covers these" in text
    assert "Not measured with these class biases." in text, "the run's held-out images cannot be read any more"
    assert "data-free" not in text
    assert "without data" not in text
    assert "model-index" not in yaml.safe_load(text.split("---\n")[1])


def test_formats_with_other_class_biases_never_lie_beside_one_card(run, pictures, tmp_path):
    export_run(run, Format.SAFETENSORS)
    export_run(run, Format.TORCH_EXPORT, unlabelled=pictures)
    export_run(run, Format.SAFETENSORS, unlabelled=pictures)
    assert set(json.loads((run / "export/export.json").read_text())["formats"]) == {"safetensors"}
    record = json.loads((run / "export-unlabelled/export.json").read_text())
    assert set(record["formats"]) == {"torch-export", "safetensors"}
    x = torch.rand(3, 1, 8, 8)
    network = build_classifier("convnet", 3, (1, 8, 8), 4)
    network.load_state_dict(load_file(run / "export-unlabelled/student.safetensors"))
    program = torch.export.load(run / "export-unlabelled/student.pt2").module()
    with torch.no_grad():
        assert torch.allclose(program(x), network.eval()(x), atol=1e-6)
    (tmp_path / "shares.yaml").write_text("dark: 1\ngrün: 1\nbright: 3\n")
    for options in ({"unlabelled": pictures, "class_shares": tmp_path / "shares.yaml"}, {}):
        with pytest.raises(RunError, match="other class biases, or as it was fitted"):
            export_run(run, Format.TORCH_EXPORT, run / "export-unlabelled", **options)
    assert not (run / "export/student.pt2").exists()


def test_stated_shares_are_followed(run, pictures, tmp_path):
    (tmp_path / "shares.yaml").write_text("dark: 10\ngrün: 10\nbright: 180\n")
    arguments = ["--format", "safetensors", "--unlabelled", pictures, "--class-shares", tmp_path / "shares.yaml"]
    done = runner.invoke(cli.app, ["export", str(run), *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert "the stated class shares" in done.output
    record = json.loads((run / "export-unlabelled/export.json").read_text())["class_biases"]
    assert record["shares"] == [0.05, 0.05, 0.9]
    assert record["after"][2] > 0.8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dark: 1\ngrün: 1\n", "lacks bright"),
        ("dark: 1\ngrün: 1\nbright: 1\ngreen: 1\n", "has green, which is no class"),
        ("dark: 1\ngrün: 1\nbright: 0\n", "bright=0: must be a number > 0"),
        ("dark: 1\ngrün: 1\nbright: true\n", "bright=True: must be a number > 0"),
        ("dark: 1\ngrün: 1\nbright: .nan\n", "must be a number > 0"),
        ("dark: 1\ndark: 1\n", "is no plain YAML"),
        ("[1, 1, 1]", "must give each class a number"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(tmp_path, text, words):
    (tmp_path / "shares.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_shares(tmp_path / "shares.yaml", NAMES)


def test_bad_input_is_refused_before_anything_is_written(run, pictures, tmp_path):
    with pytest.raises(ConfigError, match="say nothing without unlabelled pictures"):
        export_run(run, Format.SAFETENSORS, class_shares=tmp_path / "shares.yaml")
    with pytest.raises(DataError, match="--unlabelled.*is not there"):
        export_run(run, Format.SAFETENSORS, unlabelled=tmp_path / "nowhere")
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.iterdir())[:5]:
        shutil.copy(path, few)
    with pytest.raises(DataError, match="5 pictures were found there, there must be at least 15"):
        export_run(run, Format.SAFETENSORS, unlabelled=few)
    for path in pictures.iterdir():
        shutil.copy(path, few)
    (few / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        export_run(run, Format.SAFETENSORS, unlabelled=few)
    assert not list(run.glob("export*"))
