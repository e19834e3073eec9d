# SPDX-License-Identifier: Apache-2.0
"""A teacher that is a network of `models.registry` with weights in safetensors."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedcpsc.errors import TeacherError, explain
from fedcpsc.models.registry import build_classifier
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.on_device import OnDevice
from fedcpsc.teachers.outputs import to_probabilities
from fedcpsc.teachers.protocol import Floats, checked
from fedcpsc.teachers.state_dict import check_numbers, misfit, tensors_of
from fedcpsc.teachers.weights_of import recognise_weights

__all__ = ["TORCH", "Pixels", "TorchTeacher"]

_OF_TYPES = re.compile(r"\b(d?type|Half|BFloat16|Double)\b")  # in what torch says of tensors of unlike types


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
        network: function from normalised images to outputs [N, K]; a module is put into evaluation mode.
        manifest: manifest of the teacher.
        batch_size: number of images per forward pass.
        fixed_batch: number of images that the network takes at a time, where it takes no other.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        manifest: Manifest,
        batch_size: int = 500,
        fixed_batch: int | None = None,
    ) -> None:
        self.classes = manifest.outputs
        self.image_shape = manifest.image_shape
        self._network = network.eval().requires_grad_(False) if isinstance(network, nn.Module) else network
        self._batch_size = fixed_batch or batch_size
        self._fixed_batch = fixed_batch
        self._probabilities = manifest.probabilities
        self._pixels = Pixels(manifest)

    def answer_on(self, device: str) -> bool:
        """Moves the network to a device, from which its answers are brought back; False where it cannot be moved.

        Args:
            device: name of the device, `cpu` or `cuda`.

        Raises:
            ConfigError: the device is a GPU, and torch sees none.
        """
        if not isinstance(self._network, nn.Module):
            return False
        self._network = OnDevice(self._network, device, "service.device")
        return True

    @torch.inference_mode()
    def predict(self, images: npt.NDArray[np.uint8]) -> Floats:
        """Class probabilities, float32 [N, K], of uint8 images [N, C, H, W].

        Raises:
            TeacherError: where the network gives NaN or inf.
        """
        found = self._all(images)
        if self._probabilities or found.ndim != 2:
            return checked(to_probabilities(found.numpy(), probabilities=True), len(images), self.classes)
        return checked(torch.softmax(found, 1).numpy(), len(images), self.classes)

    @torch.inference_mode()
    def outputs(self, images: npt.NDArray[np.uint8]) -> Floats:
        """The network's outputs as they are, float32 [N, K].

        Raises:
            TeacherError: where the network fails.
        """
        found: Floats = self._all(images).numpy()
        return found

    def _all(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Outputs of all images, float32, a forward pass for each batch."""
        parts = []
        for start in range(0, len(images), self._batch_size):
            pixels = self._pixels(images[start : start + self._batch_size])
            lacking = (self._fixed_batch or 0) - len(pixels)
            if lacking > 0:
                pixels = torch.cat([pixels, pixels[-1:].expand(lacking, -1, -1, -1)])
            try:
                found = self._network(pixels)
            except (RuntimeError, ValueError, AssertionError) as error:  # AssertionError: a guard of torch.export
                shown, remedy = (
                    f"failed on float32{list(pixels.shape)} ({_first_line(error)})",
                    "check its input's shape",
                )
                if _OF_TYPES.search(str(error)):
                    remedy = "its weights are of another type: call model.float() before it is exported"
                raise TeacherError(explain("teacher", "torch", shown, remedy)) from error
            if not isinstance(found, Tensor):
                shown = f"gives {type(found).__name__}, must give one tensor [N, K]"
                raise TeacherError(explain("teacher output", type(found).__name__, shown, "export its logits alone"))
            parts.append(found.to(torch.float32)[: len(pixels) - max(lacking, 0)])
        return torch.cat(parts)


def load(weights: bytes, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher of weights in safetensors form.

    Raises:
        ManifestError: where they are not, or do not fit the manifest.
    """
    network = build_classifier(manifest.architecture, manifest.outputs, manifest.image_shape, manifest.width)
    state = tensors_of(weights, WEIGHTS_FILE)
    check_numbers(state, network.state_dict(), WEIGHTS_FILE)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # its own message lists every key
        raise misfit(state, network.state_dict(), manifest.architecture, WEIGHTS_FILE) from error
    return TorchTeacher(network, manifest, batch_size)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


TORCH = TeacherFormat(
    name="torch",
    summary="a network of fedcpsc.models.registry",
    when="for a classifier of your own in PyTorch, or one that this project trains",
    weights_file="state dict of an architecture of `fedcpsc.models.registry`, as safetensors",
    load=load,
    recognise=recognise_weights,
    code="none: tensors",
    checks="names and shapes of all tensors",
)
