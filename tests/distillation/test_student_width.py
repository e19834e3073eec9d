# SPDX-License-Identifier: Apache-2.0
"""The student's width where the configuration names none: what suits the images, and a run keeps what it began with."""

import json

import pytest
from support.fakes import FakeSilo
from support.kept_runs import assert_same_student, changed
from support.tiny_runs import tiny_config

from fedcpsc.config import load_config
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RunError
from fedcpsc.models.registry import build_classifier
from fedcpsc.models.students import build_student, width_of
from fedcpsc.student_config import StudentConfig
from fedcpsc.typed_yaml import save_config

GREY, COLOURED = (1, 8, 8), (3, 8, 8)


@pytest.mark.parametrize(
    ("given", "shape", "width"),
    [
        (None, (1, 32, 32), 32),
        (None, (3, 64, 64), 64),
        (None, (3, 65, 64), 32),  # large: a step would take four times the memory
        (None, (2, 8, 8), 64),
        (8, (3, 32, 32), 8),
    ],
)
def test_it_follows_from_the_images_unless_it_is_said(given, shape, width):
    assert width_of(StudentConfig(width=given), shape) == width


def test_a_student_is_built_so_wide():
    for shape, width in ((COLOURED, 64), (GREY, 32)):
        built, wanted = build_student(StudentConfig(), 3, shape, seed=1), build_classifier("convnet", 3, shape, width)
        assert [p.shape for p in built.parameters()] == [p.shape for p in wanted.parameters()]


def run(folder, shape, **options):
    """A run whose configuration names no width."""
    silos = [FakeSilo(f"silo-{i}", image_shape=shape) for i in range(2)]
    return distill(tiny_config(student__width=None), LocalTransport(silos), folder, **options)


@pytest.mark.parametrize(("shape", "width"), [(GREY, 32), (COLOURED, 64)])
def test_the_runs_folder_tells_what_it_was(tmp_path, shape, width):
    run(tmp_path / "run", shape)
    assert load_config(tmp_path / "run/config.yaml").student.width == width
    assert json.loads((tmp_path / "run/result.json").read_text())["student"]["width"] == width
    config = changed(load_config(tmp_path / "run/config.yaml"), output__name="again", student__width=None)
    refit(tmp_path / "run", config, tmp_path / "again")
    assert load_config(tmp_path / "again/config.yaml").student.width == width
    assert_same_student(tmp_path / "run", tmp_path / "again")


def test_a_run_gone_on_with_keeps_its_width(tmp_path):
    class Dies(Exception):
        pass

    silos = [FakeSilo(f"silo-{i}", image_shape=COLOURED) for i in range(2)]
    seen = []

    def die(query, so_far):
        seen.append(query)
        if len(seen) == 5:
            raise Dies

    for silo in silos:
        silo.misbehave = die
    with pytest.raises(Dies):
        distill(tiny_config(student__width=6), LocalTransport(silos), tmp_path)
    with pytest.raises(RunError, match=r"student\.width: 6 -> 7"):
        distill(tiny_config(student__width=7), LocalTransport(silos), tmp_path, resume=True)
    result = distill(tiny_config(student__width=None), LocalTransport(silos), tmp_path, resume=True)
    assert result["student"]["width"] == 6


def test_a_configuration_that_names_none_is_read_and_written(tmp_path):
    save_config(tiny_config(student__width=None), tmp_path / "run.yaml")
    assert load_config(tmp_path / "run.yaml").student.width is None
