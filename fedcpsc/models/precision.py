# SPDX-License-Identifier: Apache-2.0
"""In which number format networks compute, and whether a machine has instructions for it or would imitate it slowly."""

from __future__ import annotations

import torch

from fedcpsc.config import Precision, RunConfig
from fedcpsc.errors import ConfigError, explain

__all__ = ["bfloat16_is_emulated", "check_precision", "own_precision", "settled_precision", "with_settled_precision"]


def bfloat16_is_emulated(device: torch.device) -> bool:
    """Whether products in bfloat16 are made of float32 ones there: passes are then slower than in float32.

    Args:
        device: a CPU has it with AVX512-BF16, AMX-BF16, AVX10.2 or Arm's BF16; a GPU of NVIDIA from Ampere on.
    """
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return not any(has is True for name, has in found.items() if name.endswith("bf16") or name == "avx10_2")


def own_precision(device: torch.device) -> Precision:
    """The fastest format in which a device computes by itself: bfloat16 where it has it, else float32."""
    return "float32" if bfloat16_is_emulated(device) else "bfloat16"


def check_precision(
    key: str, precision: Precision, device: torch.device, *, emulation: bool, resumed: bool = False
) -> None:
    """Does nothing where the device computes in this format by itself, or may emulate it.

    Args:
        key: key of the configuration that names the format.
        precision: the format.
        device: device of the passes.
        emulation: whether a format that the device lacks is computed in all the same.
        resumed: whether a run began in it, so that it cannot be another.

    Raises:
        ConfigError: the device lacks the format.
    """
    if precision == "bfloat16" and not emulation and bfloat16_is_emulated(device):
        what = "GPU" if device.type == "cuda" else "processor"
        constraint = f"this {what} has no instructions for it and would be slower than in float32"
        remedy = "go on with the run on a machine like the one where it began" if resumed else f"set {key}=float32"
        remedy += ", or runtime.emulation=true to have it emulated"
        raise ConfigError(explain(key, precision, constraint, remedy))


def settled_precision(
    key: str, asked: Precision | None, device: torch.device, *, emulation: bool, resumed: bool = False
) -> Precision:
    """The format of a run's passes, which stays the same to its end, on whatever machine it is gone on with.

    Args:
        asked: what the configuration says, or said when the run began; None leaves it to the device.
        key, device, emulation, resumed: arguments of `check_precision`.

    Raises:
        ConfigError: the device lacks the format.
    """
    chosen = asked or own_precision(device)
    check_precision(key, chosen, device, emulation=emulation, resumed=resumed)
    return chosen


def with_settled_precision(
    config: RunConfig, device: torch.device, *, before: RunConfig | None, own_student: bool
) -> RunConfig:
    """The configuration with the formats that it left to the machine.

    Args:
        config: configuration of a run.
        device: device of its passes.
        before: configuration of an earlier attempt at the same run; None where it begins.
        own_student: whether the student is a module of the caller's own. Nobody knows whether its operations
            hold in bfloat16, so that it is fitted in float32 where nothing else is said.

    Raises:
        ConfigError: the device lacks a format.
    """
    settled = {}
    for name in ("student", "synthesis"):
        section = getattr(config, name)
        asked = section.precision if before is None else section.precision or getattr(before, name).precision
        if asked is None and own_student and name == "student":
            asked = "float32"
        emulation, key = config.runtime.emulation, f"{name}.precision"
        chosen = settled_precision(key, asked, device, emulation=emulation, resumed=before is not None)
        settled[name] = section.model_copy(update={"precision": chosen})
    return config.model_copy(update=settled)
