# SPDX-License-Identifier: Apache-2.0
"""Copies between this machine's memory and a device, so that neither waits for the other more often than it must.

A GPU works through what it was given in order, behind the program's back. A copy from ordinary (pageable) memory stops
the program until it is done; one from pinned memory is queued like everything else. A copy to this machine's memory
must be waited for before it is read: several are queued, and the last is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["downloaded", "uploaded"]


def uploaded(values: Tensor | npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """The values on the device, without a wait for it.

    Args:
        values: tensor or array of any shape; what lies on the device already is given back as it is.
        device: device that they are wanted on. On a CPU a tensor shares the memory of the values.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def downloaded(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU, after one wait for all of them.

    Args:
        tensors: tensors of one device, at least one, none of them empty.
    """
    *most, last = tensors
    queued = [tensor.to("cpu", non_blocking=True) for tensor in most]  # torch pins what it copies to so
    return [*queued, last.cpu()]  # copies of one stream end in order: those before it are done too
