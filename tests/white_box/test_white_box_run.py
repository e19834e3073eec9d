# SPDX-License-Identifier: Apache-2.0
"""Whole white-box runs: what they leave, how they go on, which epoch is the result, and that students learn."""

import json

import pytest
from safetensors.torch import load_file, save_file
from support.tiny_white_box import tiny
from typer.testing import CliRunner

from fedcpsc import cli
from fedcpsc.errors import ConfigError, RunError
from fedcpsc.white_box.quirks import Quirks
from fedcpsc.white_box.run import run_white_box

DATA = {"source": "digits", "train_limit": 300, "test_limit": 100}
TEACHER = {
    "architecture": "convnet",
    "width": 4,
    "epochs": 4,
    "batch_size": 32,
    "optimiser": "adam",
    "learning_rate": 5e-3,
    "shift": 0,
    "flip": False,
}


def small(**changed):
    return tiny(data=DATA, teacher=TEACHER, runtime={"device": "cpu", "threads": 1}, **changed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_white_box(small(), folder)


class Dies(Exception):
    pass


def test_a_run_leaves_everything(whole):
    folder, result = whole
    for name in ("config.yaml", "teacher.safetensors", "student.safetensors", "generator.safetensors", "samples.png"):
        assert (folder / name).stat().st_size > 0, name
    assert json.loads((folder / "result.json").read_text()) == result
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["student_accuracy"] == result["student"]["accuracy"]
    assert (result["private"], result["result_of_epoch"], result["chosen_on_held_out"]) == (False, 4, False)
    assert result["teacher_images"] == 4 * 2 * (2 + 2) * 8


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_run_resumed_gives_the_very_same_student(whole, tmp_path, epoch):
    def dies(line):
        if line["epoch"] == epoch:
            raise Dies

    with pytest.raises(Dies):
        run_white_box(small(), tmp_path, on_line=dies)
    run_white_box(small(), tmp_path, resume=True)
    for name in ("student.safetensors", "generator.safetensors"):
        first, second = load_file(whole[0] / name), load_file(tmp_path / name)
        assert all((first[key] == second[key]).all() for key in first)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_new_run_trains_its_own_teacher_whatever_lies_in_the_folder(whole, tmp_path):
    stranger = {key: 0 * tensor for key, tensor in load_file(whole[0] / "teacher.safetensors").items()}
    save_file(stranger, tmp_path / "teacher.safetensors")
    run_white_box(small(epochs=2), tmp_path)
    first, second = (load_file(folder / "teacher.safetensors") for folder in (whole[0], tmp_path))
    assert all((first[key] == second[key]).all() for key in first)


def test_another_configuration_is_not_resumed_and_a_folder_not_overwritten(whole):
    with pytest.raises(RunError, match="holds a run already"):
        run_white_box(small(), whole[0])
    with pytest.raises(RunError, match="began with another configuration \\(seed\\)"):
        run_white_box(small(seed=2), whole[0], resume=True)


def test_a_teacher_file_of_another_architecture_is_refused(whole, tmp_path):
    teacher = TEACHER | {"width": 8, "weights": str(whole[0] / "teacher.safetensors")}
    with pytest.raises(ConfigError, match="teacher.weights=.*is no convnet"):
        run_white_box(tiny(data=DATA, teacher=teacher), tmp_path / "run")


def test_the_best_epoch_is_chosen_on_the_test_set_only_as_a_quirk(tmp_path):
    result = run_white_box(small(), tmp_path, quirks=Quirks(best_on_test=True))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    each = [line["student_accuracy"] for line in lines]
    assert result["chosen_on_held_out"] is True
    assert result["result_of_epoch"] == 1 + each.index(max(each))
    assert result["student"]["accuracy"] == max(each)


def test_the_command_distils_digits_far_above_chance(tmp_path):
    config = "configs/white_box_digits.yaml"
    short = ("teacher.epochs=6", "epochs=8", "iterations=8", "generator.milestones=[4]", f"output.root={tmp_path}")
    overrides = [part for override in short for part in ("--set", override)]
    told = CliRunner().invoke(cli.app, ["white-box", config, *overrides])
    assert told.exit_code == 0, told.output
    assert "not private" in told.output
    result = json.loads((tmp_path / "white_box_digits/result.json").read_text())
    assert result["teacher"]["accuracy"] > 0.8
    assert result["student"]["accuracy"] > 0.4
