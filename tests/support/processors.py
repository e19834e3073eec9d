# SPDX-License-Identifier: Apache-2.0
"""Processors that this machine does not have, as far as torch tells."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

WITH_BFLOAT16 = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}
WITHOUT = {"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}


def make_processor(patch: pytest.MonkeyPatch, features: Mapping[str, bool]) -> None:
    """Lets torch say that the processor has these features; what it computes by is still this one's."""
    patch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **features})
