# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc run --local` with a student of torchvision, and paths that Flower's processes find from anywhere."""

import io
import json
from pathlib import Path

import pytest
import torch
import torchvision
from rich.console import Console
from support.tiny_runs import SMOKE, TINY_SMOKE

from fedcpsc.commands.run_command import Request, run_once, with_absolute_paths
from fedcpsc.errors import ConfigError, RunError
from fedcpsc.models.registry import build_classifier
from fedcpsc.runs.claim import Existing

STUDENT = (
    "student.architecture=torchvision/resnet18",
    "student.normalisation=imagenet",
    "student.fellows=convnet",
    "student.optimiser=sgd",
    "student.mixup=0.2",
    "student.weights=weights.pth",
)


def tiny(*overrides):
    return Request(SMOKE, (*TINY_SMOKE, *overrides), Existing.REFUSE, local=True)


@pytest.fixture
def console(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Console(file=io.StringIO(), width=140)


def test_a_local_run_fits_a_student_of_torchvision_from_weights_on_the_disk(console, tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "weights.pth")
    result = run_once(tiny(*STUDENT), console)
    assert result["student"]["weights"]["file"] == "weights.pth"
    assert result["student"]["accuracy"] is not None
    assert json.loads(Path("runs/smoke/student.json").read_text())["weights"] == result["student"]["weights"]["sha256"]
    assert f"weights: {tmp_path}/weights.pth" in Path("runs/smoke/config.yaml").read_text()
    assert "made with other data" in Path("runs/smoke/report.html").read_text()


def test_weights_that_are_not_there_are_told_before_a_teacher_is_trained(console):
    with pytest.raises(ConfigError, match=r"student\.weights='.*/weights\.pth': is not there; check the path"):
        run_once(tiny(*STUDENT), console)
    assert not Path("silos").exists()


def test_the_path_of_the_weights_is_made_absolute_as_that_of_the_data(console, tmp_path):
    config = with_absolute_paths(tiny(*STUDENT, "teachers.weights=public.pth")).load()
    assert config.student.weights == str(tmp_path / "weights.pth")
    assert config.teachers.weights == str(tmp_path / "public.pth")
    assert with_absolute_paths(tiny()).load() == tiny().load()


@pytest.mark.parametrize("section", ["teachers", "student"])
def test_a_run_is_not_gone_on_with_from_other_weights_and_no_teacher_is_made_anew(section, console):
    """Before: teachers were trained again, by DP-SGD at a charge, and the run refused, or mixed their answers."""
    frozen = (f"{section}.weights=public.pth", f"{section}.frozen=true", f"{section}.shift=0")
    sizes = {"teachers": "teachers.width=4", "student": "student.width=4"}[section]
    torch.manual_seed(1)
    torch.save(build_classifier("convnet", 20, (1, 8, 8), 4).state_dict(), "public.pth")
    overrides = (*frozen, sizes, "student.committee=1")
    run_once(tiny(*overrides), console)
    before = {path: path.read_bytes() for path in Path("silos").rglob("teacher.safetensors")}
    Path("runs/smoke/result.json").unlink()
    torch.save(build_classifier("convnet", 20, (1, 8, 8), 4, seed=9).state_dict(), "public.pth")
    again = Request(SMOKE, (*TINY_SMOKE, *overrides), Existing.RESUME, local=True)
    with pytest.raises(RunError, match=f"other weights, SHA-256 .*{section}.weights that it began with"):
        run_once(again, console)
    assert {path: path.read_bytes() for path in Path("silos").rglob("teacher.safetensors")} == before


def test_weights_of_another_network_are_told_before_a_teacher_is_trained(console, tmp_path):
    """Before: all teachers were made first, which may take hours, at a charge where it is by DP-SGD."""
    torch.save(build_classifier("lenet5", 20, (1, 8, 8), 4).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"student\.weights"):
        run_once(tiny(*STUDENT), console)
    assert not list(Path("silos").rglob("teacher.safetensors"))
