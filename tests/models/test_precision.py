# SPDX-License-Identifier: Apache-2.0
"""bfloat16 is refused where the machine would emulate it, unless that is wanted."""

import pytest
import torch
from support.tiny_white_box import tiny

from fedcpsc.errors import ConfigError
from fedcpsc.models.precision import bfloat16_is_emulated, check_precision
from fedcpsc.white_box.run import run_white_box

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def processor(monkeypatch):
    """Makes the processor one with the given features."""

    def has(**features):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **features})

    return has


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "avx10_2", "sve_bf16"])
def test_a_processor_with_instructions_for_bfloat16_computes_in_it(processor, feature):
    processor(avx2=True, **{feature: True})
    assert not bfloat16_is_emulated(CPU)
    check_precision("precision", "bfloat16", CPU, emulation=False)


def test_a_processor_without_them_is_told_and_emulates_it_only_where_that_is_wanted(processor, tmp_path):
    processor(avx2=True, avx512_f=True, avx512_bf16=False, amx_bf16=False)
    assert bfloat16_is_emulated(CPU)
    check_precision("precision", "float32", CPU, emulation=False)
    check_precision("precision", "bfloat16", CPU, emulation=True)
    refused = r"precision='?bfloat16'?: this processor has no instructions for it.*emulation=true"
    with pytest.raises(ConfigError, match=refused):
        run_white_box(tiny(precision="bfloat16", runtime={"device": "cpu"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked_for_bfloat16_without_emulation(monkeypatch, supported):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or supported)
    assert bfloat16_is_emulated(GPU) != supported
    assert asked == [{"including_emulation": False}]
