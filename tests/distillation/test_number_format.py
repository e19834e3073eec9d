# SPDX-License-Identifier: Apache-2.0
"""The number format that a configuration leaves to the machine: settled when a run begins, and kept by it."""

import pytest
import torch
from support.fakes import FakeSilo
from support.kept_runs import a_run, assert_same_student
from support.processors import WITH_BFLOAT16, WITHOUT, make_processor
from support.tiny_runs import tiny_config

from fedcpsc.config import load_config
from fedcpsc.distillation.refit import refit
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import ConfigError, RunError


class Dies(Exception):
    pass


def formats(folder):
    config = load_config(folder / "config.yaml")
    return config.student.precision, config.synthesis.precision


def begun(folder, silos, **changes):
    """A run whose process dies at the fifth query."""
    seen = []

    def misbehave(query, so_far):
        seen.append(query)
        if len(seen) == 5:
            raise Dies

    for silo in silos:
        silo.misbehave = misbehave
    with pytest.raises(Dies):
        distill(tiny_config(**changes), LocalTransport(silos), folder)
    return silos


def two_silos():
    return [FakeSilo("silo-0"), FakeSilo("silo-1")]


@pytest.mark.parametrize(("features", "chosen"), [(WITH_BFLOAT16, "bfloat16"), (WITHOUT, "float32")])
def test_it_is_the_fastest_of_the_machine_and_the_runs_folder_tells(tmp_path, monkeypatch, features, chosen):
    make_processor(monkeypatch, features)
    a_run(tmp_path / "left", tiny_config())
    assert formats(tmp_path / "left") == (chosen, chosen)
    a_run(tmp_path / "said", tiny_config(student__precision=chosen, synthesis__precision=chosen))
    assert_same_student(tmp_path / "left", tmp_path / "said")


def test_what_the_configuration_says_is_taken_on_any_machine(tmp_path, monkeypatch):
    make_processor(monkeypatch, WITH_BFLOAT16)
    a_run(tmp_path, tiny_config(student__precision="float32"))
    assert formats(tmp_path) == ("float32", "bfloat16")


def test_a_run_resumed_on_a_faster_machine_keeps_its_format(tmp_path, monkeypatch):
    make_processor(monkeypatch, WITHOUT)
    a_run(tmp_path / "whole", tiny_config())
    silos = begun(tmp_path / "cut", two_silos())
    make_processor(monkeypatch, WITH_BFLOAT16)
    distill(tiny_config(), LocalTransport(silos), tmp_path / "cut", resume=True)
    assert formats(tmp_path / "cut") == ("float32", "float32")
    assert_same_student(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(RunError, match=r"another configuration: student\.precision: float32 -> bfloat16"):
        distill(tiny_config(student__precision="bfloat16"), LocalTransport(silos), tmp_path / "cut", resume=True)


def test_a_run_resumed_on_a_machine_without_its_format_ends_before_a_silo_is_asked(tmp_path, monkeypatch):
    make_processor(monkeypatch, WITH_BFLOAT16)
    silos = begun(tmp_path, two_silos())
    make_processor(monkeypatch, WITHOUT)
    calls = [silo.calls for silo in silos]
    refused = (
        r"student\.precision='bfloat16': this processor has no.*on a machine like the one.*runtime\.emulation=true"
    )
    with pytest.raises(ConfigError, match=refused):
        distill(tiny_config(), LocalTransport(silos), tmp_path, resume=True)
    assert [silo.calls for silo in silos] == calls
    distill(tiny_config(runtime__emulation=True), LocalTransport(silos), tmp_path, resume=True)
    assert formats(tmp_path) == ("bfloat16", "bfloat16")


def test_a_refit_keeps_the_runs_format_and_may_take_another(tmp_path, monkeypatch):
    make_processor(monkeypatch, WITH_BFLOAT16)
    a_run(tmp_path / "run", tiny_config())
    make_processor(monkeypatch, WITHOUT)
    with pytest.raises(ConfigError, match=r"student\.precision='bfloat16'.*set student\.precision=float32, or"):
        refit(tmp_path / "run", tiny_config(), tmp_path / "refit")
    assert not (tmp_path / "refit").exists()
    refit(tmp_path / "run", tiny_config(student__precision="float32"), tmp_path / "refit")
    assert formats(tmp_path / "refit") == ("float32", "bfloat16")


def test_a_module_of_the_callers_own_is_fitted_in_float32_unless_asked_otherwise(tmp_path, monkeypatch):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(144, 3)

        def forward(self, x):
            return self.head(self.features(x).flatten(1))

    make_processor(monkeypatch, WITH_BFLOAT16)
    module = Own()
    silos = LocalTransport(two_silos())
    distill(tiny_config(student__committee=1), silos, tmp_path / "left", student=module)
    assert formats(tmp_path / "left") == ("float32", "bfloat16")
    distill(tiny_config(student__precision="bfloat16"), silos, tmp_path / "said", student=module)
    assert formats(tmp_path / "said") == ("bfloat16", "bfloat16")
