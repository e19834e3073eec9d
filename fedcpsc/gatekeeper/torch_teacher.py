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
from fedcpsc.gatekeeper.manifest import Manifest, read_weights
from fedcpsc.gatekeeper.teachers import Floats, checked
from fedcpsc.models.registry import build_classifier

__all__ = ["Pixels", "TorchTeacher", "open_torch"]


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
        manifest: of the teacher.
        batch_size: images per forward pass.
    """

    def __init__(self, network: nn.Module, manifest: Manifest, batch_size: int = 500) -> None:
        self.classes = manifest.classes
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


def open_torch(folder: Path, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher whose weights lie in `folder`.

    Raises:
        ManifestError: where weights and manifest disagree.
    """
    network = build_classifier(manifest.architecture, manifest.classes, manifest.image_shape, manifest.width)
    try:
        network.load_state_dict(load_tensors(read_weights(folder, manifest)))
    except (SafetensorError, RuntimeError) as error:
        raise ManifestError(
            explain("weights", manifest.architecture, f"do not fit ({error})", "make the teacher again")
        ) from error
    return TorchTeacher(network, manifest, batch_size)
