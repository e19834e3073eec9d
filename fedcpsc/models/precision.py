# SPDX-License-Identifier: Apache-2.0
"""Whether a machine has instructions for a number format, or would imitate it by others and be slower for it."""

from __future__ import annotations

import torch

from fedcpsc.config import Precision
from fedcpsc.errors import ConfigError, explain

__all__ = ["bfloat16_is_emulated", "check_precision"]


def bfloat16_is_emulated(device: torch.device) -> bool:
    """Whether products in bfloat16 are made of float32 ones there: passes are then slower than in float32.

    Args:
        device: a CPU has it with AVX512-BF16, AMX-BF16, AVX10.2 or Arm's BF16; a GPU of NVIDIA from Ampere on.
    """
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return not any(has is True for name, has in found.items() if name.endswith("bf16") or name == "avx10_2")


def check_precision(key: str, precision: Precision, device: torch.device, *, emulation: bool) -> None:
    """Does nothing where the device computes in this format by itself, or may emulate it.

    Args:
        key: key of the configuration that names the format.
        precision: the format.
        device: device of the passes.
        emulation: whether a format that the device lacks is wanted all the same, to compare results, say.

    Raises:
        ConfigError: it lacks the format.
    """
    if precision == "bfloat16" and not emulation and bfloat16_is_emulated(device):
        what = "GPU" if device.type == "cuda" else "processor"
        constraint = f"this {what} has no instructions for it and would be slower than in float32"
        remedy = f"set {key}=float32, or emulation=true to have it emulated all the same"
        raise ConfigError(explain(key, precision, constraint, remedy))
