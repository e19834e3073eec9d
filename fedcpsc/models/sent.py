# SPDX-License-Identifier: Apache-2.0
"""A network that a stranger sent: by the name of its architecture and the bytes of its tensors, checked, never run.

Nothing is built of a size that was not compared with the bytes before: shapes come from the architecture on the device
`meta`, where no memory is taken.
"""

from __future__ import annotations

import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from fedcpsc.errors import ConfigError, ProtocolError, explain
from fedcpsc.models.classifier import HeadedClassifier
from fedcpsc.models.registry import ARCHITECTURES, build_classifier

__all__ = ["network_of_bytes"]

_HEADER = 8  # bytes that hold the length of a safetensors file's header
_LONGEST_HEADER = 2**24
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def network_of_bytes(
    architecture: str, classes: int, image_shape: tuple[int, int, int], width: int, weights: bytes
) -> HeadedClassifier:
    """The network, in evaluation mode on the CPU, without gradients.

    Args:
        architecture: name of an architecture of `models.registry`.
        classes: number of its outputs, >= 2.
        image_shape: (C, H, W) of its images.
        width: width of the network, >= 1.
        weights: bytes of a safetensors file with all tensors of its state dict, and no others.

    Raises:
        ProtocolError: the architecture is unknown, there is none of such sizes, or a tensor is missing, unknown, of
            another shape or type, or not finite.
    """
    if architecture not in ARCHITECTURES:  # checked first: what follows may build one
        raise _unfit("its architecture is unknown here", "use one of the registry's")
    try:
        with torch.device("meta"):
            skeleton = build_classifier(architecture, classes, image_shape, width, seed=0)
    except (ConfigError, RuntimeError, ValueError) as error:
        raise _unfit("there is no such network of these sizes", "check width, classes and image shape") from error
    state = skeleton.state_dict()
    wanted = {name: (_DTYPES.get(tensor.dtype, "other"), list(tensor.shape)) for name, tensor in state.items()}
    if _header(weights) != wanted:
        raise _unfit("its tensors are not those of its architecture, by name, shape and type", "send its state dict")
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > len(weights):
        raise _unfit("its file is shorter than its tensors", "send the whole file")
    try:
        tensors = load(weights)
        network = build_classifier(architecture, classes, image_shape, width, seed=0)
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise _unfit("its file cannot be read", "send a safetensors file") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()):
        raise _unfit("a weight is not finite", "send finite weights")
    return network.eval().requires_grad_(False)


def _header(weights: bytes) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor, as the file's header says.

    Raises:
        ProtocolError: where there is no header of a safetensors file.
    """
    size = int.from_bytes(weights[:_HEADER], "little")
    try:
        if not 0 < size <= min(len(weights) - _HEADER, _LONGEST_HEADER):
            raise ValueError(size)
        header = json.loads(weights[_HEADER : _HEADER + size])
        header.pop("__metadata__", None)
        return {str(name): (tensor["dtype"], list(tensor["shape"])) for name, tensor in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _unfit("its file is no safetensors file", "send one") from error


def _unfit(constraint: str, remedy: str) -> ProtocolError:
    return ProtocolError(explain("student", "as sent", constraint, remedy))
