# SPDX-License-Identifier: Apache-2.0
"""bfloat16 is the default where a machine computes in it, and refused where it would emulate it unasked."""

import pytest
import torch
from support.processors import WITHOUT, make_processor
from support.tiny_white_box import tiny

from fedcpsc.errors import ConfigError
from fedcpsc.models.precision import bfloat16_is_emulated, own_precision, settled_precision
from fedcpsc.white_box.run import run_white_box

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "avx10_2", "sve_bf16"])
def test_a_processor_with_instructions_for_bfloat16_computes_in_it(monkeypatch, feature):
    make_processor(monkeypatch, {"avx2": True, feature: True})
    assert not bfloat16_is_emulated(CPU)
    assert own_precision(CPU) == settled_precision("precision", None, CPU, emulation=False) == "bfloat16"
    assert settled_precision("precision", "float32", CPU, emulation=False) == "float32"


def test_a_processor_without_them_is_told_and_emulates_it_only_where_that_is_wanted(monkeypatch, tmp_path):
    make_processor(monkeypatch, WITHOUT)
    assert bfloat16_is_emulated(CPU)
    assert settled_precision("precision", None, CPU, emulation=False) == "float32"
    assert settled_precision("precision", "bfloat16", CPU, emulation=True) == "bfloat16"
    refused = (
        r"precision='?bfloat16'?: this processor has no instructions for it.*set precision=float32, or runtime\.em"
    )
    with pytest.raises(ConfigError, match=refused):
        run_white_box(tiny(precision="bfloat16", runtime={"device": "cpu"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked_for_bfloat16_without_emulation(monkeypatch, supported):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or supported)
    assert bfloat16_is_emulated(GPU) != supported
    assert asked == [{"including_emulation": False}]
