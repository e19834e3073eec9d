# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc adopt`: what an owner sees, and with which code it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.adopted_silo import onnx_model
from support.asked import answers_of, own_softmax
from typer.testing import CliRunner

from fedcpsc.cli import app
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.models.registry import build_classifier
from fedcpsc.protocol.messages import DescribeRequest, Description

SHAPE = (1, 8, 8)
IMAGES = np.random.default_rng(3).integers(0, 256, (30, *SHAPE), dtype=np.uint8)
SAID = ("--input", "1x8x8", "--normalisation", "half", "--population", "patients of clinic north")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(onnx_model(3))
    (tmp_path / "names.txt").write_text("cat\ndog\nhorse\n")
    for name in ("cat", "dog"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (9, 9), 80 * i).save(tmp_path / "own" / name / f"{i}.png")
    return tmp_path


def adopt(files: Path, *more: str, model: str = "model.onnx", silo: str = "north", said: tuple[str, ...] = SAID):
    options = ("--classes", str(files / "names.txt"), *said, *more)
    return CliRunner().invoke(app, ["adopt", str(files / model), str(files / silo), *options])


def test_it_says_what_it_found_how_fast_it_is_and_what_comes_next(files):
    shown = adopt(files, "--answers", "500", "--pictures", str(files / "own"))
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0] == f"{files}/model.onnx: kind onnx, images 1x8x8, 3 outputs (logits)"
    assert lines[1] == "classes: 0 cat, 1 dog, 2 horse"
    assert lines[2] == "pixels: mean 0.5, std 0.5; pictures of another size: squash"
    assert lines[3].startswith("tried on invented images: 1,000 images take ")
    assert lines[4] == "your own pictures, which stay here:"
    assert any(line.startswith("  cat/0.png: ") and "%" in line for line in lines)
    assert any(line.startswith("  cat: ") and "of 3 right" in line for line in lines)
    assert lines[-3:] == [
        f"made {files}/north: silo north, population 'patients of clinic north', at most 500 answers over all time"
        " (policy.yaml)",
        f"next: fedcpsc policy check {files}/north",
        f"then: fedcpsc gatekeeper serve {files}/north --socket /run/fedcpsc/silo.sock",
    ]
    checked = CliRunner().invoke(app, ["policy", "check", str(files / "north")])
    assert checked.exit_code == 0
    assert "at most 500 more answers" in checked.output


def test_numbered_names_go_by_their_numbers_and_the_owner_is_told(files):
    (files / "names.txt").write_text("2 horse\n0 cat\n1 dog\n")
    lines = adopt(files).output.splitlines()
    assert lines[1] == "  every line of names.txt is numbered: names go by these numbers, output 0 is 'cat'"
    assert lines[2] == "classes: 0 cat, 1 dog, 2 horse"


def test_as_json_it_is_one_object(files):
    found = json.loads(adopt(files, "--json", "--class-counts", "5,6,7", "--silo", "clinic north").output)
    assert found["manifest"]["class_names"] == ["cat", "dog", "horse"]
    assert found["manifest"]["private_class_counts"] == [5, 6, 7]
    assert found["manifest"]["silo"] == "clinic north"
    assert found["answers"] == 20_000
    assert found["seconds_per_1000"] > 0
    assert found["pictures"] is None


def test_the_policy_may_come_as_a_file(files):
    (files / "policy.yaml").write_text("answers: 42\nservice: {batch_size: 7}\n")
    assert adopt(files, "--policy", str(files / "policy.yaml")).exit_code == 0
    assert "batch_size: 7" in (files / "north" / "policy.yaml").read_text()
    assert "share_answers: false" in (files / "north" / "policy.yaml").read_text()
    both = adopt(files, "--policy", str(files / "policy.yaml"), "--answers", "5", silo="south")
    assert (both.exit_code, "give --policy or --answers" in both.output) == (2, True)
    consent = adopt(files, "--policy", str(files / "policy.yaml"), "--share-answers", silo="south")
    assert (consent.exit_code, "give --policy or --share-answers" in consent.output) == (2, True)


def test_an_owner_may_let_answers_be_handed_on(files):
    assert adopt(files, "--share-answers", "--answers", "9").exit_code == 0
    assert "share_answers: true" in (files / "north" / "policy.yaml").read_text()
    assert "answers: 9\n" in (files / "north" / "policy.yaml").read_text()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--class-counts", "5,six,7"), 2, "must be whole numbers"),
        (("--class-counts", "0,0,0"), 2, "not all 0"),
        (("--class-counts", "5,-6,7"), 2, "must be >= 0"),
        (("--policy", "no such file"), 1, "cannot be read"),
        (("--pictures", "no such folder"), 1, "no such folder"),
        (("--kind", "torch"), 1, "is read as kind onnx"),
        (("--probabilities",), 1, "probabilities"),
    ],
)
def test_what_is_said_wrong_ends_it_with_a_line_and_nothing_made(more, code, message, files):
    shown = adopt(files, *more)
    assert shown.exit_code == code
    assert message in shown.output
    assert "Traceback" not in shown.output
    assert sorted(path.name for path in files.iterdir()) == ["model.onnx", "names.txt", "own"]


def test_what_is_missing_is_named_at_once(files):
    shown = CliRunner().invoke(app, ["adopt", str(files / "model.onnx"), str(files / "north")])
    assert shown.exit_code == 2
    for option in ("--classes", "--normalisation", "--population"):
        assert f"  {option}" in shown.output


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is an empty file"), (b"\x80\x04\x95pickle", "pickle"), (b"what is this", "is no model|is not|unknown")],
    ids=["empty", "pickle", "unknown"],
)
def test_files_that_are_no_model(content, message, files):
    (files / "model.onnx").write_bytes(content)
    shown = adopt(files)
    assert shown.exit_code == 1
    assert "Traceback" not in shown.output
    assert not (files / "north").exists()


@contextlib.contextmanager
def serving(folder: Path, path: Path):
    """A gatekeeper's process, served by the command line."""
    command = [sys.executable, "-m", "fedcpsc.cli", "gatekeeper", "serve", str(folder), "--socket", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        with contextlib.closing(SocketGatekeeper(path)) as client:
            for _ in range(1200):
                if process.poll() is not None or (
                    path.is_socket() and isinstance(client.describe(DescribeRequest()), Description)
                ):
                    break
                time.sleep(0.05)
            yield client, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def charged(folder: Path) -> int:
    with contextlib.closing(Ledger.read(folder / LEDGER_FILE)) as ledger:
        return ledger.verify().spent.answers


# httpcore drops a socket that found nobody listening without closing it; the collector does
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", ["onnx", "state dict"])
def test_one_command_from_a_model_to_a_served_gatekeeper_whose_answers_are_the_models_own(form, files):
    if form == "onnx":
        shown, wanted = adopt(files), own_softmax(files / "model.onnx", IMAGES)
    else:
        network = build_classifier("convnet", 3, SHAPE, 8, seed=4).eval()
        torch.save(network.state_dict(), files / "weights.pth")
        shown = adopt(files, "--architecture", "convnet", model="weights.pth")
        with torch.inference_mode():
            logits = network(torch.from_numpy(IMAGES).double().div(255).sub(0.5).div(0.5).float())
        wanted = torch.softmax(logits.double(), 1).numpy()
    assert shown.exit_code == 0, shown.output
    with serving(files / "north", files / "s") as (client, process):
        assert process.poll() is None, process.stderr.read()
        for count in (1, 2, 27):
            answers = answers_of(client, IMAGES[:count])
            assert np.abs(answers - wanted[:count]).max() <= 0.5 / 255 + 1e-5
        assert client.health() == "ok"
    assert charged(files / "north") == 30


def test_a_served_gatekeeper_whose_model_was_broken_since_ends_before_it_listens_uncharged(files):
    adopt(files)
    manifest = json.loads((files / "north" / "manifest.json").read_text())
    manifest |= {"classes": 4, "class_names": ["a", "b", "c", "d"]}
    (files / "north" / "manifest.json").write_text(json.dumps(manifest))
    with serving(files / "north", files / "s") as (_, process):
        complaint = process.stderr.read()
        assert process.wait(30) == 1
    assert "error" in complaint
    assert "Traceback" not in complaint
    assert charged(files / "north") == 0
