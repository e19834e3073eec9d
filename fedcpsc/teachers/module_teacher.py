# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a torch module of this process, such as a notebook's: used as it is, and never written as code.

The silo's weights file holds the module's state, so that ledger and manifest name the version that answered. What the
module computes stands in its program alone: another process cannot open such a teacher, and is told so.
"""

from __future__ import annotations

import copy
import threading
from itertools import chain

import torch
from torch import Tensor, nn

from fedcpsc.errors import ManifestError, TeacherError, explain
from fedcpsc.teachers.state_dict import as_safetensors

__all__ = ["ENTRY_POINT", "FrozenModule", "open_elsewhere", "state_bytes"]

ENTRY_POINT = "fedcpsc.teachers.module_teacher:open_elsewhere"
"""What stands in the manifest of such a silo: who opens its folder in another process gets an error that explains."""


class FrozenModule:
    """A copy of a module as it is now, in evaluation mode: what its owner trains on afterwards answers nobody.

    One thread at a time computes: a module may keep something between its layers.

    Args:
        module: module that maps float32 [N, C, H, W] to outputs [N, K]; it is left as it is.
        name: name of the module in messages.

    Raises:
        TeacherError: where the module cannot be copied.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        try:
            copied = copy.deepcopy(module)
        except Exception as error:  # the module's own code, or a tensor that is part of a graph
            shown = f"cannot be copied ({type(error).__name__}: {error})"
            remedy = "give a module that copy.deepcopy takes, for example a fresh one with the trained state dict"
            raise TeacherError(explain(name, type(module).__name__, shown, remedy)) from error
        self.network = copied.eval().requires_grad_(False)
        tensor = next(chain(self.network.parameters(), self.network.buffers()), None)
        self._device = torch.device("cpu") if tensor is None else tensor.device
        self._one_at_a_time = threading.Lock()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> outputs on the CPU, as the module gives them."""
        with self._one_at_a_time:
            found = self.network(pixels.to(self._device))
        return found.cpu() if isinstance(found, Tensor) else found  # what is no tensor, `TorchTeacher` explains


def state_bytes(module: nn.Module, name: str) -> bytes:
    """The module's state as a safetensors file: equal for equal weights, whatever process or device they lie on.

    A module without any tensor is known by its class's name, which is then written instead.

    Args:
        module: module whose state is meant.
        name: name of the module in messages.

    Raises:
        TeacherError: where its state holds something that is no dense tensor.
    """
    state = module.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
            shown = f"its state holds {key!r}, which is no dense tensor"
            remedy = "adopt the model as a file: fedcpsc adopt takes ONNX, TorchScript and torch.export"
            raise TeacherError(explain(name, type(module).__name__, shown, remedy))
    if not state:
        kind = type(module)
        return as_safetensors({}, {"class": f"{kind.__module__}.{kind.__qualname__}"})
    return as_safetensors({key: tensor.detach().cpu() for key, tensor in state.items()})


def open_elsewhere(weights: bytes) -> None:
    """Refuses: the entry point of such a silo's folder, called where another process opens it.

    Args:
        weights: content of the weights file.

    Raises:
        ManifestError: always.
    """
    del weights
    shown = "the teacher is a module of the Python program that made this silo, and only that program can open it"
    remedy = "give the folder and the same modules to fedcpsc.simulate; or adopt the model as a file: fedcpsc adopt"
    raise ManifestError(explain("teacher", "torch module", shown, remedy))
