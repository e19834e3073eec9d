# SPDX-License-Identifier: Apache-2.0
"""Every format is checked before it is there, computes what the student computes, and has its card."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from support.fakes import FakeSilo, brightness_probabilities
from support.tiny_runs import evaluation, tiny_config
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.distillation.run import SiloFacts, distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, RunError
from fedcpsc.export import formats
from fedcpsc.export.export_student import export_run
from fedcpsc.export.plan import Format
from fedcpsc.models.student_file import ABOUT_FILE

FORMATS = list(Format)
NAMES = ("dark", "grün | <b>", "bright")
runner = CliRunner()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "test"
    silos = [FakeSilo("silo-0", class_names=NAMES), FakeSilo("silo|1", class_names=NAMES)]
    facts = {silo.description.silo: SiloFacts(9, brightness_probabilities) for silo in silos}
    distill(tiny_config(), LocalTransport(silos), folder, evaluation=evaluation(), silo_facts=facts)
    return folder


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """All formats in one folder."""
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    out = tmp_path_factory.mktemp("export")
    for file_format in FORMATS:
        export_run(finished, file_format, out)
    return out


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_each_check_was_made_on_a_thousand_images_and_passed(exported):
    record = json.loads((exported / "export.json").read_text())
    assert set(record["formats"]) == {"onnx", "torch-export", "safetensors"}
    for name, check in record["formats"].items():
        assert check["inputs"] == 1000
        assert check["max_difference"] <= check["tolerance"]
        assert (check["tolerance"] == 0) == (name != "onnx")
        assert (exported / check["file"]).stat().st_size == check["bytes"]
    assert not list(exported.glob("partial-*"))


def test_the_cards_own_lines_run_and_agree(exported, monkeypatch):
    """What the card tells to do, done: all three formats give the same logits for the same bytes."""
    monkeypatch.chdir(exported)
    images = np.random.default_rng(3).integers(0, 256, (7, 1, 8, 8)).astype(np.uint8)
    names = {"images": images, "torch": torch}
    logits = []
    recipes = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert len(recipes) == 4
    for recipe in recipes:
        exec(recipe, names)
        if "logits" in names:
            found = names.pop("logits")
            logits.append(found.detach().numpy() if isinstance(found, torch.Tensor) else found)
    assert [found.shape for found in logits] == [(7, 3)] * 3
    assert np.allclose(logits[0], logits[1], atol=1e-5)
    assert (logits[1] == logits[2]).all()
    assert np.abs(logits[1]).max() > 0


def test_the_card_has_a_head_that_the_hub_reads_and_says_what_matters(exported, finished):
    text = (exported / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    result = json.loads((finished / "result.json").read_text())
    assert head["pipeline_tag"] == "image-classification"
    metric = head["model-index"][0]["results"][0]["metrics"][0]
    assert metric == {"type": "accuracy", "value": round(result["student"]["accuracy"], 4)}
    for words in (
        "learnt without data",
        "data-free",
        "| silos | 2 |",
        "| silo-0 | 120 | no | - | - | - | - | none |",
        "| silo/1 | 120 |",
        "Not differentially private: silo-0, silo/1.",
        "pixel / 127.5 - 1, so in [-1, 1]; here C, H, W = 1, 8, 8",
        "Audit: none was given",
        "1,000 images, onnxruntime on the CPU",
        "0 (equal)",
    ):
        assert words in text, words


def test_a_run_that_saw_real_pictures_does_not_call_itself_free_of_data(run):
    path = run / "result.json"
    result = json.loads(path.read_text())
    real = {"kind": "public", "name": "harbour", "pictures": 2000, "sha256": "a" * 64, "images": 60}
    result["real_pictures"] = [{**real, "what": "2,000 unlabelled pictures of the server's own (<b>harbour|)"}]
    path.write_text(json.dumps(result))
    export_run(run, Format.SAFETENSORS)
    text = (run / "export/README.md").read_text()
    assert "data-free" not in text
    assert "without data" not in text
    assert "none that a silo gave" in text, "what the server's own pictures are, nobody can see"
    assert "An image classifier for 3 classes: a server made 120 images" in text
    row = "not free of all data: 60 of 120 query images from 2,000 unlabelled pictures of the server"
    assert f"| real pictures behind the images | {row}" in text
    assert "&lt;b&gt;harbour/" in text
    assert "invented" not in text


def test_the_card_names_silos_that_are_doubted_or_left_out(run):
    path = run / "result.json"
    result = json.loads(path.read_text())
    result["silos"][1] |= {"reputation": 0.1, "suspicion": "its answers turned in the course of the run"}
    result["excluded"] = ["silo-7"]
    path.write_text(json.dumps(result))
    export_run(run, Format.SAFETENSORS)
    text = (run / "export/README.md").read_text()
    assert "- **What silo/1 answered is doubtful**: its answers turned in the course of the run." in text
    assert "What silo-0 answered" not in text
    assert "- Left out by the server's operator, none of their answers used: silo-7." in text


def test_the_card_of_a_run_from_before_silos_could_be_left_out_is_written_too(run):
    path = run / "result.json"
    result = json.loads(path.read_text())
    del result["excluded"]
    path.write_text(json.dumps(result))
    export_run(run, Format.SAFETENSORS)
    assert "Left out by" not in (run / "export/README.md").read_text()


def test_claims_and_the_audits_public_verdict_stand_in_the_card(run, tmp_path):
    path = run / "result.json"
    result = json.loads(path.read_text())
    claim = {
        "dp": True,
        "epsilon": 2.5,
        "delta": 1e-5,
        "unit": "record",
        "relation": "add_remove",
        "mechanism": "dp_sgd",
    }
    result["silos"][0] |= claim
    path.write_text(json.dumps(result))
    (tmp_path / "audit.json").write_text(
        json.dumps(
            {"schema": 1, "rows": [], "bounds": [], "plots": [], "verdict": {"violation": True, "text": "<b>Bad"}}
        )
    )
    export_run(run, Format.SAFETENSORS, audit_dir=tmp_path)
    text = (run / "export/README.md").read_text()
    assert "| silo-0 | 120 | yes | 2.5 | 1e-05 | record | add_remove | dp_sgd |" in text
    assert "Epsilon is what a silo claims" in text
    assert "Not differentially private: silo/1." in text
    assert "Audit: **violation.** &lt;b&gt;Bad" in text


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_computes_something_else_never_appears(run, monkeypatch, file_format):
    pytest.importorskip("onnxscript")
    path = run / "student.safetensors"
    write = {
        Format.ONNX: "_write_onnx",
        Format.TORCH_EXPORT: "_write_torch_export",
        Format.SAFETENSORS: "_write_safetensors",
    }[file_format]
    real = getattr(formats, write)

    def wrong(student, path):
        weight = student.network.head.weight
        with torch.no_grad():
            weight.add_(1e-2)
        real(student, path)
        with torch.no_grad():
            weight.sub_(1e-2)

    monkeypatch.setattr(formats, write, wrong)
    with pytest.raises(RunError, match="difference=.*at most .* on 1000 images"):
        export_run(run, file_format)
    assert list((run / "export").iterdir()) == []
    assert path.exists()


def test_formats_written_before_stay_and_those_of_another_student_do_not(run):
    export_run(run, Format.SAFETENSORS)
    export_run(run, Format.TORCH_EXPORT)
    checks = json.loads((run / "export/export.json").read_text())["formats"]
    assert list(checks) == ["safetensors", "torch-export"]
    from safetensors.torch import load_file, save_file

    tensors = load_file(run / "student.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, run / "student.safetensors")
    export_run(run, Format.SAFETENSORS)
    assert list(json.loads((run / "export/export.json").read_text())["formats"]) == ["safetensors"]


def test_the_safetensors_file_says_what_it_is(exported):

    with safe_open(exported / "student.safetensors", "pt") as file:
        about = file.metadata()
    assert about["architecture"] == "convnet"
    assert (about["width"], about["classes"], about["image_shape"]) == ("4", "3", "1x8x8")
    assert "pixel / 127.5 - 1" in about["input"]


def test_an_unfinished_run_cannot_be_exported(run, tmp_path):
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="has not finished.*--resume"):
        export_run(run, Format.SAFETENSORS)
    assert not (run / "export").exists()
    with pytest.raises(RunError, match="not the folder of a run"):
        export_run(tmp_path, Format.SAFETENSORS)


@pytest.mark.parametrize("damage", ["missing", "half", "other"])
def test_weights_that_are_missing_or_damaged_are_told(run, damage):
    path = run / "student.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "half":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        shutil.copy(run / "generator.safetensors", path)
    with pytest.raises(RunError, match="student=.*cannot be loaded"):
        export_run(run, Format.SAFETENSORS)


def test_missing_packages_are_named_before_anything_is_written(run, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ConfigError, match=r"needs onnxscript; pip install 'fedcpsc\[onnx\]'"):
        export_run(run, Format.ONNX)
    assert not (run / "export").exists()


def test_the_command_line(run, tmp_path):
    done = runner.invoke(cli.app, ["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "student.safetensors",
        "export.json",
        "config.json",
        "README.md",
    }
    assert runner.invoke(cli.app, ["export", str(run), "--format", "pickle"]).exit_code == 2
    assert runner.invoke(cli.app, ["export", str(tmp_path), "--format", "safetensors"]).exit_code == 1
    assert "Example: fedcpsc export" in runner.invoke(cli.app, ["export", "--help"]).output


def test_every_format_names_the_classes(exported):
    import onnx

    named = {}
    with safe_open(exported / "student.safetensors", "pt") as file:
        named["safetensors"] = file.metadata()["class_names"]
    properties = onnx.load(exported / "student.onnx", load_external_data=False).metadata_props
    named["onnx"] = {entry.key: entry.value for entry in properties}["class_names"]
    extra = {ABOUT_FILE: ""}
    torch.export.load(exported / "student.pt2", extra_files=extra)
    named["torch-export"] = json.loads(extra[ABOUT_FILE])["class_names"]
    assert {name: tuple(json.loads(text)) for name, text in named.items()} == dict.fromkeys(named, NAMES)
    config = json.loads((exported / "config.json").read_text())
    assert tuple(config["id2label"][str(k)] for k in range(3)) == NAMES
    assert config["label2id"] == {name: k for k, name in enumerate(NAMES)}
    assert "| 1 | grün / &lt;b&gt; |" in (exported / "README.md").read_text()


@pytest.mark.parametrize("theirs", ['{"model_type": "vit"}', "no json", "[]"])
def test_another_tools_config_is_not_overwritten(run, tmp_path, theirs):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text(theirs)
    with pytest.raises(RunError, match=r"config\.json is not of an export"):
        export_run(run, Format.SAFETENSORS, out)
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == theirs
