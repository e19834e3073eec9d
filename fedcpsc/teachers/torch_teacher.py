# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a network of `models.registry` with weights in safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from fedcpsc.errors import ManifestError, explain
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, read_weights
from fedcpsc.teachers.protocol import Floats, checked

__all__ = ["TORCH", "Pixels", "TorchTeacher"]


_TORCH_SAVE = (b"PK\x03\x04", b"\x80\x02")  # a zip archive since torch 1.6, a bare pickle before
_PARALLEL = "module."


class Pixels:
    """uint8 images -> what the network takes: (x / 255 - mean) / std, float32, the manifest's public constants."""

    def __init__(self, manifest: Manifest) -> None:
        mean = torch.tensor(manifest.normalisation.mean).view(-1, 1, 1)
        std = torch.tensor(manifest.normalisation.std).view(-1, 1, 1)
        self._scale, self._shift = 1.0 / (255.0 * std), -mean / std

    def __call__(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 [N, C, H, W] -> float32 [N, C, H, W]."""
        raw = torch.from_numpy(np.ascontiguousarray(images)).to(torch.float32)
        return torch.addcmul(self._shift, raw, self._scale)


class TorchTeacher:
    """Implements `Teacher`.

    Args:
        network: logits [N, K] from normalised images.
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass.
    """

    def __init__(self, network: nn.Module, manifest: Manifest, batch_size: int = 500) -> None:
        self.classes = manifest.outputs
        self.image_shape = manifest.image_shape
        self._network = network.eval().requires_grad_(False)
        self._batch_size = batch_size
        self._pixels = Pixels(manifest)

    @torch.inference_mode()
    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 [N, K], of uint8 images [N, C, H, W].

        Raises:
            TeacherError: where the network gives NaN or inf.
        """
        parts = []
        for start in range(0, len(images), self._batch_size):
            logits = self._network(self._pixels(images[start : start + self._batch_size]))
            parts.append(torch.softmax(logits.to(torch.float32), 1).numpy())
        return checked(np.concatenate(parts), len(images), self.classes)


def _open(folder: Path, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher whose weights are in `folder`.

    Raises:
        ManifestError: where weights and manifest disagree.
    """
    network = build_classifier(manifest.architecture, manifest.outputs, manifest.image_shape, manifest.width)
    state = _tensors(read_weights(folder, manifest))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # its own message lists every key
        raise _misfit(set(state), set(network.state_dict()), manifest.architecture) from error
    return TorchTeacher(network, manifest, batch_size)


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ManifestError: where it is another kind of file.
    """
    try:
        return load_tensors(data)
    except SafetensorError as error:
        if data.startswith(_TORCH_SAVE):
            remedy = (
                "convert it: state = torch.load('model.pth', map_location='cpu', weights_only=True);"
                " safetensors.torch.save_file(state, 'teacher.safetensors'); and give the manifest its SHA-256"
            )
            shown = "was written by torch.save, a pickle, which may run code when it is read"
            raise ManifestError(explain("weights", WEIGHTS_FILE, shown, remedy)) from error
        raise ManifestError(
            explain("weights", WEIGHTS_FILE, f"is no safetensors file ({error})", "save the state dict as safetensors")
        ) from error


def _misfit(found: set[str], wanted: set[str], architecture: str) -> ManifestError:
    """Says how a state dict that could not be loaded differs from the architecture's."""
    if found and all(key.startswith(_PARALLEL) for key in found):
        remedy = f"save model.module.state_dict(), or drop the first {len(_PARALLEL)} characters of each key"
        shown = f"every key begins with {_PARALLEL!r}, as nn.DataParallel names them"
        return ManifestError(explain("weights", WEIGHTS_FILE, shown, remedy))
    missing, foreign = sorted(wanted - found), sorted(found - wanted)
    if not missing and not foreign:
        shown = f"do not fit {architecture}: a tensor has another shape"
        return ManifestError(explain("weights", WEIGHTS_FILE, shown, "check width, classes and image_shape"))
    absent, others = f"{len(missing)} tensors are missing{_few(missing)}", f"{len(foreign)} are foreign{_few(foreign)}"
    remedy = "save the state dict of models.registry.build_classifier(...), or name the right architecture"
    return ManifestError(explain("weights", WEIGHTS_FILE, f"do not fit {architecture}: {absent}, {others}", remedy))


def _few(keys: list[str]) -> str:
    return f" ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})" if keys else ""


TORCH = TeacherFormat(
    name="torch",
    summary="a network of fedcpsc.models.registry",
    when="for a classifier of your own in PyTorch, or one that this project trains",
    weights_file="state dict of an architecture of `fedcpsc.models.registry`, as safetensors",
    open=_open,
)
